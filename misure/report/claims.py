"""The verdict board: each claim of the paper as a row for the page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from misure.paper.claims import COLUMNS, Verdict
from misure.paper.published import DASH
from misure.paper.source import Origin
from misure.paper.table import measured


@dataclass(frozen=True)
class Badge:
    """A verdict on the page.

    Attributes:
        text: As in the claims' column.
        icon: A sign that says it without colour.
        slug: For the page's styles.
    """

    text: str
    icon: str
    slug: str


BADGES = (
    Badge(Verdict.HOLDS, "✓", "holds"),
    Badge(Verdict.FAILS, "✕", "fails"),
    Badge(Verdict.OPEN, "?", "unknown"),
    Badge(Verdict.STAND_IN, "◇", "standin"),
)


@dataclass(frozen=True)
class IntervalBar:
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
    """Return a row for each claim: its columns, and what the page shows of them.

    Args:
        claims: As :func:`misure.paper.claims.claims_frame` returns it.
    """
    return [_row(order, claim) for order, claim in enumerate(claims[list(COLUMNS)].to_dict("records"))]


def counts(rows: list[dict[str, Any]]) -> list[tuple[Badge, int]]:
    """Count the verdicts, each kind once, also those that no claim got."""
    return [(badge, sum(row["verdict"] == badge for row in rows)) for badge in BADGES]


def interval_bar(value: float, low: float, high: float) -> IntervalBar | None:
    """Place an estimate, its interval and zero on one scale; None without an estimate."""
    if math.isnan(value):
        return None
    ends = (value, value) if math.isnan(low) or math.isnan(high) else (low, high)
    left, right = min(0.0, value, *ends), max(0.0, value, *ends)
    width = right - left or 1.0
    return IntervalBar(*(round(4 + 92 * (number - left) / width, 2) for number in (value, *ends, 0.0)))


def _row(order: int, claim: dict[Any, Any]) -> dict[str, Any]:
    rank, badge = next((rank, badge) for rank, badge in enumerate(BADGES) if badge.text == claim["verdict"])
    value, low, high = claim["value"], claim["low"], claim["high"]
    return claim | {
        "order": order,
        "rank": rank,
        "verdict": badge,
        "shown": measured(value) + ("" if math.isnan(low) else f" [{measured(low)}, {measured(high)}]"),
        "bar": interval_bar(value, low, high),
        "p": _p_value(claim["p"], claim["p_adjusted"]),
        "marks": Origin.of_row(claim).marks,
    }


def _p_value(p: float, adjusted: float) -> str:
    shown = p if math.isnan(adjusted) else adjusted
    if math.isnan(shown):
        return DASH
    small = "p < 0.001" if shown < 0.001 else f"p = {shown:.3f}"
    return small if math.isnan(adjusted) else f"{small}, corrected"
