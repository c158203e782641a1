"""Tables of paper beside ours, with the difference, as data for a template."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from misure.paper.published import DASH
from misure.paper.table import measured, printed

_PAPER = "paper_"
_OURS = {"auc": "auroc"}
"""Where the paper's name of a score is not ours."""

_TITLES = {
    "dice_explained": "Dice explained",
    "perturbation_ratio": "Perturbation ratio",
    "seconds": "Seconds",
    "auc": "AUC",
    "mask_size": "Mask size",
    "learning_rate": "Learning rate",
}
_FACTORS = {"perturbation_ratio", "seconds"}
"""Scores whose difference is told as a factor."""

_LEFT_OUT = {"n_samples", "masks"}
"""Paper's columns that are no scores."""

_STEPS = ((0.05, 1), (0.15, 2), (math.inf, 3))
_FACTOR_STEPS = ((0.32, 1), (1.0, 2), (math.inf, 3))
"""Up to a factor of 1.25, up to 2, and more."""

_SAME = 0.005
_TIMES = "\N{MULTIPLICATION SIGN}"
_HEADINGS = (
    *("dataset", "model", "organ", "features", "protocol", "method", "threshold"),
    *("lambda", "learning_rate", "mask_size"),
)


@dataclass(frozen=True)
class Difference:
    """Ours against the paper's.

    Attributes:
        text: Signed difference or factor.
        tone: ``"above1"`` to ``"above3"``, ``"below1"`` to ``"below3"``, ``"same"`` or ``"grey"``.
        why: Why it is grey; else empty.
    """

    text: str
    tone: str
    why: str = ""


@dataclass(frozen=True)
class Score:
    """A score in one row: what the paper prints, what we measured, and how they differ."""

    paper: str
    ours: str
    interval: str
    difference: Difference


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    headings: Sequence[str]
    scores: Sequence[Score]
    samples: str
    source: str
    marks: Sequence[str]
    note: str


@dataclass(frozen=True)
class Comparison:
    """A table of the paper's beside ours.

    Attributes:
        headings: Titles of the columns that name a row.
        scores: Titles of the scores.
        lines: Its rows.
        grids: For two headings that span a grid, the same lines as (title of the score, columns, rows).
    """

    headings: Sequence[str]
    scores: Sequence[str]
    lines: Sequence[Line]
    grids: Sequence[Mapping[str, Any]] = field(default=())


def compared(frame: pd.DataFrame) -> Comparison | None:
    """Put the paper's scores beside ours; None for a table that the paper does not have."""
    scores = _scores(frame)
    if not scores or frame[[f"{_PAPER}{name}" for name in scores]].isna().all(axis=None):
        return None
    headings = [name for name in _HEADINGS if name in frame.columns]
    lines = [_line(row, headings, scores) for _, row in frame.iterrows()]
    titles = [_title(name) for name in scores]
    grids = _grids(frame, lines, titles) if {"lambda", "learning_rate"} <= set(headings) else []
    return Comparison([_title(name) for name in headings], titles, lines, grids)


def _scores(frame: pd.DataFrame) -> list[str]:
    names = [name.removeprefix(_PAPER) for name in frame.columns if name.startswith(_PAPER)]
    return [name for name in names if name not in _LEFT_OUT and _column(frame, name)]


def _column(frame: pd.DataFrame, name: str) -> str:
    """Name the column with our value of one of the paper's scores; empty where there is none."""
    ours = _OURS.get(name, name)
    return next((column for column in (f"{ours}_mean", ours) if column in frame.columns), "")


def _line(row: pd.Series, headings: Sequence[str], scores: Sequence[str]) -> Line:
    n = float(row.get("n_samples", row.get("n", float("nan"))))
    stand_in = row.get("stand_in") is True or bool(row.get("stand_in") == 1)
    marks = ["stand-in"] if stand_in else []
    if isinstance(row.get("substitution"), str) and row["substitution"]:
        marks.append(row["substitution"])
    return Line(
        [_heading(row[name]) for name in headings],
        [_score(row, name, n=n, stand_in=stand_in) for name in scores],
        DASH if math.isnan(n) else f"{n:.0f}",
        str(row.get("source") or DASH),
        marks,
        str(row.get("note") or ""),
    )


def _score(row: pd.Series, name: str, *, n: float, stand_in: bool) -> Score:
    column, base = _column(row.to_frame().T, name), _OURS.get(name, name)
    paper, ours = _number(row[f"{_PAPER}{name}"]), _number(row[column])
    low, high = (_number(row.get(f"{base}_{end}")) for end in ("low", "high"))
    interval = DASH if math.isnan(low) else f"[{measured(low)}, {measured(high)}]"
    grey = "a stand-in is not the paper's data" if stand_in else ("fewer than 2 samples" if n < 2 else "")
    told = difference(paper, ours, factor=name in _FACTORS, grey=grey)
    return Score(printed(paper), measured(ours), interval if not math.isnan(ours) else "", told)


def difference(paper: float, ours: float, *, factor: bool, grey: str = "") -> Difference:
    """Compare two numbers.

    Args:
        paper: The paper's.
        ours: Ours; NaN in either gives a dash.
        factor: Whether to tell ours over the paper's, not ours less the paper's.
        grey: Why the difference must not be coloured; empty where it may.
    """
    if math.isnan(paper) or math.isnan(ours) or (factor and paper <= 0):
        return Difference(DASH, "grey")
    if factor:
        size = math.log2(ours / paper) if ours > 0 else -math.inf
        text, steps = f"{_TIMES}{ours / paper:.3g}", _FACTOR_STEPS
    else:
        size, text, steps = ours - paper, f"{ours - paper:+.3f}", _STEPS
    if grey:
        return Difference(text, "grey", grey)
    if abs(size) < _SAME:
        return Difference(text, "same")
    strength = next(step for limit, step in steps if abs(size) <= limit)
    return Difference(text, f"{'above' if size > 0 else 'below'}{strength}")


def _grids(frame: pd.DataFrame, lines: Sequence[Line], titles: Sequence[str]) -> list[dict[str, Any]]:
    """Lay lines out as the paper prints them: lambda downwards, the learning rate to the right."""
    rows, columns = (list(dict.fromkeys(frame[name])) for name in ("lambda", "learning_rate"))
    places = list(zip(frame["lambda"], frame["learning_rate"], strict=True))
    of_place = dict(zip(places, lines, strict=True))
    return [
        {
            "title": title,
            "columns": [f"{column:g}" for column in columns],
            "rows": [
                (f"{row:g}", [(of_place[row, column].scores[i], of_place[row, column]) for column in columns])
                for row in rows
            ],
        }
        for i, title in enumerate(titles)
        if any(line.scores[i].paper != DASH for line in lines)
    ]


def _title(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " ").capitalize())


def _heading(value: Any) -> str:
    if isinstance(value, float):
        return printed(value)
    return str(value)


def _number(value: Any) -> float:
    return float("nan") if value is None or pd.isna(value) else float(value)
