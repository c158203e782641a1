"""Mean, median and a bootstrap interval over samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from misure.errors import MisureError
from misure.evaluation.bootstrap import limits, resampled_means


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
    return summarise_groups(array, np.arange(len(array)), seed)


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
    low, high = limits(resampled_means(array, labels, seed)) if several else (float("nan"), float("nan"))
    return Summary(len(array), float(array.mean()), float(np.median(array)), low, high)


def spearman(first: Iterable[float], second: Iterable[float]) -> float:
    """Return Spearman's rank correlation, with average ranks for ties.

    Returns:
        -1..1; NaN where either side is constant or there are fewer than two pairs.
    """
    ranks = [rankdata(list(side)) for side in (first, second)]
    if len(ranks[0]) < 2 or any(np.ptp(side) == 0 for side in ranks):
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
