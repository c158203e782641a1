"""Draws of whole groups against every draw by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from misure.evaluation.bootstrap import N_DRAWS, group_weights, limits, resampled_means


def test_means_of_groups_are_those_of_every_draw() -> None:
    values, groups = np.array([1.0, 2.0, 4.0, 8.0]), np.array([0, 1, 1, 2])
    drawn = set(np.round(resampled_means(values, groups), 9))
    by_group = ([1.0], [2.0, 4.0], [8.0])
    every = {round(float(np.concatenate(parts).mean()), 9) for parts in itertools.product(by_group, repeat=3)}
    assert drawn == every  # each of the 10 draws has at least 1/27 of 10,000 resamples


def test_weights_draw_whole_groups_the_same_way_each_time() -> None:
    groups = np.array([4, 4, 7, 9])
    weights = np.concatenate(list(group_weights(groups)))
    assert weights.shape == (N_DRAWS, 4)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 1])
    np.testing.assert_array_equal(weights[:, 1:].sum(axis=1), 3)
    named = np.array(["a", "a", "b", "c"])
    np.testing.assert_array_equal(weights[:1500], np.concatenate(list(group_weights(named, 1500))))
    assert (weights[:1500] != np.concatenate(list(group_weights(groups, 1500, seed=1)))).any()


def test_both_ways_of_drawing_have_one_distribution() -> None:
    generator = np.random.default_rng(0)
    values, groups = generator.normal(size=30), generator.integers(0, 8, 30)
    weights = np.concatenate(list(group_weights(groups)))
    means = weights @ values / weights.sum(axis=1)
    error = means.std() / np.sqrt(N_DRAWS)
    assert (
        abs(means.mean() - resampled_means(values, groups).mean()) < 4 * np.sqrt(2) * error
    )  # 4 sigma of a difference


def test_limits_cut_two_and_a_half_percent_on_either_side() -> None:
    np.testing.assert_allclose(limits(np.linspace(-1, 99, 1001)), [1.5, 96.5])
    assert limits(np.array([1.0, 1.0, np.inf]))[0] == pytest.approx(1), "without a warning"
