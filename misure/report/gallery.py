"""The gallery: a choice of the explanations whose maps were saved, each with its picture and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from misure.explainers import EXPLAINERS
from misure.metrics import min_max
from misure.paper.credits import credits_document
from misure.paper.figures.maps import Row
from misure.paper.maps import damaged_units, load_maps, saved_units
from misure.paper.material import Material
from misure.paper.published import Pair
from misure.paper.query import of_pair, select, undisturbed
from misure.paper.source import Origin, credit_of
from misure.paper.table import measured
from misure.report.choice import MOST_CARDS, first_samples
from misure.report.markdown import as_html
from misure.report.pictures import Picture, displayable, drawn

_ORDER = ("sufficient_region", "msr", "rise", "seg_grad_cam")


def gallery(material: Material) -> dict[str, Any]:
    """Make the cards of whole samples at the paper's settings; only the maps of these are read.

    Returns:
        ``cards`` (plain values and a :class:`misure.report.pictures.Picture`, at most
        :data:`misure.report.choice.MOST_CARDS`), ``n_saved`` (explanations with saved maps) and ``damaged`` (units
        whose maps are left out).
    """
    units = saved_explanations(material)
    chosen = first_samples(units[units["usual"]], MOST_CARDS).head(MOST_CARDS)
    place = {name: rank for rank, name in enumerate((*_ORDER, *(n for n in EXPLAINERS if n not in _ORDER)))}
    chosen = chosen.assign(place=chosen["explainer"].map(place)).sort_values(["turn", "place"], kind="stable")
    records = material.run[material.run["unit"].isin(chosen["unit"])]
    by_unit = {str(unit): rows for unit, rows in records.groupby("unit")}
    pairs = {(pair.dataset, pair.model): pair for pair in material.shown}
    cards = []
    for _, record in chosen.iterrows():
        maps = load_maps(material.maps_folder, str(record["unit"]))
        if maps is not None:
            cards.append(_card(by_unit[str(record["unit"])], pairs[record["dataset"], record["model"]], maps))
    return {"cards": cards, "n_saved": len(units), "damaged": damaged_units(material.maps_folder)}


def saved_explanations(material: Material) -> pd.DataFrame:
    """Return a row for each explanation whose maps were saved.

    Returns:
        Records with ``showable`` (whether its image may be) and ``usual`` (whether
        :func:`misure.paper.query.select` takes it of them: its settings are the paper's, in one precision).
    """
    run = material.run
    run = run[undisturbed(run) & run["status"].eq("done") & run["unit"].isin(saved_units(material.maps_folder))]
    parts = []
    for pair in material.shown:
        rows = of_pair(run, pair)
        usual = pd.concat([select(rows, name)["unit"] for name in EXPLAINERS])
        rows = rows.drop_duplicates("unit")
        showable = [_is_showable(record, pair) for _, record in rows.iterrows()]
        parts.append(rows.assign(showable=showable, usual=rows["unit"].isin(usual)))
    return pd.concat(parts)


def _is_showable(record: pd.Series, pair: Pair) -> bool:
    return not pair.photographs or credit_of(record).showable


def _card(rows: pd.DataFrame, pair: Pair, maps: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what the page says of an explanation.

    Args:
        rows: Its records, one a threshold.
        pair: Its dataset and network.
        maps: As they were saved.
    """
    first, shown = rows.iloc[0], _is_showable(rows.iloc[0], pair)
    masks = {name: maps[name].astype(bool) for name in ("region", "sufficient_region", "truth") if name in maps}
    scaled = scaled_map(maps["saliency"], itself=bool(rows["threshold"].isna().all()))
    image = displayable(maps["image"], pair.mean, pair.std) if shown and "image" in maps else None
    pixels = drawn(image, scaled, **masks)
    method, origin = EXPLAINERS[first["explainer"]].title, Origin.of(rows)
    facts = [f"{measured(float(first['seconds']))} s"]
    facts += [f"{first['n_dilations']:.0f} dilations"] if not pd.isna(first["n_dilations"]) else []
    return {
        "unit": str(first["unit"]),
        "dataset": pair.dataset_label,
        "model": pair.model_label,
        "class": str(first["class_name"]),
        "method": method,
        "sample": int(first["sample"]),
        "group": str(first["group"]),
        "title": f"{method}, {first['class_name']}, {pair.dataset_label}, sample {first['sample']}",
        "picture": Picture.of(pixels, photograph=pair.photographs),
        "shown": shown,
        "results": [_result(row) for _, row in rows.sort_values("threshold").iterrows()],
        "facts": facts,
        "source": origin.data,
        "marks": list(origin.marks),
        "credit": as_html(credits_document("", [Row(pair, "", first, {})])) if pair.photographs else "",
    }


def _result(row: pd.Series) -> tuple[str, str, str]:
    mask = "as it is" if pd.isna(row["threshold"]) else f"> {row['threshold']:g}"
    return mask, measured(float(row["dice_explained"])), measured(float(row["perturbation_ratio"]))


def scaled_map(saliency: NDArray[Any], *, itself: bool) -> NDArray[np.float64]:
    """Scale a map to [0, 1] as its evaluation did.

    Args:
        saliency: H x W, any sign.
        itself: Whether the map, within [0, 1], was the mask; otherwise it was min-max scaled and cut.
    """
    values = torch.from_numpy(saliency.astype(np.float64))
    scaled: NDArray[np.float64] = (values.clamp(0, 1) if itself else min_max(values[None])[0]).numpy()
    return scaled
