"""Numbers measured on the maps of one sample: how fine a map is, and how alike two maps are."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from misure.paper.maps import Maps


def variation(maps: Maps) -> float:
    """Return a map's total variation over its mass, after it was scaled to [0, 1]; NaN for a constant map.

    Min-max scaling comes first because raw values have no common zero: the lowest value of RISE's map is the Dice that
    any masked image keeps, mass everywhere that no picture shows and that would make every RISE map coarse. It is also
    how maps are thresholded and shown. Dividing by the mass keeps a map of a larger object from counting as finer.
    """
    values = maps["saliency"].astype(np.float64)
    values -= values.min()
    if not values.any():
        return math.nan
    steps = np.abs(np.diff(values, axis=0)).sum() + np.abs(np.diff(values, axis=1)).sum()
    return float(steps / values.sum())


def correlation(first: Maps, second: Maps) -> float:
    """Return Pearson's correlation of two maps' pixels, which no scaling changes; NaN where one is constant."""
    sides = [maps["saliency"].astype(np.float64).ravel() for maps in (first, second)]
    if any(np.ptp(side) == 0 for side in sides):
        return math.nan
    return float(np.corrcoef(sides[0], sides[1])[0, 1])


MEASURES: dict[str, Callable[..., float]] = {
    "variation over another's": lambda first, second: variation(first) - variation(second),
    "correlation": correlation,
    "correlation over a third's": lambda first, second, third: correlation(first, second) - correlation(third, second),
}
"""By name in ``claims.yaml``, for the maps of one sample, variant by variant."""
