"""Differences from the paper: signed, coloured, and grey where they mean nothing."""

from __future__ import annotations

import math

import pytest

from misure.paper.difference import difference
from misure.paper.published import DASH
from misure.paper.table import estimate


@pytest.mark.parametrize(
    ("paper", "ours", "factor", "text", "tone"),
    [
        (0.9, 0.8, False, "-0.100", "below2"),
        (2.0, 16.0, True, "×8", "above3"),  # noqa: RUF001 - a multiplication sign
        (0.9, 0.901, False, "+0.001", "same"),
        (2.0, 0.0, True, "×0", "below3"),  # noqa: RUF001 - as above
        (0.0, 1.0, True, DASH, "grey"),
        (math.nan, 0.5, False, DASH, "grey"),
        (None, 0.5, False, DASH, "grey"),
    ],
)
def test_signs_and_colours(paper, ours, factor, text, tone):
    told = difference(paper, ours, factor=factor)
    assert (told.text, told.tone) == (text, tone)


@pytest.mark.parametrize(
    ("low", "stand_in", "tone"), [(0.4, False, "below3"), (math.nan, False, "grey"), (0.4, True, "grey")]
)
def test_a_stand_in_and_a_single_sample_are_not_judged(low, stand_in, tone):
    row = {"paper": 0.9, "dice_mean": 0.5, "dice_low": low, "dice_high": 0.6, "stand_in": stand_in}
    told = estimate("dice", "Dice", better="higher", paper="paper").difference(row)
    assert told is not None
    assert (told.tone, bool(told.why)) == (tone, tone == "grey")
    assert estimate("dice", "Dice").difference(row) is None
