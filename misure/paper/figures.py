"""Figures 1 and 6 from records and saved maps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from misure.explainers import EXPLAINERS
from misure.metrics import min_max
from misure.paper.cells import caption
from misure.paper.maps import load_maps
from misure.paper.reference import Pair
from misure.paper.selection import at_threshold, of_pair, select
from misure.paper.statistics import spearman
from misure.paper.tables import NOT_RUN, PAPER_MASKS
from misure.plotting import MAP_COLOURS, show_empty, show_image, show_map, show_mask, show_region

_METHODS = ("msr", "rise", "seg_grad_cam")
_MOST_ROWS = 6
_PANEL = 1.75
_POINT_COLOUR = "#0072b2"
"""The blue of Okabe and Ito's palette, told apart with every common colour-vision deficiency."""

_Maps = dict[str, NDArray[Any]]


def qualitative_figure(run: pd.DataFrame, maps_folder: Path, profile: str, pair: Pair) -> Figure:
    """Draw Figure 1: one row per sample, the image, the prediction, X_SR and each method's map.

    Args:
        run: As :func:`misure.paper.selection.latest_run` returns it.
        maps_folder: Where the maps are.
        profile: Of the run, for the caption.
        pair: Dataset and model.

    Returns:
        A figure of at most six rows; a map that was not saved is a labelled empty panel.
    """
    records = of_pair(run, pair.dataset, pair.model)
    selected = {name: select(records, name) for name in (*_METHODS, "sufficient_region")}
    samples = _samples_with_maps(selected, maps_folder)
    titles = ["Image", "Prediction", "Dilation ($X_{SR}$)", *(_title(name, selected[name]) for name in _METHODS)]
    rows = max(len(samples), 1)
    figure = Figure(figsize=(_PANEL * len(titles) + 1.1, _PANEL * rows + 0.75), layout="constrained")
    grid = figure.subplots(rows, len(titles), squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=10)
    for line, (sample, maps) in zip(grid, samples.items(), strict=False):
        _draw_sample(line, maps)
        line[0].set_ylabel(f"sample {sample[0]}, class {sample[1]}", fontsize=8)
    if not samples:
        for axes in grid[0]:
            show_empty(axes, "no saved maps\nin this profile", aspect=1)
    scale = ScalarMappable(Normalize(0, 1), cmap=MAP_COLOURS)
    bar = figure.colorbar(scale, ax=grid[:, -len(_METHODS) :], fraction=0.04, aspect=14 * rows, pad=0.015)
    bar.set_label("saliency, each map scaled\nfrom its minimum to its maximum", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    figure.supxlabel(caption(run, profile, pair), fontsize=7, color="0.35")
    return figure


def size_figure(run: pd.DataFrame, profile: str, pair: Pair) -> Figure:
    """Draw Figure 6: dilations and MSR's perturbation ratio against the size of the prediction.

    Args:
        run: As :func:`misure.paper.selection.latest_run` returns it.
        profile: Of the run, for the caption.
        pair: Dataset and model.

    Returns:
        Two scatter plots with Spearman's rank correlation where there are three samples or more.
    """
    rows = at_threshold(select(of_pair(run, pair.dataset, pair.model), "msr"), None)
    figure = Figure(figsize=(8.4, 3.7), layout=ConstrainedLayoutEngine(w_pad=0.12))
    left, right = figure.subplots(1, 2)
    _scatter(left, rows, "n_dilations", "Number of dilations")
    _scatter(right, rows, "perturbation_ratio", "Perturbation ratio of MSR")
    if len(rows):
        left.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.supxlabel(caption(run, profile, pair), fontsize=7, color="0.35")
    return figure


def _scatter(axes: Axes, rows: pd.DataFrame, column: str, label: str) -> None:
    axes.set_xlabel("Prediction size (pixels)", fontsize=10)
    axes.set_ylabel(label, fontsize=10)
    shown = rows.dropna(subset=["prediction_size", column])
    if shown.empty:
        show_empty(axes, NOT_RUN)
        return
    size, value = shown["prediction_size"].astype(float), shown[column].astype(float)
    axes.scatter(size, value, s=26, alpha=0.65, color=_POINT_COLOUR, edgecolors="white", linewidths=0.5)
    axes.set_title(_correlation_title(size, value), fontsize=10)
    axes.tick_params(labelsize=9)
    axes.grid(visible=True, color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    top = max(1.0, float(value.max()))
    axes.set_ylim(bottom=-0.05 * top, top=1.08 * top)


def _correlation_title(first: pd.Series, second: pd.Series) -> str:
    n = len(first)
    if n < 3:
        return f"n = {n}"
    rho = spearman(first, second)
    if math.isnan(rho):
        return f"Spearman's $\\rho$ undefined (one side is constant), n = {n}"
    return f"Spearman's $\\rho$ = {rho:.2f}, n = {n}"


def _title(name: str, rows: pd.DataFrame) -> str:
    title = EXPLAINERS[name].title
    if name == "rise" and len(rows) and (masks := int(rows["param_n_masks"].iloc[0])) != PAPER_MASKS:
        return f"{title} ({masks} masks)"
    return title


def _samples_with_maps(selected: dict[str, pd.DataFrame], maps_folder: Path) -> dict[tuple[int, int], dict[str, _Maps]]:
    """Load maps by (sample, class) and explainer, for the first few samples: those that MSR explained, if any."""
    units = {
        (int(sample), int(class_id), name): str(unit)
        for name, rows in selected.items()
        for sample, class_id, unit in rows[["sample", "class_id", "unit"]].itertuples(index=False, name=None)
    }
    found: dict[tuple[int, int], dict[str, _Maps]] = {}
    for sample, class_id, name in sorted(units):
        maps = load_maps(maps_folder, units[sample, class_id, name])
        if maps is None:
            continue
        found.setdefault((sample, class_id), {})[name] = maps
    shown = {key: maps for key, maps in found.items() if "msr" in maps} or found
    return dict(list(shown.items())[:_MOST_ROWS])


def _draw_sample(line: Any, maps: dict[str, _Maps]) -> None:
    any_maps = next(iter(maps.values()))
    image = torch.from_numpy(any_maps["image"]).float()
    aspect = image.shape[-2] / image.shape[-1]
    show_image(line[0], image)
    show_mask(line[1], torch.from_numpy(any_maps["region"]))
    sufficient = next((m["sufficient_region"] for m in maps.values() if "sufficient_region" in m), None)
    if sufficient is None:
        show_empty(line[2], "no map saved", aspect=aspect)
    else:
        show_region(line[2], image, torch.from_numpy(sufficient))
    for axes, name in zip(line[3:], _METHODS, strict=True):
        if name in maps:
            show_map(axes, min_max(torch.from_numpy(maps[name]["saliency"]).float()[None])[0], high=1)
        else:
            show_empty(axes, "no map saved", aspect=aspect)
