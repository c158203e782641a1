"""The sanity checks as curves: likeness of maps against the share of randomised modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from misure.explainers import EXPLAINERS
from misure.paper.extensions.sanity import sanity_table
from misure.paper.material import Material
from misure.paper.published import Pair
from misure.paper.source import Origin
from misure.plotting import show_empty, style_of

_METHODS = ("seg_grad_cam", "rise", "sufficient_region", "msr")
_MEASURES = {"top_iou": "IoU of the top regions", "rank_correlation": "Rank correlation"}
_OTHER_TARGET_AT = 1.25
_PANEL = 2.7
_SPREAD = 0.012  # keeps the intervals of methods apart


def sanity_figures(material: Material) -> Iterator[tuple[str, Figure]]:
    """Draw one column of panels for each dataset and model; one without records is empty and says so."""
    yield "sanity", sanity_figure(sanity_table(material), material)


def sanity_figure(frame: pd.DataFrame, material: Material) -> Figure:
    """Draw :func:`misure.paper.extensions.sanity.sanity_table`.

    Args:
        frame: The table.
        material: What it was made from.
    """
    pairs = list(material.pairs)
    figure = Figure(figsize=(_PANEL * len(pairs) + 0.8, 6.2), layout="constrained")
    grid = figure.subplots(len(_MEASURES), len(pairs), squeeze=False)
    for column, pair in enumerate(pairs):
        mine = frame[(frame["dataset"] == pair.dataset_label) & (frame["model"] == pair.model_label)]
        for axes, measure in zip(grid[:, column], _MEASURES, strict=True):
            if mine[f"{measure}_n"].sum():
                _panel(axes, mine, measure)
            else:
                show_empty(axes, "not run in this profile")
        grid[0, column].set_title(_title(mine, pair), fontsize=9)
    for axes, label in zip(grid[:, 0], _MEASURES.values(), strict=True):
        axes.set_ylabel(label, fontsize=9)
    handles: dict[str, Any] = {}
    for axes in grid.flat:
        drawn, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, drawn, strict=True))
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    for axes in grid[-1]:
        axes.set_xlabel("Share of modules randomised,\nfrom the output on", fontsize=8)
    figure.suptitle(f"Do maps change when the network or the target does? (profile {material.profile})", fontsize=10)
    return figure


def _title(rows: pd.DataFrame, pair: Pair) -> str:
    if rows.empty:
        return pair.label
    origin = Origin.of_row(rows.iloc[0])
    lines = [pair.label, *(f"({mark})" for mark in origin.marks), f"n = {rows['n_samples'].max()}"]
    return "\n".join(lines)


def _panel(axes: Axes, rows: pd.DataFrame, measure: str) -> None:
    for rank, name in enumerate(_METHODS):
        style = style_of(name)
        mine = rows[rows["method"].eq(EXPLAINERS[name].title) & rows[f"{measure}_mean"].notna()]
        cascade = mine[mine["randomised"].notna()].sort_values("randomised")
        other = mine[mine["randomised"].isna()]
        for part, start, line in ((cascade, [(0.0, 1.0, 1.0, 1.0)], "-"), (other, [], "none")):
            points = start + [
                (x, row[f"{measure}_mean"], row[f"{measure}_low"], row[f"{measure}_high"])
                for x, (_, row) in zip(part["randomised"].fillna(_OTHER_TARGET_AT), part.iterrows(), strict=True)
            ]
            if len(part):
                look = {"color": style.colour, "marker": style.marker, "ls": line}
                _line(axes, points, _SPREAD * rank, label=EXPLAINERS[name].title, **look)
    chance = rows["chance"].mean() if measure == "top_iou" else 0.0
    axes.axhline(chance, color="0.4", ls=":", lw=1, label="two independent random maps")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1, _OTHER_TARGET_AT], ["0", "¼", "½", "¾", "1", "other\nclass"], fontsize=8)
    axes.set_xlim(-0.06, 1.4)
    axes.set_ylim((-0.02, 1.05) if measure == "top_iou" else (-1.05, 1.05))
    axes.tick_params(labelsize=8)


def _line(axes: Axes, points: list[tuple[float, float, float, float]], shift: float, **style: Any) -> None:
    x, mean, low, high = (list(values) for values in zip(*points, strict=True))
    reach = [np.subtract(mean, low), np.subtract(high, mean)]
    moved = [value + shift for value in x]
    axes.errorbar(moved, mean, yerr=np.nan_to_num(reach), ms=4, lw=1.3, capsize=2, **style)
