"""Mean, median and an interval over samples."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from misure.errors import MisureError
from misure.evaluation.intervals import UNBOUNDED, interval, parts_of_mean


@dataclass(frozen=True)
class Summary:
    """One metric over samples.

    Attributes:
        n: Number of samples.
        mean: NaN where there is no sample.
        median: NaN where there is no sample.
        low: Lower end of the mean's 95 % interval over groups; NaN below two of them.
        high: Upper end of it.
    """

    n: int
    mean: float
    median: float
    low: float
    high: float


NOTHING = Summary(0, *(float("nan"),) * 4)
"""The summary of no samples."""

_SHARE = re.compile(
    r"dice_at_|(binary_)?dice_explained|far_below$|((top_)?iou|mask(_in_object)?|object(_kept)?|sufficient_region|(inser|dele)tion)$"
)


def bounds_of(name: str, explainer: str = "") -> tuple[float, float]:
    """Return what the mean of a metric cannot leave, by its name in tables and the explainer's.

    A sufficient region holds its object, so that its ratio is at least 1.
    """
    if (name, explainer) == ("perturbation_ratio", "sufficient_region"):
        return 1.0, math.inf
    if name in {"spearman", "pearson", "rank_correlation"}:
        return -1.0, 1.0
    if _SHARE.match(name):
        return 0.0, 1.0
    return (0.0, math.inf) if name.startswith(("perturbation_ratio", "region_ratio")) else UNBOUNDED


def apart(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Return the difference of two means with its interval, put together from those of the means.

    The square of each of its ends' distance is the sum of the squares of two of theirs (MOVER: Zou and Donner 2008,
    Statistics in Medicine 27, 1693-1702). It needs no more than what is printed, and holds for an area under a curve as
    well. Where both are of the same images it is too wide, so that a difference is found less often than it could be.

    Args:
        first: The mean and both ends of its 95 % interval.
        second: Those of what is taken from it.

    Returns:
        The difference and both ends of its interval; NaN where one of the six is.
    """
    (mean, low, high), (other, other_low, other_high) = first, second
    difference = mean - other
    below, above = math.hypot(mean - low, other_high - other), math.hypot(high - mean, other - other_low)
    return difference, difference - below, difference + above


def summarise(
    values: Iterable[float], groups: Iterable[Any] | None = None, bounds: tuple[float, float] = UNBOUNDED
) -> Summary:
    """Summarise a metric, one value per sample.

    Args:
        values: Finite numbers; all NaN means that the metric was not measured.
        groups: What each sample belongs to: objects of a photograph, or slices of a volume, are not independent. By
            default every sample is on its own.
        bounds: What the mean cannot leave.

    Returns:
        Mean and median over samples, and the mean's interval (:mod:`misure.evaluation.intervals`) from two groups on.

    Raises:
        MisureError: If only some of the values are finite.
    """
    array = np.asarray(list(values), dtype=np.float64)
    if not len(array) or bool(np.isnan(array).all()):
        return NOTHING
    if not bool(np.isfinite(array).all()):
        bad = int((~np.isfinite(array)).sum())
        raise MisureError(f"{bad} of {len(array)} recorded values are not finite: delete those records and run again")
    labels = np.arange(len(array)) if groups is None else np.asarray(list(groups))
    low, high = interval(parts_of_mean(array, labels), bounds)
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
