"""Figures 4 to 7: dilations and perturbation ratio against the size of the prediction."""

from __future__ import annotations

import math
from collections.abc import Callable

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
_MOST_ROWS = 9
_ROW_HEIGHT = 2.3
_LOGARITHMIC_FROM = 30
"""Largest over smallest positive ratio in a figure from which its axes are logarithmic."""

_TICKS = [float(f"{digit}e{power}") for power in range(-9, 9) for digit in (1, 3)]

_FEWEST = 3
"""Samples from which a class has a row below that of all classes: fewer show no relation."""

_POINT_COLOUR = "#0072b2"
"""The blue of Okabe and Ito's palette, told apart with every common colour-vision deficiency."""


def size_figure(run: pd.DataFrame, profile: str, pair: Pair) -> Figure:
    """Draw dilations (left) and MSR's perturbation ratio (right) against prediction size, one row per class.

    The paper's classes come first, whether or not they have samples, then the others that have some. Where the paper
    merges its classes, a row with all of them is on top, and a class of its own needs three samples. Without any
    samples there is one empty row.
    The axes of the ratio are logarithmic where a figure's largest is over 30 times its smallest positive one.

    Args:
        run: As :func:`misure.paper.query.latest_run` returns it.
        profile: Of the run, for the caption.
        pair: Dataset and model.

    Returns:
        At most nine rows; every panel has its number of samples and, from three on, Spearman's rank correlation.
    """
    rows = at_threshold(select(paper_draw(run, pair), "msr"), None)
    panels = _panels(rows, pair)
    figure = Figure(
        figsize=(8.4, _ROW_HEIGHT * len(panels) + 1.4), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.07)
    )
    grid = figure.subplots(len(panels), 2, squeeze=False)
    scale = _ratio_scale(pd.concat(panels.values())["perturbation_ratio"].astype(float))
    for (left, right), (label, shown) in zip(grid, panels.items(), strict=True):
        name = label if len(panels) > 1 or label == _ALL else ""
        _scatter(left, shown, "n_dilations", name)
        _scatter(right, shown, "perturbation_ratio", name)
        left.set_ylabel("Number of dilations", fontsize=9)
        right.set_ylabel("Perturbation ratio of MSR", fontsize=9)
        if len(shown):
            left.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            scale(right)
    for axes in grid[-1]:
        axes.set_xlabel("Prediction size (pixels)", fontsize=9)
    figure_note(figure, run, profile, [pair])
    return figure


def _panels(rows: pd.DataFrame, pair: Pair) -> dict[str, pd.DataFrame]:
    """Return what each row shows, by its label."""
    if rows.empty:
        return {pair.dataset_label: rows}
    by_class = {label: in_class(rows, label) for label in class_labels(rows, pair.size_classes or pair.classes)}
    merged = {_ALL: rows} if pair.sizes_merged and len(by_class) > 1 else {}
    fewest = _FEWEST if merged else 1
    by_class = {label: of for label, of in by_class.items() if label in pair.size_classes or len(of) >= fewest}
    return dict(list((merged | by_class).items())[:_MOST_ROWS])


def _scatter(axes: Axes, rows: pd.DataFrame, column: str, name: str) -> None:
    shown = rows.dropna(subset=["prediction_size", column])
    if shown.empty:
        axes.set_title(name, fontsize=10)
        show_empty(axes, f"no samples of {name}\nin this profile" if name else NOT_RUN)
        return
    size, value = shown["prediction_size"].astype(float), shown[column].astype(float)
    axes.scatter(size, value, s=26, alpha=0.65, color=_POINT_COLOUR, edgecolors="white", linewidths=0.5)
    axes.set_title("\n".join(line for line in (name, _correlation_title(size, value)) if line), fontsize=10)
    tidy(axes, size=9, grid="0.9")
    top = max(1.0, float(value.max()))
    axes.set_ylim(bottom=-0.05 * top, top=1.08 * top)


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
