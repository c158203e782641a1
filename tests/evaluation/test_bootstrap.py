"""Draws of whole groups against every draw by hand."""

from __future__ import annotations

import itertools

import numpy as np

from misure.evaluation.bootstrap import resampled_means


def test_means_of_groups_are_those_of_every_draw() -> None:
    values, groups = np.array([1.0, 2.0, 4.0, 8.0]), np.array([0, 1, 1, 2])
    drawn = set(np.round(resampled_means(values, groups), 9))
    by_group = ([1.0], [2.0, 4.0], [8.0])
    every = {round(float(np.concatenate(parts).mean()), 9) for parts in itertools.product(by_group, repeat=3)}
    assert drawn == every  # each of the 10 draws has at least 1/27 of 10,000 resamples
