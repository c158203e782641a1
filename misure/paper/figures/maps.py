"""Figures 1 to 3: sample maps, from records and saved maps."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from misure.explainers import EXPLAINERS
from misure.metrics import min_max
from misure.models.normalisation import without_normalisation
from misure.paper.maps import Maps, load_maps, saved_units
from misure.paper.provenance import figure_note
from misure.paper.published import PAPER_MASKS, Pair
from misure.paper.query import class_labels, in_class, paper_draw, select
from misure.paper.source import credit_of
from misure.plotting import MAP_COLOURS, show_empty, show_image, show_map, show_mask, show_region

_METHODS = ("msr", "rise", "seg_grad_cam")
_EXPLAINERS = (*_METHODS, "sufficient_region")
_COLUMNS = 3 + len(_METHODS)
_SAMPLES_SHOWN = 6
"""Of a dataset with one class; with several classes each has its share, at least one."""

_PANEL = 1.75
_BAR_ROWS = 4
"""The colour bar is at most this many rows high."""

_NO_MAPS = "no saved maps\nin this profile"
_NO_LICENCE = "no saved maps of\nan image whose licence\nallows showing it"


@dataclass(frozen=True)
class Row:
    """One row of the grid: an image with its maps, or a class without any.

    Attributes:
        pair: Dataset and model.
        label: The class; empty for a dataset of one class.
        sample: What is known of the image, a record; None where nothing can be shown.
        units: The saved unit of each method.
        reason: Why nothing can be shown.
    """

    pair: Pair
    label: str
    sample: pd.Series | None
    units: Mapping[str, str]
    reason: str = _NO_MAPS


def qualitative_figure(run: pd.DataFrame, maps_folder: Path, profile: str, pairs: Sequence[Pair]) -> Figure:
    """Draw the image, the prediction, X_SR and each method's map, one row per sample.

    A dataset's classes come in the paper's order, and for each class its models one below the other,
    with the same image where both have maps of one.

    Args:
        run: As :func:`misure.paper.query.latest_run` returns it.
        maps_folder: Where the maps are.
        profile: Of the run, for the caption.
        pairs: A dataset with the models that share the figure.

    Returns:
        Six rows at most for one class and one model; a map that was not saved is a labelled empty panel.
        Photographs are shown in their own colours, and only if their licence allows it.
    """
    selected = _selected(run, pairs)
    rows = shown_rows(run, maps_folder, pairs)
    titles = ["Image", "Prediction", "Dilation ($X_{SR}$)"]
    titles += [_title(name, pd.concat([of[name] for of in selected.values()])) for name in _METHODS]
    figure = Figure(figsize=(_PANEL * _COLUMNS + 1.1, _PANEL * len(rows) + 0.75), layout="constrained")
    grid = figure.subplots(len(rows), _COLUMNS, squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=10)
    for line, row in zip(grid, rows, strict=True):
        loaded = {name: load_maps(maps_folder, unit) for name, unit in row.units.items()}
        _draw_sample(line, {name: maps for name, maps in loaded.items() if maps}, row)
        line[0].set_ylabel(_row_label(row, several=len(pairs) > 1), fontsize=8)
    scale = ScalarMappable(Normalize(0, 1), cmap=MAP_COLOURS)
    height = min(1, _BAR_ROWS / len(rows))
    panels = grid[:, -len(_METHODS) :]
    bar = figure.colorbar(
        scale, ax=panels, fraction=0.04, pad=0.015, anchor=(0, 1), shrink=height, aspect=14 * height * len(rows)
    )
    bar.set_label("saliency, each map scaled\nfrom its minimum to its maximum", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    figure_note(figure, run, profile, pairs)
    return figure


def _title(name: str, rows: pd.DataFrame) -> str:
    title = EXPLAINERS[name].title
    masks = {int(n) for n in rows.get("param_n_masks", ())} if name == "rise" else set()
    return f"{title} ({' or '.join(map(str, sorted(masks)))} masks)" if masks - {PAPER_MASKS} else title


def shown_rows(run: pd.DataFrame, maps_folder: Path, pairs: Sequence[Pair]) -> list[Row]:
    """Choose what :func:`qualitative_figure` shows, class by class and model by model."""
    saved = saved_units(maps_folder)
    with_maps = {pair: _saved_rows(tables, saved) for pair, tables in _selected(run, pairs).items()}
    allowed = {pair: units[_may_be_shown(units, pair)] for pair, units in with_maps.items()}
    labels = _classes_shown(pd.concat(with_maps.values()), pairs[0].qualitative_classes)
    each = max(1, _SAMPLES_SHOWN // len(labels)) if labels else 1
    rows = []
    for label in labels or [""]:
        of_class = {pair: in_class(units, label) for pair, units in allowed.items()}
        maps_of = pd.concat(of_class.values()).groupby("sample").size()
        chosen = {pair: _chosen(units, maps_of, each) for pair, units in of_class.items()}
        named = label if len(labels) > 1 else ""
        for place in range(max(1, *(len(samples) for samples in chosen.values()))):
            for pair, samples in chosen.items():
                if place < len(samples):
                    rows.append(_row(pair, named, of_class[pair], samples[place]))
                else:
                    hidden = len(in_class(with_maps[pair], label)) > len(of_class[pair])
                    rows.append(Row(pair, named, None, {}, _NO_LICENCE if hidden else _NO_MAPS))
    return rows


def _selected(run: pd.DataFrame, pairs: Sequence[Pair]) -> dict[Pair, dict[str, pd.DataFrame]]:
    return {pair: {name: select(paper_draw(run, pair), name) for name in _EXPLAINERS} for pair in pairs}


def _saved_rows(tables: Mapping[str, pd.DataFrame], saved: set[str]) -> pd.DataFrame:
    units = pd.concat(tables.values()).drop_duplicates("unit")
    return units[units["unit"].isin(saved)]


def _may_be_shown(units: pd.DataFrame, pair: Pair) -> pd.Series:
    allowed = [not pair.photographs or credit_of(sample).showable for _, sample in units.iterrows()]
    return pd.Series(allowed, index=units.index, dtype=bool)


def _classes_shown(units: pd.DataFrame, first: Sequence[str]) -> list[str]:
    """Name the paper's classes, and one more with maps for each of them that has none; none without any maps."""
    if units.empty:
        return []
    labels = class_labels(units, first)
    without_maps = sum(in_class(units, label).empty for label in first)
    return labels[: len(first) + without_maps] if first else labels


