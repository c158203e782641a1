"""Draws of whole groups of samples with replacement, and the intervals that they give."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_DRAWS = 10_000
CONFIDENCE = 0.95

_DRAWS_AT_ONCE = 1_000
"""Keeps arrays of draws x samples small."""

_Floats = NDArray[np.float64]


def limits(draws: _Floats) -> tuple[float, float]:
    """Return the 95 % percentile interval of bootstrap draws; an infinite draw may make an end infinite or NaN."""
    tail = (1 - CONFIDENCE) / 2
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(draws, (tail, 1 - tail))
    return float(low), float(high)


def group_weights(groups: NDArray[Any], n_draws: int = N_DRAWS, seed: int = 0) -> Iterator[_Floats]:
    """Draw whole groups with replacement; the same draws for the same number of groups.

    Args:
        groups: The group of each sample.
        n_draws: How often as many groups as there are get drawn.
        seed: Of the draws.

    Yields:
        How often each sample's group is drawn, at most 1,000 draws x samples at a time.
    """
    names, place = np.unique(groups, return_inverse=True)
    generator = np.random.default_rng(seed)
    for start in range(0, n_draws, _DRAWS_AT_ONCE):
        size = min(_DRAWS_AT_ONCE, n_draws - start)
        counts = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        yield counts[:, place].astype(np.float64)


def resampled_means(values: _Floats, groups: NDArray[Any], seed: int = 0) -> _Floats:
    """Return the mean over samples of each of 10,000 draws of whole groups; the same draws for the same groups.

    Sums and sizes of groups are drawn, not samples, which is many times faster than :func:`group_weights`.
    """
    _, place = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(place, weights=values), np.bincount(place)
    counts = _counts(len(sizes), seed)
    means: _Floats = (counts @ sums) / (counts @ sizes)
    return means


@lru_cache(maxsize=2)  # most metrics of a table are over the same number of samples; 32 MB for 400
def _counts(n: int, seed: int) -> _Floats:
    """How often each of n groups is in each draw: draws x n."""
    generator = np.random.default_rng(seed)
    counts = np.empty((N_DRAWS, n))
    for start in range(0, N_DRAWS, _DRAWS_AT_ONCE):
        drawn = generator.integers(0, n, size=(_DRAWS_AT_ONCE, n))
        cells = (drawn + n * np.arange(_DRAWS_AT_ONCE)[:, None]).ravel()
        counts[start : start + _DRAWS_AT_ONCE] = np.bincount(cells, minlength=n * _DRAWS_AT_ONCE).reshape(-1, n)
    return counts
