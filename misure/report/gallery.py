"""The gallery: explanations whose maps were saved, all or a choice of them, as data for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from misure.explainers import EXPLAINERS
from misure.metrics import min_max
from misure.paper.credits import credits_document
from misure.paper.figures.maps import Row
from misure.paper.maps import load_maps, saved_units
from misure.paper.material import Material
from misure.paper.published import Pair
from misure.paper.query import METRICS, SETTING, credit_of, of_pair, undisturbed
from misure.paper.source import Origin
from misure.plotting import MAP_COLOURS
from misure.report.choice import PICTURE_BYTES, choose
from misure.report.notes import blocks, spans
from misure.report.pictures import LEVELS, Pictures, displayable, to_levels

_METHODS = [EXPLAINERS[name].title for name in ("sufficient_region", "msr", "rise", "seg_grad_cam")]
_USUAL = "default settings"
_UNTOLD = {"seed", "thresholds"}
_PROFILES = {"n_masks", "n_iterations"}
"""Parameters that a profile sets: shown, but no departure from the paper's setting."""


def gallery(material: Material) -> dict[str, Any]:
    """Collect cards and the pictures they share; only the maps of these cards are read.

    Returns:
        ``cards`` (plain values, one per explanation with saved maps, at most :data:`misure.report.choice.MOST_CARDS`
        and as many as have room), ``n_saved`` (explanations with saved maps), ``pictures`` (``data:`` addresses by
        name), ``levels`` (steps of a saved map) and ``colours`` (of the heat map, one ``#rrggbb`` per step).

    Raises:
        MisureError: If a map is damaged.
    """
    pictures = Pictures()
    units = saved_explanations(material)
    cards = _cards(material, choose(units), pictures)
    colours = mpl.colormaps[MAP_COLOURS](np.linspace(0, 1, LEVELS + 1))
    return {
        "cards": [card for pair in material.pairs for card in sorted(cards[pair], key=_order)],
        "n_saved": len(units),
        "pictures": dict(pictures.uris),
        "levels": LEVELS,
        "colours": [mpl.colors.to_hex(colour) for colour in colours],
    }


def _order(card: Mapping[str, Any]) -> tuple[Any, ...]:
    """Sort photographs that may be shown first, then by sample and as the paper's figures do."""
    method = _METHODS.index(card["method"]) if card["method"] in _METHODS else len(_METHODS)
    return (card["image"] is None, card["sample"], card["class"], method, card["setting"], card["unit"])


def saved_explanations(material: Material) -> pd.DataFrame:
    """Return a row for each explanation whose maps were saved, as :func:`misure.report.choice.choose` takes them."""
    run = material.run
    run = run[undisturbed(run) & run["status"].eq("done") & run["unit"].isin(saved_units(material.maps_folder))]
    units = run.drop_duplicates("unit")
    settings = {key: rows.iloc[0] for key, rows in units.groupby(["explainer", SETTING])}
    usual = {key: _is_usual(changed_settings(record)) for key, record in settings.items()}
    units = units.assign(usual=[usual[key] for key in zip(units["explainer"], units[SETTING], strict=True)])
    parts = []
    for pair in material.pairs:
        rows = of_pair(units, pair.dataset, pair.model)
        showable = [_showable(row, pair) for _, row in rows.iterrows()] if pair.photographs else True
        parts.append(rows.assign(showable=showable))
    return pd.concat(parts)


def _is_usual(changed: Mapping[str, str]) -> bool:
    return set(changed) <= _PROFILES


def _showable(record: pd.Series, pair: Pair) -> bool:
    return not pair.photographs or credit_of(record).showable


def _cards(material: Material, groups: Sequence[Sequence[str]], pictures: Pictures) -> dict[Pair, list[dict[str, Any]]]:
    """Make the cards of each pair; a group whose pictures have no room left is passed over."""
    chosen = material.run[material.run["unit"].isin([unit for group in groups for unit in group])]
    by_unit = {str(unit): rows for unit, rows in chosen.groupby("unit", sort=False)}
    pairs = {(pair.dataset, pair.model): pair for pair in material.pairs}
    cards: dict[Pair, list[dict[str, Any]]] = {pair: [] for pair in material.pairs}
    for group in groups:
        n_before = len(pictures.uris)
        made = []
        for unit in group:
            maps, rows = load_maps(material.maps_folder, unit), by_unit[unit]
            pair = pairs[rows["dataset"].iloc[0], rows["model"].iloc[0]]
            if maps is not None:
                made.append((pair, _described(rows, pair) | _drawn(rows, pair, maps, pictures)))
        if pictures.size > PICTURE_BYTES:
            pictures.keep_first(n_before)
            continue
        for pair, card in made:
            cards[pair].append(card)
    return cards


