"""Panels that several figures share: axes, labels beside lines, and a figure per dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from misure.paper.material import Material
from misure.paper.provenance import figure_note
from misure.paper.published import Pair, grouped

_LABEL_GAP = 0.062


def tidy(axes: Axes, *, size: int = 8, grid: str = "0.92") -> None:
    """Draw a panel's ticks small, with a grid below the data and no frame above and right."""
    axes.tick_params(labelsize=size)
    axes.grid(visible=True, color=grid)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def plain_ticks(axis: Axis, ticks: Sequence[float]) -> None:
    """Set an axis's ticks, written as plain numbers whatever its scale, with none between them."""
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


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


def dataset_figures(
    material: Material, panel: tuple[float, float], room: tuple[float, float], rows: int = 1
) -> Iterator[tuple[Figure, Sequence[Pair], NDArray[np.object_]]]:
    """Begin a figure for each dataset, with a column of panels per network and what it was made from below.

    Args:
        material: What it is made from.
        panel: Width and height of a panel in inches.
        room: What the figure is wider and higher than its panels.
        rows: Panels of a column.

    Returns:
        The figure, its datasets and models, and the panels: a row for each of the pairs.
    """
    for pairs in grouped(material.shown, "dataset"):
        size = panel[0] * len(pairs) + room[0], panel[1] * rows + room[1]
        figure = Figure(figsize=size, layout="constrained")
        figure_note(figure, material.run, material.profile, pairs)
        yield figure, pairs, figure.subplots(rows, len(pairs), squeeze=False).T
