"""Intervals and tests of statistics over few independent groups of samples: photographs, or CT volumes.

Everything is computed from one number per group whose mean is the statistic: the group's part in a mean, or the
jackknife's pseudo-value of anything else (Tukey 1958). Student's t over these is corrected for skewness with Hall's
monotone cubic transformation (Hall 1992, Journal of the Royal Statistical Society B 54, 221-228), and is used only
where it is the more cautious of the two; a bootstrap of three groups only knows three numbers.

What 20,000 simulated samples of n groups gave, at a nominal 95 %: how often the percentile bootstrap's interval
(1,000 samples), Student's and this one contain the mean.

===========================  ==================  ==================  ==================  ==================
data                         n = 3               n = 6               n = 10              n = 30
===========================  ==================  ==================  ==================  ==================
normal                       0.75 / 0.95 / 0.97  0.87 / 0.95 / 0.96  0.91 / 0.95 / 0.96  0.95 / 0.95 / 0.95
exponential                  0.72 / 0.89 / 0.92  0.79 / 0.88 / 0.92  0.85 / 0.90 / 0.94  0.90 / 0.93 / 0.96
lognormal (sigma 1)          0.66 / 0.84 / 0.89  0.76 / 0.83 / 0.88  0.80 / 0.84 / 0.90  0.88 / 0.89 / 0.94
Dice near 1, one in ten low  0.49 / 0.70 / 0.79  0.52 / 0.62 / 0.73  0.62 / 0.65 / 0.75  0.85 / 0.84 / 0.90
===========================  ==================  ==================  ==================  ==================

No interval can do better on the last row: half of the samples of six hold no low value that could tell of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95

UNBOUNDED = (-math.inf, math.inf)

_LONGEST = 2.0
"""The skewness of few groups is a rough guess: neither end is more than this many times as far as Student's."""

_Floats = NDArray[np.float64]


def parts_of_mean(values: _Floats, groups: NDArray[Any]) -> _Floats:
    """Return one number per group whose mean is the mean over samples, whatever the sizes of the groups.

    Args:
        values: One finite number per sample.
        groups: The group of each sample.

    Returns:
        The mean plus each group's sum of deviations from it, in units of the mean group size.
    """
    names, place = np.unique(groups, return_inverse=True)
    mean = values.mean()
    deviations = np.bincount(place, weights=values - mean)
    parts: _Floats = mean + deviations * (len(names) / len(values))
    return parts


def pseudo_values(measure: Callable[[_Floats], _Floats], groups: NDArray[Any]) -> _Floats:
    """Return the jackknife's pseudo-value of each group, moved so that their mean is the statistic itself.

    Args:
        measure: Takes how often each sample counts, draws x N, and returns the statistic of each draw.
        groups: The group of each of the N samples.

    Returns:
        One number per group; NaN where the statistic is undefined without it.
    """
    names, place = np.unique(groups, return_inverse=True)
    n = len(names)
    value = measure(np.ones((1, len(place))))[0]
    without = measure((place != np.arange(n)[:, None]).astype(np.float64))
    pseudo: _Floats = value + (n - 1) * (without.mean() - without)
    return pseudo


def interval(parts: _Floats, bounds: tuple[float, float] = UNBOUNDED) -> tuple[float, float]:
    """Return the 95 % interval of a statistic.

    Args:
        parts: One number per group whose mean is the statistic.
        bounds: What the statistic cannot leave, such as 0 and 1 for a Dice.

    Returns:
        Both ends; NaN below two groups, and where a part is NaN; the value itself where all parts are equal.
    """
    if len(parts) < 2 or np.isnan(parts).any():
        return math.nan, math.nan
    low, high = np.clip(_Estimate.of(parts).interval(), *bounds)
    return float(low), float(high)


def studentised_p(parts: _Floats) -> float:
    """Test two-sidedly whether a statistic is 0 by the larger p of Student's t and of its correction for skewness.

    Args:
        parts: One number per group whose mean is the statistic, at least two.

    Returns:
        p; 0 where all parts are equal, which no t can judge.
    """
    return _Estimate.of(parts).p()


def difference(first: _Floats, second: _Floats) -> tuple[tuple[float, float], float]:
    """Return Welch's 95 % interval of the difference of two statistics and its p, both corrected for skewness.

    Args:
        first: One number per group whose mean is the statistic, at least two.
        second: Those of the other statistic, of other groups.
    """
    one, other = _Estimate.of(first), _Estimate.of(second)
    squares = one.error**2, other.error**2
    error = math.sqrt(sum(squares))
    spread = squares[0] ** 2 / one.freedom + squares[1] ** 2 / other.freedom
    skewness = (one.skewness * one.error**3 - other.skewness * other.error**3) / error**3 if error else 0.0
    apart = _Estimate(one.value - other.value, error, skewness, error**4 / spread if spread else math.inf)
    return apart.interval(), apart.p()


@dataclass(frozen=True)
class _Estimate:
    """A statistic with the standard error and skewness of its distribution, and Student's degrees of freedom."""

    value: float
    error: float
    skewness: float
    freedom: float

    @classmethod
    def of(cls, parts: _Floats) -> _Estimate:
        n, mean, spread = len(parts), float(parts.mean()), float(parts.std())
        skewness = float(((parts - mean) ** 3).mean()) / spread**3 if spread**3 > 0 else 0.0
        return cls(mean, spread / math.sqrt(n - 1), skewness / math.sqrt(n), n - 1)

    def interval(self) -> tuple[float, float]:
        reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom))
        down, up = (min(max(side * self._original(side * reach), reach), _LONGEST * reach) for side in (1, -1))
        return self.value - down * self.error, self.value + up * self.error

    def p(self) -> float:
        if self.error == 0:
            return 0.0
        t = self.value / self.error
        return 2 * float(stats.t.sf(min(abs(t), abs(self._transformed(t))), self.freedom))

    def _transformed(self, t: float) -> float:
        return t + self.skewness * t**2 / 3 + self.skewness**2 * t**3 / 27 + self.skewness / 6

    def _original(self, transformed: float) -> float:
        """Undo :meth:`_transformed`."""
        if abs(self.skewness) < 1e-9:
            return transformed
        return 3 / self.skewness * (math.cbrt(1 + self.skewness * (transformed - self.skewness / 6)) - 1)
