"""Tests of significance against enumeration by hand, SciPy and the definition of Holm's correction."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from misure.paper.claims.significance import (
    EXACT_UP_TO,
    FEWEST_GROUPS,
    fewest_groups,
    holm,
    mean_p,
    permutation_p,
    sign_flip_p,
    weighted_slope,
    weighted_spearman,
)

DRAWS_OF_A_PART = 10_000
"""The fewest that there are."""

_PROBABILITIES = st.lists(st.one_of(st.floats(1e-6, 1), st.just(float("nan"))), max_size=12)
_INTEGERS = st.integers(-20, 20).map(float)


def _enumerated(values: list[float], groups: list[int]) -> float:
    """Try every sign of every group in a loop."""
    names = sorted(set(groups))
    observed = abs(sum(values))
    patterns = list(itertools.product((1, -1), repeat=len(names)))
    far = 0
    for signs in patterns:
        of = dict(zip(names, signs, strict=True))
        far += abs(sum(of[group] * value for group, value in zip(groups, values, strict=True))) >= observed - 1e-9
    return far / len(patterns)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_INTEGERS, st.integers(0, 5)), min_size=1, max_size=12))
def test_sign_flips_against_every_pattern(samples: list[tuple[float, int]]) -> None:
    values, groups = [value for value, _ in samples], [group for _, group in samples]
    p = sign_flip_p(np.array(values), np.array(groups))
    assert p == _enumerated(values, groups)
    assert 0 < p <= 1
    assert p == sign_flip_p(-np.array(values), np.array(groups))


def test_drawn_signs_come_close_to_all_of_them() -> None:
    values = np.random.default_rng(1).normal(0.5, 1, EXACT_UP_TO + 1)
    groups = np.arange(len(values))
    drawn = sign_flip_p(values, groups)
    exact = _enumerated(values.tolist(), groups.tolist())
    error = math.sqrt(exact * (1 - exact) / DRAWS_OF_A_PART)
    assert abs(drawn - exact) < 4 * error  # a draw further off than four standard errors happens once in 15,000
    assert drawn == sign_flip_p(values, groups), "the seed is fixed"
    assert sign_flip_p(np.ones(30), np.arange(30)) * 6 * 120 < 0.05, "six comparisons, 120 claims"


def test_fewest_groups_is_where_five_percent_can_be_reached() -> None:
    assert FEWEST_GROUPS == 6
    assert fewest_groups(120) == 13  # 2^-12 x 120 = 0.03
    assert sign_flip_p(np.ones(6), np.arange(6)) < 0.05 < sign_flip_p(np.ones(5), np.arange(5))


@given(_PROBABILITIES)
def test_holm_against_its_definition(values: list[float]) -> None:
    adjusted = holm(values)
    tested = sorted(p for p in values if not math.isnan(p))
    for p, found in zip(values, adjusted, strict=True):
        if math.isnan(p):
            assert math.isnan(found)
            continue
        smaller = [(len(tested) - rank) * q for rank, q in enumerate(tested) if q <= p]
        assert found == pytest.approx(min(1.0, max(smaller)))


@settings(max_examples=40, deadline=None)
@given(arrays(float, (2, 7), elements=st.integers(0, 4)), arrays(np.int64, 7, elements=st.integers(0, 3)))
def test_weighted_spearman_against_repeated_samples(sides: np.ndarray, counts: np.ndarray) -> None:
    first, second = (np.repeat(side, counts) for side in sides)
    found = weighted_spearman(*sides, counts[None].astype(float))[0]
    constant = len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0
    expected = 0.0 if constant else stats.spearmanr(first, second).statistic
    assert found == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(arrays(float, (2, 7), elements=st.integers(0, 4)), arrays(np.int64, 7, elements=st.integers(0, 3)))
def test_weighted_slope_against_repeated_samples(sides: np.ndarray, counts: np.ndarray) -> None:
    first, second = (np.repeat(side, counts) for side in sides)
    found = weighted_slope(*sides, counts[None].astype(float))[0]
    if len(first) < 2 or np.ptp(first) == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(stats.linregress(first, second).slope, abs=1e-9)


def test_exchanging_groups_against_every_exchange() -> None:
    first, second = np.array([1.0, 2.5, 2.0, 4.0]), np.array([3.0, 5.0, 4.5])

    def t(side: list[float], other: list[float]) -> float:
        return abs(float(stats.ttest_ind(side, other, equal_var=False).statistic))

    together = {*range(7)}
    every = [([*chosen], [*together - {*chosen}]) for chosen in itertools.combinations(range(7), 4)]
    numbers = np.concatenate([first, second])
    far = [t(numbers[some], numbers[rest]) >= t(first, second) - 1e-9 for some, rest in every]
    exact = np.mean(far)
    error = math.sqrt(exact * (1 - exact) / DRAWS_OF_A_PART)
    assert abs(permutation_p(first, second) - exact) < 4 * error
    assert permutation_p(np.ones(8), np.ones(9)) == 1
    assert permutation_p(np.ones(8), np.full(9, 3.0)) == pytest.approx(1 / 24310, abs=0.001)  # of 17 over 8


def test_levels_with_few_groups() -> None:
    """As the docstring of the test has it from 20,000 data sets; here 600, a rate of 0.05 being within 0.027 of it."""
    generator = np.random.default_rng(0)
    normal = [mean_p(values, np.arange(6)) for values in generator.normal(size=(600, 6))]
    skewed = [mean_p(values - math.exp(0.5), np.arange(30)) for values in generator.lognormal(size=(600, 30))]
    assert np.mean(np.array(normal) < 0.05) < 0.05 + 0.027
    assert np.mean(np.array(skewed) < 0.05) < 0.062 + 0.030  # 3 standard errors; signs alone reject 0.12
    assert min(normal) >= 2**-5, "six groups cannot give less"
    assert mean_p(np.full(9, 0.2), np.arange(9)) == 2**-8, "equal differences are as clear as their signs"
    assert mean_p(np.zeros(9), np.arange(9)) == 1
