"""Means, intervals and rank correlations against answers known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from misure.errors import MisureError
from misure.paper.statistics import spearman, summarise, summarise_groups


def test_mean_and_median_by_hand() -> None:
    summary = summarise([1.0, 2.0, 9.0, 4.0])
    assert (summary.n, summary.mean, summary.median) == (4, 4.0, 3.0)
    assert 1.0 <= summary.low < 4.0 < summary.high <= 9.0


def test_interval_approaches_the_normal_one() -> None:
    values = np.random.default_rng(5).normal(3.0, 2.0, size=400)
    summary = summarise(values)
    error = values.std() / math.sqrt(len(values))
    # 10,000 resamples put a 2.5 % quantile within about 0.027 standard errors of its limit (one sigma);
    # 0.15 leaves room for five of these and for the skewness of the sample.
    half = norm.ppf(0.975) * error
    assert summary.low == pytest.approx(values.mean() - half, abs=0.15 * error)
    assert summary.high == pytest.approx(values.mean() + half, abs=0.15 * error)


def test_interval_depends_on_values_and_seed_alone() -> None:
    values = np.arange(50.0) ** 2
    assert summarise(values, seed=3) == summarise(values.copy(), seed=3) != summarise(values, seed=4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_not_left_out_silently(bad: float) -> None:
    with pytest.raises(MisureError, match="1 of 3 recorded values are not finite"):
        summarise([0.1, bad, 0.2])


def test_interval_of_two_groups_is_exact() -> None:
    # The mean of two draws from {0, 1} is 0 or 1 with probability 1/4 each: far more than 2.5 %.
    assert (summarise([0.0, 1.0]).low, summarise([0.0, 1.0]).high) == (0.0, 1.0)
    # Both groups, or one of them twice: means 0, 1/3 x 1 and 1, each with far more than 2.5 %.
    summary = summarise_groups([0.0, 0.0, 1.0], [7, 7, 3])
    assert (summary.n, summary.mean, summary.median) == (3, pytest.approx(1 / 3), 0.0)
    assert (summary.low, summary.high) == (0.0, 1.0)


def test_one_group_has_no_interval_and_nothing_no_mean() -> None:
    for summary, n, mean in ((summarise([0.7]), 1, 0.7), (summarise_groups([1.0, 3.0], [5, 5]), 2, 2.0)):
        assert (summary.n, summary.mean, summary.median) == (n, mean, mean)
        assert math.isnan(summary.low)
        assert math.isnan(summary.high)
    for summary in (summarise([]), summarise([math.nan, math.nan]), summarise_groups([], [])):
        assert summary.n == 0
        assert math.isnan(summary.mean)


def test_spearman_by_hand() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 1000]) == pytest.approx(1.0, abs=1e-12)
    assert spearman([1, 2, 3], [9, 4, 1]) == pytest.approx(-1.0, abs=1e-12)
    assert spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(math.sqrt(3) / 2, abs=1e-12), "ties share a rank"
    assert math.isnan(spearman([1, 2, 3], [0, 0, 0]))
    assert math.isnan(spearman([1], [2]))
