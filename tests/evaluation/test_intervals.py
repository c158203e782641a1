"""Intervals over few groups against Student's, against their definition and against simulated samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from misure.evaluation.intervals import difference, interval, parts_of_mean, pseudo_values, studentised_p

_VALUES = arrays(float, 8, elements=st.integers(-9, 9))


@given(_VALUES, arrays(np.int64, 8, elements=st.integers(0, 4)))
def test_parts_average_to_the_mean_and_equal_groups_to_their_means(values: np.ndarray, groups: np.ndarray) -> None:
    assert parts_of_mean(values, groups).mean() == pytest.approx(values.mean(), abs=1e-12)
    pairs = np.repeat(np.arange(4), 2)
    np.testing.assert_allclose(parts_of_mean(values, pairs), values.reshape(4, 2).mean(axis=1), atol=1e-12)


@given(_VALUES)
def test_pseudo_values_of_a_mean_are_the_samples(values: np.ndarray) -> None:
    found = pseudo_values(lambda weights: weights @ values / weights.sum(axis=1), np.arange(8))
    np.testing.assert_allclose(found, values, atol=1e-9)


@given(_VALUES)
def test_never_shorter_than_students_and_at_most_twice_as_long(values: np.ndarray) -> None:
    low, high = interval(values)
    reach = float(stats.t.ppf(0.975, 7)) * values.std(ddof=1) / math.sqrt(8)
    for end in (values.mean() - low, high - values.mean()):
        assert reach - 1e-9 <= end <= 2 * reach + 1e-9
    if np.ptp(values):
        assert studentised_p(values) >= stats.ttest_1samp(values, 0).pvalue - 1e-12


def test_without_skewness_it_is_students() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0])
    student = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval(values) == pytest.approx((student.low, student.high))
    assert studentised_p(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_without_skewness_a_difference_is_welchs() -> None:
    first, second = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 5.0, 8.0])
    welch = stats.ttest_ind(first, second, equal_var=False)
    ends, p = difference(first, second)
    assert (*ends, p) == pytest.approx((*welch.confidence_interval(0.95), welch.pvalue))
    assert difference(np.ones(3), np.zeros(3)) == ((1.0, 1.0), 0.0)


def test_what_has_no_spread_or_no_number() -> None:
    assert interval(np.full(5, 0.1)) == pytest.approx((0.1, 0.1))
    assert interval(np.array([0.98, 0.99, 1.0]), (0.0, 1.0))[1] == 1
    assert np.isnan([interval(np.array([1.0])), interval(np.array([1.0, math.nan, 2.0]))]).all()


@pytest.mark.parametrize(("n", "least"), [(3, 0.89), (6, 0.88), (30, 0.94)])
def test_coverage_of_a_skewed_mean(n: int, least: float) -> None:
    """Of lognormal samples, as the module's docstring has it; 600 of them have a standard error of at most 0.013."""
    samples = np.random.default_rng(n).lognormal(size=(600, n))
    ends = np.array([interval(sample) for sample in samples])
    mean = math.exp(0.5)
    assert np.mean((ends[:, 0] <= mean) & (mean <= ends[:, 1])) > least - 3 * 0.013
