"""Dice explained against the perturbation ratio over all thresholds, a figure per dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from misure.evaluation.curves import SMALLEST_RATIO, dice_at, knots
from misure.paper.extensions.equal_ratio import NO_CURVES, Method, lambda_cells, methods_of
from misure.paper.material import Material
from misure.paper.provenance import figure_note
from misure.paper.published import Pair, grouped
from misure.plotting import show_empty, style_of

_PANEL = (6.4, 4.4)
_POINTS = 80
_LABEL_GAP = 0.062
_BINARY = ("prediction", "sufficient_region")
"""Methods whose maps are masks of zeros and ones: a point, no curve."""

_LEGEND = (
    "Lines: mean over images at an equal allowed ratio (faint: single images; MSR as a binary mask).\n"
    "Markers: as recorded, median ratio and mean Dice (beside them the threshold; MSR's own soft mask).\n"
    "Dashed: MSR's soft mask over lambda."
)


def like_for_like_figures(material: Material) -> Iterator[tuple[str, Figure]]:
    """Draw a figure per dataset, with a panel per network.

    Each method has its mean over samples, drawn as far as half of the images have room, and a faint line per sample;
    maps that are masks of zeros and ones are points. Markers are the operating points of the records: MSR's own soft
    mask, and the thresholds of the others. The dashed line joins MSR at the lambdas of the sweep.
    """
    for pairs in grouped(material.pairs, "dataset"):
        figure = Figure(figsize=(_PANEL[0] * len(pairs), _PANEL[1] + 1), layout="constrained")
        for axes, pair in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
            _draw(axes, pair, methods_of(material, pair), lambda_cells(material, pair))
        figure.suptitle(_LEGEND, fontsize=8, color="0.35")
        figure_note(figure, material.run, material.profile, pairs)
        yield f"like_for_like_{pairs[0].dataset}", figure


def _draw(axes: Axes, pair: Pair, methods: Sequence[Method], cells: pd.DataFrame) -> None:
    shown = [method for method in methods if method.curves]
    axes.set_title(f"{pair.label}, n = {max((len(m.curves) for m in shown), default=0)}", fontsize=10)
    if not shown:
        show_empty(axes, NO_CURVES)
        return
    labels = {}
    for method in shown:
        height = _draw_points(axes, method)
        if method.name not in _BINARY:
            height = _draw_curve(axes, method)
        labels[method.title] = (style_of(method.name).colour, height)
    _draw_lambdas(axes, cells)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(10))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(-0.03, 1.08)
    axes.set_xlabel("perturbation ratio (non-zero mask pixels / object pixels)", fontsize=9)
    axes.set_ylabel("Dice explained", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    label_lines(axes, labels)


def _draw_curve(axes: Axes, method: Method) -> float:
    """Draw a method's lines and return how high their mean ends."""
    colour = style_of(method.name).colour
    for curve in method.curves.values():
        axes.plot(*knots(curve), color=colour, alpha=0.15, linewidth=0.7)
    room = [float(curve["curve_allowed"][-1]) for curve in method.curves.values()]
    ratios = np.geomspace(SMALLEST_RATIO, np.median(room), _POINTS)
    lines = [
        [dice_at(c, min(ratio, float(c["curve_allowed"][-1]))) for ratio in ratios] for c in method.curves.values()
    ]
    mean = np.mean(lines, axis=0)
    axes.plot(ratios, mean, color=colour, linewidth=2)
    return float(mean[-1])


def _draw_points(axes: Axes, method: Method) -> float:
    """Mark a method's operating points in the records and return their mean height."""
    style, heights = style_of(method.name), []
    for threshold, rows in method.rows.groupby("threshold", dropna=False):
        ratio = max(float(rows["perturbation_ratio"].median()), SMALLEST_RATIO)
        heights.append(float(rows["dice_explained"].mean()))
        axes.plot(ratio, heights[-1], style.marker, color=style.colour, markersize=9, markeredgecolor="white")
        if not pd.isna(threshold):
            text, at = f"{float(str(threshold)):g}", (ratio, heights[-1])
            axes.annotate(text, at, (0, -13), textcoords="offset points", ha="center", fontsize=7, color=style.colour)
    return float(np.mean(heights))


def _draw_lambdas(axes: Axes, cells: pd.DataFrame) -> None:
    known = cells[cells["n_samples"] > 0].sort_values("lambda")
    ratios, scores = known["perturbation_ratio_median"].clip(lower=SMALLEST_RATIO), known["dice_explained_mean"]
    colour = style_of("msr").colour
    axes.plot(ratios, scores, "--d", color=colour, linewidth=1, markersize=4, markerfacecolor="white")
    for place, shift, side in ((0, 4, "left"), (-1, -4, "right")):
        if len(known):
            text, at = rf"$\lambda$ {known['lambda'].iloc[place]:g}", (ratios.iloc[place], scores.iloc[place])
            axes.annotate(text, at, (shift, 5), textcoords="offset points", ha=side, fontsize=7, color=colour)


def label_lines(axes: Axes, labels: Mapping[str, tuple[str, float]]) -> None:
    """Name lines at the right of a panel in their colours, near their heights but never on top of each other.

    Args:
        axes: The panel.
        labels: Colour and height, in data units, by name.
    """
    low, high = axes.get_ylim()
    free = 1.0
    ordered = sorted(labels.items(), key=lambda item: -item[1][1])
    for below, (name, (colour, height)) in zip(range(len(ordered) - 1, -1, -1), ordered, strict=True):
        place = max(min((height - low) / (high - low), free), below * _LABEL_GAP)
        axes.text(1.02, place, name, color=colour, fontsize=8, va="center", transform=axes.transAxes)
        free = place - _LABEL_GAP
