"""Mean, median and a bootstrap interval over samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from misure.errors import MisureError

N_RESAMPLES = 10_000
CONFIDENCE = 0.95

_RESAMPLES_AT_ONCE = 1_000
"""Keeps the index array small: 1,000 x samples."""


@dataclass(frozen=True)
class Summary:
    """One metric over samples.

    Attributes:
        n: Number of samples.
        mean: NaN where there is no sample.
        median: NaN where there is no sample.
        low: Lower end of the 95 % bootstrap interval of the mean; NaN below two samples.
        high: Upper end of it.
    """

    n: int
    mean: float
    median: float
    low: float
    high: float


NOTHING = Summary(0, *(float("nan"),) * 4)
"""The summary of no samples."""


def summarise(values: Iterable[float], seed: int = 0) -> Summary:
    """Summarise a metric, one value per sample.

    Args:
        values: Finite numbers; all NaN means that the metric was not measured.
        seed: Of the resampling. The same values and seed give the same interval.

    Returns:
        Mean, median and the percentile bootstrap interval of the mean.

    Raises:
        MisureError: If only some of the values are finite.
    """
    array = np.asarray(list(values), dtype=np.float64)
    if not len(array) or bool(np.isnan(array).all()):
        return NOTHING
    if not bool(np.isfinite(array).all()):
        bad = int((~np.isfinite(array)).sum())
        raise MisureError(f"{bad} of {len(array)} recorded values are not finite: delete those records and run again")
    low, high = bootstrap_interval(array, seed)
    return Summary(len(array), float(array.mean()), float(np.median(array)), low, high)


def bootstrap_interval(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean (10,000 resamples).

    Args:
        values: One finite number per sample.
        seed: Of the resampling.

    Returns:
        Lower and upper end; both NaN for fewer than two samples, which say nothing about their spread.
    """
    n = len(values)
    return _limits(_resample_counts(n, seed) @ values / n) if n > 1 else (float("nan"), float("nan"))


def summarise_groups(values: Iterable[float], groups: Iterable[int], seed: int = 0) -> Summary:
    """Summarise a metric whose values belong together in groups, such as the objects of a photograph.

    The interval is that of :func:`summarise`, but whole groups are drawn: values of a group are not independent.

    Args:
        values: Finite numbers, one per sample.
        groups: The group of each sample.
        seed: Of the resampling.

    Returns:
        Mean and median over samples; an interval from two groups on.
    """
    array, labels = np.asarray(list(values), dtype=np.float64), np.asarray(list(groups))
    if not len(array):
        return NOTHING
    several = len(np.unique(labels)) > 1
    low, high = _limits(resampled_means(array, labels, seed)) if several else (float("nan"), float("nan"))
    return Summary(len(array), float(array.mean()), float(np.median(array)), low, high)


def resampled_means(values: NDArray[np.float64], groups: NDArray[np.int64], seed: int = 0) -> NDArray[np.float64]:
    """Return the mean over samples of each of 10,000 draws of whole groups; the same draws for the same groups."""
    _, place = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(place, weights=values), np.bincount(place)
    counts = _resample_counts(len(sizes), seed)
    means: NDArray[np.float64] = (counts @ sums) / (counts @ sizes)
    return means


def _limits(means: NDArray[np.float64]) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


@lru_cache(maxsize=2)  # most metrics of a table are over the same number of samples; 32 MB for 400
def _resample_counts(n: int, seed: int) -> NDArray[np.float64]:
    """How often each of n samples is in each resample: resamples x n."""
    generator = np.random.default_rng(seed)
    counts = np.empty((N_RESAMPLES, n))
    for start in range(0, N_RESAMPLES, _RESAMPLES_AT_ONCE):
        drawn = generator.integers(0, n, size=(_RESAMPLES_AT_ONCE, n))
        cells = (drawn + n * np.arange(_RESAMPLES_AT_ONCE)[:, None]).ravel()
        counted = np.bincount(cells, minlength=n * _RESAMPLES_AT_ONCE)
        counts[start : start + _RESAMPLES_AT_ONCE] = counted.reshape(-1, n)
    return counts


def spearman(first: Iterable[float], second: Iterable[float]) -> float:
    """Return Spearman's rank correlation, with average ranks for ties.

    Returns:
        -1..1; NaN where either side is constant or there are fewer than two pairs.
    """
    ranks = [_average_ranks(np.asarray(list(side), dtype=np.float64)) for side in (first, second)]
    if len(ranks[0]) < 2 or any(np.ptp(side) == 0 for side in ranks):
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _average_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[position]
    return ranks
