"""Insertion and deletion curves with Dice as the score (paper 2.3), and the areas under them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from misure.evaluation.curves import Curve
from misure.paper.extensions.equal_ratio import NO_CURVES, READING, Method, cell, columns, described, methods_of
from misure.paper.figures.equal_ratio import label_lines
from misure.paper.material import Material
from misure.paper.provenance import figure_note, head_note
from misure.paper.published import Pair, grouped
from misure.paper.query import paper_draw
from misure.paper.source import Origin, heading
from misure.paper.table import markdown_table
from misure.plotting import show_empty, style_of

_KINDS = ("insertion", "deletion")
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


def insertion_deletion_tables(material: Material) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Make the table of both areas and their difference."""
    frame = pd.DataFrame([row for pair in material.pairs for row in _rows(material, pair)])
    headers = ["Dataset", "Model", "Method", "Insertion (higher is better)", "Deletion (lower is better)"]
    lines = [
        [row["dataset"], row["model"], row["method"]]
        + [cell(row, name) for name in (*_KINDS, "difference")]
        + [str(row["n_samples"]) if row["n_samples"] else "0 (no saved curves)", Origin.of_row(row).cell]
        for _, row in frame.iterrows()
    ]
    table = markdown_table([*headers, "Insertion minus deletion", "Samples", "Source"], lines)
    title = heading("Insertion and deletion: areas under Dice", frame)
    document = (
        "\n\n".join([title, head_note(material.run, material.profile, material.pairs), READING, table, _DEFINITIONS])
        + "\n"
    )
    yield "insertion_deletion", frame, document


def _rows(material: Material, pair: Pair) -> Iterator[dict[str, Any]]:
    origin = Origin.of(paper_draw(material.run, pair))
    for method in methods_of(material, pair):
        areas = {kind: {key: swept_area(curve, kind) for key, curve in method.curves.items()} for kind in _KINDS}
        areas["difference"] = {key: value - areas["deletion"][key] for key, value in areas["insertion"].items()}
        row = described(pair, method)
        for name, values in areas.items():
            row |= columns(name, method.summary(values))
        yield row | origin.columns()


def insertion_deletion_figures(material: Material) -> Iterator[tuple[str, Figure]]:
    """Draw both curves, a figure per dataset and a column per network."""
    for pairs in grouped(material.pairs, "dataset"):
        figure = Figure(figsize=(_PANEL[0] * len(pairs) + 0.6, 2 * _PANEL[1] + 0.6), layout="constrained")
        grid = figure.subplots(2, len(pairs), squeeze=False)
        for column, pair in zip(grid.T, pairs, strict=True):
            methods = [method for method in methods_of(material, pair) if method.curves]
            for axes, kind in zip(column, _KINDS, strict=True):
                _draw(axes, methods, kind)
            column[0].set_title(_title(pair, methods), fontsize=10)
        figure_note(figure, material.run, material.profile, pairs)
        yield f"insertion_deletion_{pairs[0].dataset}", figure


def _title(pair: Pair, methods: list[Method]) -> str:
    return f"{pair.label}, n = {max((len(method.curves) for method in methods), default=0)}"


def _draw(axes: Axes, methods: list[Method], kind: str) -> None:
    if not methods:
        show_empty(axes, NO_CURVES)
        return
    ends = {}
    for method in methods:
        colour = style_of(method.name).colour
        lines = [np.interp(_SHARES, c[f"{kind}_fraction"], c[f"{kind}_dice"]) for c in method.curves.values()]
        for line in lines:
            axes.plot(_SHARES, line, color=colour, alpha=0.15, linewidth=0.7)
        mean = np.mean(lines, axis=0)
        axes.plot(_SHARES, mean, color=colour, linewidth=2)
        ends[method.name] = float(mean[len(mean) // 2])
    axes.set_xscale("function", functions=(lambda v: np.sqrt(np.clip(v, 0, None)), np.square))
    axes.xaxis.set_major_locator(FixedLocator(_TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(
        f"share of pixels {'inserted' if kind == 'insertion' else 'deleted'} (square-root scale)", fontsize=8
    )
    axes.set_ylabel(f"Dice during {kind}", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    label_lines(axes, {method.title: (style_of(method.name).colour, ends[method.name]) for method in methods})


_DEFINITIONS = """\
Insertion starts from the blanked image and puts its pixels back, the most salient first; deletion starts from the image
and blanks its pixels, the most salient first (2.3). The score is the Dice of the prediction with that on the whole
image. Pixels of equal value go together, so the steps of a map with large plateaus are unequal, and the area is against
the share of pixels that really was changed (trapezoids). A binary map has one step inside; a straight line leads from
it to the whole image."""
