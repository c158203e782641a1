"""The verdict board: each claim of the paper as a row for the page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from misure.errors import MisureError
from misure.paper.published import DASH
from misure.paper.table import measured

COLUMNS = (
    *("id", "section", "statement", "dataset", "model", "verdict", "why", "statistic", "value", "low", "high"),
    *("p", "p_adjusted", "n", "n_groups", "n_records", "source", "stand_in", "substitution"),
)


@dataclass(frozen=True)
class Verdict:
    """One of the answers to a claim.

    Attributes:
        text: As in the claims' column.
        icon: A sign that says it without colour.
        slug: For the page's styles.
    """

    text: str
    icon: str
    slug: str


VERDICTS = (
    Verdict("holds", "✓", "holds"),
    Verdict("does not hold", "✕", "fails"),
    Verdict("cannot be told from this data", "?", "unknown"),
    Verdict("stand-in only", "◇", "standin"),
)


@dataclass(frozen=True)
class Bar:
    """An estimate with its interval, in percent of the width of a small drawing.

    Attributes:
        value: Where the estimate lies.
        low: Where the interval starts; the estimate's place where there is no interval.
        high: Where it ends.
        zero: Where zero lies.
    """

    value: float
    low: float
    high: float
    zero: float


def board(claims: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row for each claim.

    Raises:
        MisureError: If a column is missing or a verdict is unknown.
    """
    lacking = [name for name in COLUMNS if name not in claims.columns]
    if lacking:
        raise MisureError(f"the claims lack the columns {', '.join(lacking)}: make them anew")
    return list(_rows(claims))


def counts(rows: list[dict[str, Any]]) -> list[tuple[Verdict, int]]:
    """Count the verdicts, each kind once, also those that no claim got."""
    return [(verdict, sum(row["verdict"] == verdict for row in rows)) for verdict in VERDICTS]


def bar(value: float, low: float, high: float) -> Bar | None:
    """Place an estimate, its interval and zero on one scale; None without an estimate."""
    if math.isnan(value):
        return None
    ends = (value, value) if math.isnan(low) or math.isnan(high) else (low, high)
    left, right = min(0.0, value, *ends), max(0.0, value, *ends)
    width = right - left or 1.0
    places = [round(4 + 92 * (number - left) / width, 2) for number in (value, *ends, 0.0)]
    return Bar(*places)


def _rows(claims: pd.DataFrame) -> Iterator[dict[str, Any]]:
    known = {verdict.text: verdict for verdict in VERDICTS}
    for order, claim in enumerate(claims.to_dict("records")):
        if claim["verdict"] not in known:
            raise MisureError(f"claim {claim['id']} has the verdict {claim['verdict']!r}: it is none of {list(known)}")
        verdict = known[claim["verdict"]]
        value, low, high, p, adjusted = (_float(claim[name]) for name in ("value", "low", "high", "p", "p_adjusted"))
        texts = {name: _text(claim[name]) for name in ("id", "section", "statement", "dataset", "model", "why")}
        yield texts | {
            "order": order,
            "rank": VERDICTS.index(verdict),
            "verdict": verdict,
            "statistic": _text(claim["statistic"]),
            "value": value,
            "shown": measured(value) + ("" if math.isnan(low) else f" [{measured(low)}, {measured(high)}]"),
            "bar": bar(value, low, high),
            "p": _p_value(p, adjusted),
            "numbers": {name: _count(claim[f"n{ending}"]) for name, ending in _NUMBERS.items()},
            "source": _text(claim["source"]),
            "marks": [*(["stand-in"] if claim["stand_in"] is True or claim["stand_in"] == 1 else [])]
            + [mark for mark in [_text(claim["substitution"])] if mark],
        }


_NUMBERS = {"samples": "", "groups": "_groups", "records": "_records"}


def _p_value(p: float, adjusted: float) -> str:
    shown = p if math.isnan(adjusted) else adjusted
    if math.isnan(shown):
        return DASH
    small = "p < 0.001" if shown < 0.001 else f"p = {shown:.3f}"
    return small if math.isnan(adjusted) else f"{small}, corrected"


def _text(value: Any) -> str:
    return "" if value is None or (not isinstance(value, str) and pd.isna(value)) else str(value)


def _float(value: Any) -> float:
    return float("nan") if value is None or pd.isna(value) else float(value)


def _count(value: Any) -> str:
    number = _float(value)
    return DASH if math.isnan(number) else f"{number:.0f}"
