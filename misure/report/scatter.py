"""Dice explained against perturbation ratio, a point for each explanation, for Plotly."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from typing import Any

import pandas as pd
from plotly import graph_objects

from misure.explainers import EXPLAINERS
from misure.paper.material import Material
from misure.paper.published import DASH, Pair
from misure.paper.query import SAMPLE, paper_draw, select
from misure.paper.source import Origin
from misure.paper.statistics import summarise
from misure.plotting import style_of
from misure.report.choice import MOST_POINTS, first_samples

SYMBOLS = {"D": "diamond", "P": "cross", "o": "circle", "s": "square", "p": "pentagon", "v": "triangle-down"}
SYMBOLS |= {"X": "x", "^": "triangle-up", "<": "triangle-left", ">": "triangle-right", "h": "hexagon", "H": "hexagon2"}
SYMBOLS |= {"d": "diamond-tall", "8": "octagon", "*": "star"}
"""Plotly's names of Matplotlib's markers."""


def scatter(material: Material) -> list[dict[str, Any]]:
    """Make one plot for each dataset and model with records.

    Returns:
        For each: ``label``, ``marks``, ``figure`` (as Plotly's JSON; points of whole samples, at most
        :data:`misure.report.choice.MOST_POINTS`, those with a ratio of zero at the left edge, for a logarithmic axis
        has no zero), ``n`` (all points), ``note`` (what is shown of how many) and ``summary`` (of all).
    """
    made = [_plot(material, pair) for pair in material.shown]
    return [plot for plot in made if plot is not None]


def _plot(material: Material, pair: Pair) -> dict[str, Any] | None:
    records = paper_draw(material.run, pair)
    points = {name: select(records, name) for name in EXPLAINERS}
    points = {name: rows for name, rows in points.items() if len(rows)}
    if not points:
        return None
    everything = pd.concat(points.values(), ignore_index=True)
    ratios = everything["perturbation_ratio"].astype(float)
    floor = float(ratios[ratios > 0].min()) / 2 if bool((ratios > 0).any()) else 0.1
    shown = first_samples(everything.assign(showable=True), MOST_POINTS)
    zeros = int((shown["perturbation_ratio"] == 0).sum())
    drawn = {name: shown[shown["explainer"] == name] for name in points}
    figure = graph_objects.Figure([_trace(name, rows, floor) for name, rows in drawn.items()])
    figure.update_layout(
        xaxis={"type": "log", "title": {"text": "Perturbation ratio (log scale, less is kept to the left)"}},
        yaxis={"range": [-0.04, 1.04], "title": {"text": "Dice explained (higher is better)"}},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        margin={"l": 60, "r": 16, "t": 56, "b": 72},
        hovermode="closest",
        template="none",
    )
    return {
        "label": pair.label,
        "marks": list(Origin.of(everything).marks),
        "figure": json.loads(figure.to_json()),
        "n": len(everything),
        "note": f"{f'{len(shown)} of ' if len(shown) < len(everything) else ''}{len(everything)} points of "
        f"{len(everything.drop_duplicates(SAMPLE))} samples, {pair.label}."
        + (f" {zeros} with a ratio of 0 stand at the left edge." if zeros else ""),
        "summary": list(_summary(points)),
    }


def _trace(name: str, rows: pd.DataFrame, floor: float) -> graph_objects.Scatter:
    style = style_of(name)
    colour, symbol = style.colour, SYMBOLS[style.marker]
    ratios = rows["perturbation_ratio"].astype(float)
    return graph_objects.Scatter(
        x=ratios.where(ratios > 0, floor).tolist(),
        y=rows["dice_explained"].astype(float).tolist(),
        mode="markers",
        name=EXPLAINERS[name].title,
        text=[_hover(row) for _, row in rows.iterrows()],
        customdata=rows["unit"].astype(str).tolist(),
        hovertemplate="%{text}<extra></extra>",
        marker={"color": colour, "symbol": symbol, "size": 10, "opacity": 0.75, "line": {"width": 0.5}},
    )


def _hover(row: pd.Series) -> str:
    """Describe a point; Plotly reads some HTML in it, so that names are escaped."""
    threshold = row["threshold"]
    lines = [
        f"<b>{html.escape(EXPLAINERS[row['explainer']].title)}</b>",
        f"sample {row['sample']}, {html.escape(str(row['class_name']))}, {html.escape(str(row['group']))}",
        "the map itself" if pd.isna(threshold) else f"threshold {threshold:g}",
        f"Dice explained {row['dice_explained']:.3f}, ratio {row['perturbation_ratio']:.3f}",
        f"prediction {row['prediction_size']:.0f} pixels, {row['seconds']:.3g} s",
    ]
    return "<br>".join(lines)


def _summary(points: dict[str, pd.DataFrame]) -> Iterator[tuple[str, str, str, str, str]]:
    """Say in numbers what the plot shows, for readers who do not see it."""
    for name, rows in points.items():
        for value, part in rows.groupby("threshold", dropna=False):
            threshold: Any = value
            cut = DASH if pd.isna(threshold) else f"{float(threshold):g}"
            dice, ratio = (summarise(part[metric]) for metric in ("dice_explained", "perturbation_ratio"))
            yield EXPLAINERS[name].title, cut, f"{dice.median:.3f}", f"{ratio.median:.3g}", str(len(part))
