"""Means, intervals and rank correlations against answers known by hand."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from misure.errors import MisureError
from misure.paper.statistics import bounds_of, spearman, summarise


def test_mean_and_median_by_hand() -> None:
    summary = summarise([1.0, 2.0, 9.0, 4.0])
    assert (summary.n, summary.mean, summary.median) == (4, 4.0, 3.0)
    assert summary.low < 4.0 < summary.high


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_not_left_out_silently(bad: float) -> None:
    with pytest.raises(MisureError, match="1 of 3 recorded values are not finite"):
        summarise([0.1, bad, 0.2])


def test_samples_of_a_group_say_as_much_as_their_mean() -> None:
    each = summarise([0.2, 0.4, 0.7, 0.9])
    twice = summarise([0.1, 0.3, 0.4, 0.4, 0.6, 0.8, 0.9, 0.9], [0, 0, "b", "b", 7, 7, 3, 3])
    assert (twice.n, twice.mean) == (8, pytest.approx(each.mean))
    assert (twice.low, twice.high) == pytest.approx((each.low, each.high))


def test_an_interval_stays_where_the_mean_can_be() -> None:
    reach = float(stats.t.ppf(0.975, 1)) * 0.05  # of two values 0.1 apart, whose skewness is 0
    assert summarise([0.9, 1.0]).high == pytest.approx(0.95 + reach)
    assert summarise([0.9, 1.0], bounds=bounds_of("dice_explained")).high == 1.0
    assert summarise([0.9, 1.0], bounds=bounds_of("perturbation_ratio_0.1")).high == pytest.approx(0.95 + reach)
    assert summarise([0.9, 1.0], bounds=bounds_of("spearman")).high == 1.0
    assert summarise([-0.9, -1.0], bounds=bounds_of("pearson")).low == -1.0
    assert bounds_of("dice_change") == bounds_of("area_minus_msr") == (-math.inf, math.inf)


def test_one_group_has_no_interval_and_nothing_no_mean() -> None:
    for summary, n, mean in ((summarise([0.7]), 1, 0.7), (summarise([1.0, 3.0], [5, 5]), 2, 2.0)):
        assert (summary.n, summary.mean, summary.median) == (n, mean, mean)
        assert math.isnan(summary.low)
        assert math.isnan(summary.high)
    for summary in (summarise([]), summarise([math.nan, math.nan]), summarise([], [])):
        assert summary.n == 0
        assert math.isnan(summary.mean)


def test_spearman_by_hand() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 1000]) == pytest.approx(1.0, abs=1e-12)
    assert spearman([1, 2, 3], [9, 4, 1]) == pytest.approx(-1.0, abs=1e-12)
    assert spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(math.sqrt(3) / 2, abs=1e-12), "ties share a rank"
    assert math.isnan(spearman([1, 2, 3], [0, 0, 0]))
    assert math.isnan(spearman([1], [2]))
