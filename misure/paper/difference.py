"""The difference of our number from the paper's, and how strongly it is coloured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from misure.paper.published import DASH

_STEPS = ((0.05, 1), (0.15, 2), (math.inf, 3))
_FACTOR_STEPS = ((0.32, 1), (1.0, 2), (math.inf, 3))
"""Up to a factor of 1.25, up to 2, and more."""

_SAME = 0.005
_TIMES = "\N{MULTIPLICATION SIGN}"


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


def difference(paper: float | None, ours: float, *, factor: bool, grey: str = "") -> Difference:
    """Compare two numbers.

    Args:
        paper: The paper's.
        ours: Ours; NaN or None in either gives a dash.
        factor: Whether to tell ours over the paper's, not ours less the paper's.
        grey: Why the difference must not be coloured; empty where it may.
    """
    if paper is None or math.isnan(paper) or math.isnan(ours) or (factor and paper <= 0):
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
