"""Composite claims: their p and verdict from those of their comparisons."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from misure.paper.claims.claim import Claim, Evidence, Finding, Verdict, settle
from misure.paper.source import Origin

_EVIDENCE = st.lists(
    st.builds(Evidence, st.just("x"), st.just(1.0), p=st.floats(1e-6, 1), agrees=st.booleans()), min_size=1
)


def _settled(*evidence: Evidence) -> Claim:
    finding = Finding("a", "5.2", "b", "Triangle", "U-Net", evidence, Origin("", stand_in=False), "table1")
    return settle([finding], "quick")[0]


@given(_EVIDENCE)
def test_a_composite_is_never_clearer_than_its_parts(evidence: list[Evidence]) -> None:
    claim = _settled(*evidence)
    assert 0 < claim.finding.p <= claim.p_adjusted <= 1
    if claim.verdict == Verdict.HOLDS:
        assert all(single.agrees and single.p < 0.05 for single in evidence)
    if claim.verdict == Verdict.FAILS:
        assert any(not single.agrees and single.p * len(evidence) < 0.05 for single in evidence)


def test_a_contradiction_counts_although_another_comparison_lacks_records() -> None:
    lacking = Evidence("x", missing="x: no records")
    assert _settled(lacking, Evidence("y", 0.1, p=0.001, agrees=False)).verdict == Verdict.FAILS
    unclear = _settled(lacking, Evidence("y", 0.1, p=0.5, agrees=False))
    assert unclear.verdict == Verdict.OPEN
    assert "1 of 2 comparisons lack records" in unclear.why
    agreeing = _settled(lacking, Evidence("y", 0.1, p=0.001, agrees=True))
    assert math.isnan(agreeing.p_adjusted), "what is missing could still contradict"


@pytest.mark.parametrize(
    ("changed", "profile"),
    [
        ({"origin": Origin("generated", stand_in=True)}, "quick"),
        ({"val_dice": 0.1}, "quick"),
        ({"origin": Origin("", stand_in=False, scale=0.5), "evidence": [Evidence("x", p=0.2, timed=True)]}, "quick"),
        ({}, "smoke"),
    ],
    ids=["stand-ins", "a weak network", "seconds on smaller images", "smoke"],
)
def test_claims_that_no_numbers_settle_have_no_place_among_the_many(changed: dict[str, Any], profile: str) -> None:
    clear = _settled(Evidence("x", 1.0, p=0.002, agrees=True)).finding
    unjudged = [replace(clear, **{"evidence": [Evidence("x", p=0.2)], **changed})] * 40
    claims = settle([*[clear] * 10, *unjudged], profile)
    assert all(math.isnan(claim.p_adjusted) for claim in claims[10:])
    assert {claim.finding.p for claim in claims[10:]} == {0.2}, "it is shown"
    if changed:
        assert {(claim.p_adjusted, claim.verdict) for claim in claims[:10]} == {(0.02, Verdict.HOLDS)}
