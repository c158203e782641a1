"""Insertion and deletion curves with Dice as the score (paper 2.3), and the areas under them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from misure.evaluation.curves import Curve
from misure.paper.extensions.methods import NO_CURVES, Method, methods_of, title_of
from misure.paper.extensions.paired import MARKS, columns
from misure.paper.figures.panels import dataset_figures, label_lines, plain_ticks, tidy
from misure.paper.material import Material
from misure.paper.prose import prose
from misure.paper.provenance import head_note
from misure.paper.published import Pair
from misure.paper.query import paper_draw
from misure.paper.source import Origin, marked
from misure.paper.table import Table, estimate
from misure.paper.tables.paper import DATASET, METHOD, MODEL, N
from misure.plotting import show_empty

_KINDS = {"insertion": "inserted", "deletion": "deleted"}
_SHARES = np.linspace(0, 1, 101) ** 2
_TICKS = (0, 0.01, 0.05, 0.2, 0.5, 1)
_PANEL = (4.6, 3.4)


def swept_area(curve: Curve, kind: str) -> float:
    """Return the area under Dice against the share of pixels that really was inserted or deleted, 0..1.

    Args:
        curve: Of one sample.
        kind: ``"insertion"`` or ``"deletion"``.
    """
    return float(np.trapezoid(curve[f"{kind}_dice"], curve[f"{kind}_fraction"]))


def insertion_deletion_tables(material: Material) -> Iterator[Table]:
    """Make the table of both areas and their difference."""
    frame = pd.DataFrame([row for pair in material.shown for row in _rows(material, pair)])
    areas = (
        estimate("insertion", "Insertion", better="higher"),
        estimate("deletion", "Deletion", better="lower"),
        estimate("difference", "Insertion minus deletion", better="higher"),
    )
    yield Table(
        "insertion_deletion",
        marked("Insertion and deletion: areas under Dice", frame),
        (DATASET, MODEL, METHOD, *areas, N, *MARKS),
        frame,
        head_note(material.run, material.profile, material.shown),
        prose("insertion_deletion.md.j2"),
        n_parts=2,
    )


def _rows(material: Material, pair: Pair) -> Iterator[dict[str, Any]]:
    origin = Origin.of(paper_draw(material.run, pair))
    for method in methods_of(material, pair):
        areas = {kind: method.measure(swept_area, kind) for kind in _KINDS}
        areas["difference"] = areas["insertion"] - areas["deletion"]
        yield method.heading(pair) | columns(areas) | origin.columns()


def insertion_deletion_figures(material: Material) -> Iterator[tuple[str, Figure]]:
    """Draw both curves, a figure per dataset and a column per network."""
    for figure, pairs, grid in dataset_figures(material, _PANEL, (0.6, 0.6), rows=len(_KINDS)):
        for column, pair in zip(grid, pairs, strict=True):
            methods = [method for method in methods_of(material, pair) if len(method.curves)]
            for axes, kind in zip(column, _KINDS, strict=True):
                _draw(axes, methods, kind)
            column[0].set_title(title_of(pair, methods), fontsize=10)
        yield f"insertion_deletion_{pairs[0].dataset}", figure


def _draw(axes: Axes, methods: list[Method], kind: str) -> None:
    if not methods:
        show_empty(axes, NO_CURVES)
        return
    labels = {}
    for method in methods:
        lines = [np.interp(_SHARES, curve[f"{kind}_fraction"], curve[f"{kind}_dice"]) for curve in method.curves]
        for line in lines:
            axes.plot(_SHARES, line, color=method.colour, alpha=0.15, linewidth=0.7)
        mean = np.mean(lines, axis=0)
        axes.plot(_SHARES, mean, color=method.colour, linewidth=2)
        labels[method.title] = (method.colour, float(mean[len(mean) // 2]))
    axes.set_xscale("function", functions=(lambda v: np.sqrt(np.clip(v, 0, None)), np.square))
    plain_ticks(axes.xaxis, _TICKS)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(f"share of pixels {_KINDS[kind]} (square-root scale)", fontsize=8)
    axes.set_ylabel(f"Dice during {kind}", fontsize=9)
    tidy(axes)
    label_lines(axes, labels)
