"""Figures 4 to 7: dilations and perturbation ratio against the size of the prediction, and beside them pixels kept."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from misure.paper.figures.panels import plain_ticks, tidy
from misure.paper.provenance import figure_note
from misure.paper.published import Pair
from misure.paper.query import at_threshold, class_labels, in_class, paper_draw, select
from misure.paper.statistics import spearman
from misure.paper.tables.rows import NOT_RUN
from misure.plotting import show_empty

_ALL = "All classes"
_ADDED = " (not in the paper)"
_MOST_ROWS = 9
_ROW_HEIGHT = 2.3
_LOGARITHMIC_FROM = 30
"""Largest over smallest positive ratio in a figure from which its axes are logarithmic."""

_TICKS = [float(f"{digit}e{power}") for power in range(-9, 9) for digit in (1, 3)]

_FEWEST = 3
"""Samples from which a class has a row below that of all classes: fewer show no relation."""

_POINT_COLOUR = "#0072b2"
"""The blue of Okabe and Ito's palette, told apart with every common colour-vision deficiency."""

_CAVEAT = (
    "Left and middle: the paper's panels. Right, not in the paper: the ratio divides by the prediction's size,\n"
    "so it falls as the size grows unless the pixels kept grow as fast, at a log-log slope of 1 (dashed: ratio 1)."
)


def size_figure(run: pd.DataFrame, profile: str, pair: Pair) -> Figure:
    """Draw dilations, MSR's perturbation ratio and the pixels it keeps against prediction size, one row per class.

    The paper's panels come first: dilations on the left, the ratio beside them, and of its rows the classes that it
    shows, whether or not they have samples, or all classes in one where it merges them. What it does not have says so:
    the pixels kept, and the other classes with some samples (three, below a row of all classes). Without any samples
    there is one empty row.
    The axes of the ratio are logarithmic where a figure's largest is over 30 times its smallest positive one.

    Args:
        run: As :func:`misure.paper.query.latest_run` returns it.
        profile: Of the run, for the caption.
        pair: Dataset and model.

    Returns:
        At most nine rows; every panel has its number of samples and, from three on, Spearman's rank correlation or,
        for the pixels kept, the slope of their logarithm against that of the size.
    """
    rows = at_threshold(select(paper_draw(run, pair), "msr"), None)
    rows = rows.assign(pixels_kept=rows["perturbation_ratio"].astype(float) * rows["prediction_size"].astype(float))
    panels = _panels(rows, pair)
    figure = Figure(
        figsize=(12.3, _ROW_HEIGHT * len(panels) + 1.6), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.07)
    )
    grid = figure.subplots(len(panels), 3, squeeze=False)
    scale = _ratio_scale(pd.concat(panels.values())["perturbation_ratio"].astype(float))
    for line, (label, shown) in zip(grid, panels.items(), strict=True):
        name = label if len(panels) > 1 or label == _ALL else ""
        _scatter(line[0], shown, "n_dilations", name, _correlation_title)
        _scatter(line[1], shown, "perturbation_ratio", name, _correlation_title)
        _scatter(line[2], shown, "pixels_kept", name, _slope_title)
        for axes, word in zip(line, ("Number of dilations", "Perturbation ratio of MSR", "Pixels kept"), strict=True):
            axes.set_ylabel(word, fontsize=9)
        if len(shown):
            line[0].yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            scale(line[1])
            _draw_ratio_1(line[2])
    for axes in grid[-1]:
        axes.set_xlabel("Prediction size (pixels)", fontsize=9)
    figure.suptitle(_CAVEAT, fontsize=8, color="0.35")
    figure_note(figure, run, profile, [pair])
    return figure


def _panels(rows: pd.DataFrame, pair: Pair) -> dict[str, pd.DataFrame]:
    """Return what each row shows, by its label; the paper's rows come first."""
    if rows.empty:
        return {pair.dataset_label: rows}
    by_class = {label: in_class(rows, label) for label in class_labels(rows, pair.size_classes or pair.classes)}
    merged = {_ALL: rows} if pair.sizes_merged and len(by_class) > 1 else {}
    fewest = _FEWEST if merged else 1
    by_class = {label: of for label, of in by_class.items() if label in pair.size_classes or len(of) >= fewest}
    added = set(by_class) - set(pair.size_classes) if merged or pair.size_classes else set()
    shown = merged | {label + _ADDED * (label in added): of for label, of in by_class.items()}
    return dict(list(shown.items())[:_MOST_ROWS])


def _scatter(
    axes: Axes, rows: pd.DataFrame, column: str, name: str, title: Callable[[pd.Series, pd.Series], str]
) -> None:
    shown = rows.dropna(subset=["prediction_size", column])
    if shown.empty:
        axes.set_title(name, fontsize=10)
        show_empty(axes, f"no samples of {name}\nin this profile" if name else NOT_RUN)
        return
    size, value = shown["prediction_size"].astype(float), shown[column].astype(float)
    axes.scatter(size, value, s=26, alpha=0.65, color=_POINT_COLOUR, edgecolors="white", linewidths=0.5)
    axes.set_title("\n".join(line for line in (name, title(size, value)) if line), fontsize=10)
    tidy(axes, size=9, grid="0.9")
    top = max(1.0, float(value.max()))
    axes.set_ylim(bottom=-0.05 * top, top=1.08 * top)


def _draw_ratio_1(axes: Axes) -> None:
    """Draw where as many pixels are kept as the prediction has, without widening the panel."""
    across, up = axes.get_xlim(), axes.get_ylim()
    axes.axline((0, 0), slope=1, color="0.45", linestyle="--", linewidth=1)
    axes.set(xlim=across, ylim=up)


def _ratio_scale(ratios: pd.Series) -> Callable[[Axes], None]:
    """Choose the scale of all axes of the ratio; zeros, where there are any, keep a place below the others."""
    positive = ratios[ratios > 0]
    low, high = positive.min(), positive.max()

    def logarithmic(axes: Axes) -> None:
        ticks = [t for t in _TICKS if low / 1.5 <= t <= high * 1.5]
        if len(positive) == len(ratios):
            axes.set_yscale("log")
            axes.set_ylim(low / 1.5, high * 1.5)
        else:
            axes.set_yscale("symlog", linthresh=low, linscale=0.3)
            axes.set_ylim(-0.3 * low, high * 1.5)
            ticks = [0, *(t for t in ticks if t > low)]
        plain_ticks(axes.yaxis, ticks)

    return logarithmic if high > _LOGARITHMIC_FROM * low else lambda _: None


def _correlation_title(first: pd.Series, second: pd.Series) -> str:
    n = len(first)
    if n < _FEWEST:
        return f"n = {n}"
    rho = spearman(first, second)
    if math.isnan(rho):
        return f"Spearman's $\\rho$ undefined (one side is constant), n = {n}"
    return f"Spearman's $\\rho$ = {rho:.2f}, n = {n}"


def _slope_title(size: pd.Series, kept: pd.Series) -> str:
    """Say how pixels kept grow with size, where any are: 1 where the ratio does not change, below 1 where it falls."""
    known = (size > 0) & (kept > 0)
    if known.sum() < _FEWEST or size[known].nunique() < 2:
        return f"n = {len(size)}"
    slope = np.polyfit(np.log(size[known]), np.log(kept[known]), 1)[0]
    return f"log-log slope {slope:.2f}, n = {known.sum()}" + (f" of {len(size)}" if (~known).any() else "")
