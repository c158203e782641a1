"""Draws of whole groups of samples with replacement."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_DRAWS = 10_000

_DRAWS_AT_ONCE = 1_000
"""Keeps arrays of draws x groups small."""

_Floats = NDArray[np.float64]


def resampled_means(values: _Floats, groups: NDArray[Any], seed: int = 0) -> _Floats:
    """Return the mean over samples of each of 10,000 draws of whole groups; the same draws for the same groups."""
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