def _described(rows: pd.DataFrame, pair: Pair) -> dict[str, Any]:
    """Return what a card says; it is sorted by the threshold with the highest Dice explained."""
    first = rows.iloc[0]
    changed = changed_settings(first)
    best = rows.sort_values("dice_explained").iloc[-1]
    results = [
        {"threshold": _number(row["threshold"])} | {name: _number(row[name]) for name in METRICS}
        for _, row in rows.sort_values("threshold").iterrows()
    ]
    return {
        "unit": str(first["unit"]),
        "dataset": pair.dataset_label,
        "model": pair.model_label,
        "class": str(first["class_name"]),
        "method": EXPLAINERS[first["explainer"]].title,
        "setting": ", ".join(f"{name} {value}" for name, value in changed.items()) or _USUAL,
        "usual": _is_usual(changed),
        "sample": int(first["sample"]),
        "group": str(first["group"]),
        "results": results,
        "dice": _number(best["dice_explained"]),
        "ratio": _number(best["perturbation_ratio"]),
        "dilations": _number(first["n_dilations"]),
        "seconds": _number(first["seconds"]),
        "source": Origin.of(rows).data,
        "marks": list(Origin.of(rows).marks),
    }


def _drawn(rows: pd.DataFrame, pair: Pair, maps: Mapping[str, NDArray[Any]], pictures: Pictures) -> dict[str, Any]:
    """Return what a card draws, by the names of pictures."""
    first, region = rows.iloc[0], maps["region"].astype(bool)
    image = displayable(maps["image"], pair.mean, pair.std) if _showable(first, pair) else None
    itself = bool(rows["threshold"].isna().all())
    low, high, scaled = scaled_map(maps["saliency"], itself=itself)
    masks = {name: maps.get(name) for name in ("region", "sufficient_region", "truth")}
    return {
        "height": region.shape[0],
        "width": region.shape[1],
        "object": int(region.sum()),
        "image": None if image is None else pictures.add_image(image, photograph=pair.photographs),
        **{name: None if mask is None else pictures.add_mask(mask.astype(bool)) for name, mask in masks.items()},
        "saliency": pictures.add_levels(to_levels(scaled)),
        "itself": itself,
        "low": low,
        "high": high,
        "credit": _credit(first, pair) if pair.photographs else [],
    }


def scaled_map(saliency: NDArray[Any], *, itself: bool) -> tuple[float, float, NDArray[np.float64]]:
    """Scale a map as its evaluation did.

    Args:
        saliency: H x W, any sign.
        itself: Whether the map, within [0, 1], was the mask; otherwise it was min-max scaled and cut.

    Returns:
        The values that became 0 and 1, and the map in [0, 1].
    """
    import torch

    values = saliency.astype(np.float64)
    if itself:
        return 0.0, 1.0, np.clip(values, 0, 1)
    return float(values.min()), float(values.max()), min_max(torch.from_numpy(values)[None])[0].numpy()


def changed_settings(record: pd.Series) -> dict[str, str]:
    """Return the parameters that differ from the method's defaults, as text."""
    changed = {}
    for name, usual in EXPLAINERS[record["explainer"]]().parameters.items():
        found = record.get(f"param_{name}")
        known = found is not None and not pd.isna(found)
        if known and name not in _UNTOLD and not isinstance(usual, list) and found != usual:
            changed[name] = f"{found:g}" if isinstance(found, int | float) else str(found)
    return changed


def _credit(record: pd.Series, pair: Pair) -> list[dict[str, str]]:
    """Return the attribution of a photograph as pieces of text and links."""
    document = blocks(credits_document("", [Row(pair, "", record, {})]))
    line: Sequence[Any] = next((block.lines[0] for block in document if block.kind == "list"), spans(""))
    return [asdict(span) for span in line]


def _number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)