def _chosen(units: pd.DataFrame, maps_of: pd.Series, number: int) -> list[int]:
    """Take samples that MSR explained, if any, and of these the ones with most maps over all models."""
    explained = units.loc[units["explainer"] == "msr", "sample"]
    candidates = sorted(set(explained if len(explained) else units["sample"]))
    return sorted(sorted(candidates, key=lambda sample: -maps_of[sample])[:number])


def _row(pair: Pair, label: str, units: pd.DataFrame, sample: int) -> Row:
    of_sample = units[units["sample"] == sample]
    return Row(pair, label, of_sample.iloc[0], dict(zip(of_sample["explainer"], of_sample["unit"], strict=True)))


def _row_label(row: Row, *, several: bool) -> str:
    """Name the class, the model where a figure has several, and the image."""
    image = ""
    if row.sample is not None:
        image = str(row.sample["group"]) if row.pair.photographs else f"sample {row.sample['sample']}"
    return "\n".join(part for part in (row.label, row.pair.model_label if several else "", image) if part)


def _natural(image: Tensor, pair: Pair) -> Tensor:
    """Undo the normalisation of an image, C x H x W, so that its colours look as they were."""
    return without_normalisation(image, pair.mean, pair.std) if pair.mean else image


def _draw_sample(line: Any, maps: Mapping[str, Maps], row: Row) -> None:
    if not maps:
        for axes in line:
            show_empty(axes, row.reason, aspect=1)
        return
    saved = ChainMap(*maps.values())
    aspect = saved["region"].shape[-2] / saved["region"].shape[-1]
    image = _natural(torch.from_numpy(saved["image"]).float(), row.pair) if "image" in saved else None
    show_mask(line[1], torch.from_numpy(saved["region"]))
    if image is None:
        show_empty(line[0], "no image saved", aspect=aspect)
    else:
        show_image(line[0], image)
    if "sufficient_region" in saved:
        show_region(line[2], image, torch.from_numpy(saved["sufficient_region"]), row.pair.mean or (0.0,))
    else:
        show_empty(line[2], "no map saved", aspect=aspect)
    for axes, name in zip(line[3:], _METHODS, strict=True):
        if name in maps:
            show_map(axes, min_max(torch.from_numpy(maps[name]["saliency"]).float()[None])[0], high=1)
        else:
            show_empty(axes, "no map saved", aspect=aspect)
