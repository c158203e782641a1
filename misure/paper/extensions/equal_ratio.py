"""Methods compared at equal perturbation ratio, from the curves saved with their maps.

The published comparison gives MSR its own area and cuts the other maps at thresholds that keep ten to a hundred times
as much; Dice explained rises with what is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from misure.evaluation.curves import SMALLEST_RATIO, area, dice_at, knots
from misure.paper.extensions.methods import NO_CURVES, Method, methods_of, title_of
from misure.paper.extensions.paired import KEY, MARKS, columns, shared_samples
from misure.paper.figures.panels import dataset_figures, label_lines, tidy
from misure.paper.material import Material, made_once
from misure.paper.prose import prose
from misure.paper.provenance import head_note
from misure.paper.published import Pair, lr_lambda_reference
from misure.paper.query import at_threshold, paper_draw, select
from misure.paper.source import Origin, marked
from misure.paper.table import Column, Table, estimate, measured
from misure.paper.tables.paper import DATASET, METHOD, MODEL, N
from misure.plotting import show_empty, style_of

RATIOS = (0.5, 1, 2, 5, 20)
"""Where methods are compared at equal ratio."""

WINDOW = (0.1, 10.0)
"""Ratios between which the second area is taken."""

LAMBDA_RATE = 0.1
"""Learning rate of the cells that give MSR's curve over lambda."""

_PANEL = (6.4, 4.4)
_POINTS = 80
_BINARY = ("prediction", "sufficient_region")
"""Methods whose maps are masks of zeros and ones: a point, no curve."""

_LEGEND = (
    "Lines: mean over images at an equal allowed ratio (faint: single images; MSR as a binary mask).\n"
    "Markers: as recorded, median ratio and mean Dice (beside them the threshold; MSR's own soft mask).\n"
    "Dashed: MSR's soft mask over lambda."
)


def like_for_like_tables(material: Material) -> Iterator[Table]:
    """Make the table of areas and of Dice explained at equal ratio, and that of MSR over lambda."""
    head = head_note(material.run, material.profile, material.shown)
    frame = pd.DataFrame([row for pair in material.shown for row in _rows(material, pair)])
    at_ratios = [estimate(f"dice_at_{ratio:g}", f"Dice at {ratio:g}", better="higher") for ratio in RATIOS]
    area_from = estimate("area", f"Area from {SMALLEST_RATIO:g}", better="higher")
    yield Table(
        "like_for_like",
        marked("Like for like: Dice explained at equal perturbation ratio", frame),
        (DATASET, MODEL, METHOD, area_from, estimate("area_minus_msr", "Minus MSR's"), *at_ratios, N, *MARKS),
        frame,
        head,
        prose("like_for_like.md.j2", smallest=SMALLEST_RATIO, window=WINDOW),
        n_parts=2,
    )
    cells = pd.concat([lambda_cells(material, pair) for pair in material.shown], ignore_index=True)
    ratio = (
        estimate("perturbation_ratio", "Perturbation ratio", better="lower"),
        Column("perturbation_ratio_median", "its median", measured),
    )
    dice = (
        estimate("dice_explained", "Dice explained", better="higher"),
        estimate("binary_dice_explained", "as a binary mask", better="higher"),
    )
    yield Table(
        "like_for_like_lambda",
        marked(f"Like for like: MSR over lambda, at learning rate {LAMBDA_RATE:g}", cells),
        (DATASET, MODEL, Column("lambda", "Lambda"), *ratio, *dice, N, *MARKS),
        cells,
        head,
        prose("over_images.md.j2"),
        n_parts=2,
    )


def _rows(material: Material, pair: Pair) -> Iterator[dict[str, Any]]:
    methods = methods_of(material, pair)
    msr = next(method for method in methods if method.name == "msr").measure(area, SMALLEST_RATIO, np.inf)
    origin = Origin.of(paper_draw(material.run, pair))
    for method in methods:
        whole = method.measure(area, SMALLEST_RATIO, np.inf)
        numbers = {"area": whole, "area_minus_msr": whole - msr, "area_window": method.measure(area, *WINDOW)}
        numbers |= {f"dice_at_{ratio:g}": method.measure(dice_at, ratio) for ratio in RATIOS}
        yield method.heading(pair) | columns(numbers) | origin.columns()


@made_once
def lambda_cells(material: Material, pair: Pair) -> pd.DataFrame:
    """Return what MSR keeps and explains at each lambda of the paper, over the samples that all of them have."""
    records = paper_draw(material.run, pair)
    explained = {
        lam: at_threshold(select(records, "msr", lr=LAMBDA_RATE, lam=lam), None).set_index(KEY)
        for lam in sorted({lam for lam, _ in lr_lambda_reference(pair)})
    }
    shared = shared_samples(explained)
    lines = []
    for lam, rows in explained.items():
        numbers = shared.get(lam, rows.iloc[:0])[["perturbation_ratio", "dice_explained", "binary_dice_explained"]]
        row: dict[str, Any] = {"dataset": pair.dataset_label, "model": pair.model_label, "lambda": lam}
        lines.append(row | {"n_samples": len(numbers)} | columns(numbers) | Origin.of(records).columns())
    return pd.DataFrame(lines)


def like_for_like_figures(material: Material) -> Iterator[tuple[str, Figure]]:
    """Draw a figure per dataset, with a panel per network.

    Each method has its mean over samples, drawn as far as half of the images have room, and a faint line per sample;
    maps that are masks of zeros and ones are points. Markers are the operating points of the records: MSR's own soft
    mask, and the thresholds of the others. The dashed line joins MSR at the lambdas of the sweep.
    """
    for figure, pairs, grid in dataset_figures(material, _PANEL, (0, 1)):
        for (axes,), pair in zip(grid, pairs, strict=True):
            _draw(axes, pair, methods_of(material, pair), lambda_cells(material, pair))
        figure.suptitle(_LEGEND, fontsize=8, color="0.35")
        yield f"like_for_like_{pairs[0].dataset}", figure


def _draw(axes: Axes, pair: Pair, methods: Sequence[Method], cells: pd.DataFrame) -> None:
    shown = [method for method in methods if len(method.curves)]
    axes.set_title(title_of(pair, shown), fontsize=10)
    if not shown:
        show_empty(axes, NO_CURVES)
        return
    labels = {}
    for method in shown:
        height = _draw_points(axes, method)
        if method.name not in _BINARY:
            height = _draw_curve(axes, method)
        labels[method.title] = (method.colour, height)
    _draw_lambdas(axes, cells)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(10))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(-0.03, 1.08)
    axes.set_xlabel("perturbation ratio (non-zero mask pixels / object pixels)", fontsize=9)
    axes.set_ylabel("Dice explained", fontsize=9)
    tidy(axes)
    label_lines(axes, labels)


def _draw_curve(axes: Axes, method: Method) -> float:
    """Draw a method's lines and return how high their mean ends."""
    for curve in method.curves:
        axes.plot(*knots(curve), color=method.colour, alpha=0.15, linewidth=0.7)
    room = [float(curve["curve_allowed"][-1]) for curve in method.curves]
    ratios = np.geomspace(SMALLEST_RATIO, np.median(room), _POINTS)
    lines = [[dice_at(curve, min(r, end)) for r in ratios] for curve, end in zip(method.curves, room, strict=True)]
    mean = np.mean(lines, axis=0)
    axes.plot(ratios, mean, color=method.colour, linewidth=2)
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
