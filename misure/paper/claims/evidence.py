"""Tests of numbers against the limits that a claim sets, as evidence for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from misure.evaluation.intervals import difference, interval, parts_of_mean, pseudo_values
from misure.paper.claims.claim import Evidence
from misure.paper.claims.records import Values
from misure.paper.claims.significance import FEWEST_GROUPS, FEWEST_LEFT_OUT, mean_p, permutation_p
from misure.paper.table import measured

_PERFECT = 1 - 1e-9

_Floats = NDArray[np.float64]
_Limits = tuple[float, float]


def too_few(statistic: str, samples: Values, fewest: int = FEWEST_GROUPS) -> Evidence | None:
    """Return evidence that says so where fewer groups than a test takes are there, or None."""
    if samples.n_groups >= fewest:
        return None
    reason = samples.lacking or "no records"
    if n := len(samples.numbers):
        reason = f"too few {samples.group_word} ({samples.n_groups}, with {n} of the samples; its test takes {fewest})"
    return missing(statistic, samples, reason)


def missing(statistic: str, samples: Values, reason: str) -> Evidence:
    """Return evidence that nothing could be tested."""
    return Evidence(statistic, missing=f"{statistic}: {reason}", **samples.counts())


def shift(statistic: str, samples: Values, above: float = -math.inf, below: float = math.inf) -> Evidence:
    """Test that a mean lies above a limit, below one, or between two.

    Args:
        statistic: What the mean is of.
        samples: The numbers.
        above: The lower limit of what is claimed.
        below: The upper limit of it.
    """
    if lacking := too_few(statistic, samples):
        return lacking
    numbers, groups = samples.numbers, samples.groups
    ends = interval(parts_of_mean(numbers, groups))
    detail = f"median {measured(float(np.median(numbers)))}"
    found = Evidence(statistic, float(numbers.mean()), *ends, detail=detail, **samples.counts())
    return _inside(found, lambda at: mean_p(numbers - at, groups), (above, below))


def statistic_of(
    statistic: str, samples: Values, measure: Callable[[_Floats], _Floats], limits: _Limits, detail: str = ""
) -> Evidence:
    """Test anything that is no mean like :func:`shift`, by the pseudo-values of groups left out one by one.

    Of 1,000 simulated data sets each without an effect (AUC: 600) this has p < 0.05 in 4, 6 and 5 % with 10, 15 and 30
    groups for the difference of log factors, in 7, 6 and 6 % for slopes under uneven scatter and in
    5, 6 and 2 % for AUCs over volumes; p < 0.0004 in at most one of 1,000.

    Args:
        statistic: Its name.
        samples: What it is measured on.
        measure: Takes how often each sample counts, draws x N, and returns the statistic of each draw.
        limits: Between which it is claimed to lie.
        detail: More about the value.
    """
    if lacking := too_few(statistic, samples, FEWEST_LEFT_OUT):
        return lacking
    pseudo = pseudo_values(measure, samples.groups)
    if np.isnan(pseudo).any():
        return missing(statistic, samples, f"it is undefined without some of the {samples.group_word}")
    found = Evidence(statistic, float(pseudo.mean()), *interval(pseudo), detail=detail, **samples.counts())
    return _inside(found, lambda at: mean_p(pseudo - at, np.arange(len(pseudo))), limits)


def correlation_of(
    statistic: str,
    samples: Values,
    measure: Callable[[_Floats], _Floats],
    scores: _Floats,
    limits: _Limits,
) -> Evidence:
    """Test a correlation like :func:`statistic_of`, on Fisher's z; against 0 by its scores, which tell more.

    Of 2,000 simulated data sets without a correlation, by images or by volumes of three slices, the scores have p <
    0.05 in 5 to 6 % with 10, 15 and 30 groups and p < 0.0004 in 0 to 0.2 %; of 500 with one of -0.7 they find 98 %
    with 30 groups and 44 % at 0.0004, where Fisher's z finds 89 % and 13 %.

    Args:
        statistic: Its name.
        samples: What it is measured on.
        measure: As there, -1..1.
        scores: One number per sample, whose mean is 0 where there is no correlation.
        limits: Between which it is claimed to lie.
    """
    above, below = (float(_fisher(limit)) if math.isfinite(limit) else limit for limit in limits)
    found = statistic_of(statistic, samples, lambda weights: _fisher(measure(weights)), (above, below))
    if found.missing:
        return found
    value, low, high = (math.tanh(z) for z in (found.value, found.low, found.high))
    p = mean_p(scores, samples.groups) if 0 in limits else found.p
    return replace(found, value=value, low=low, high=high, p=p)


def unpaired(statistic: str, first: Values, second: Values) -> Evidence:
    """Test that the mean of some samples is above that of others by exchanging groups and by Welch's t.

    Neither knows what the fewer groups of a skewed side do not show, so that n of them give no p below 2/2^n. Of 2,500
    simulated pairs of lognormal samples with equal means, the first three times as wide, 6.5 % have p < 0.05 and 0.8 %
    p < 0.0004 with 30 groups each; exchanging alone gave 10 % and 1.7 % of 300.
    """
    for side in (first, second):
        if lacking := too_few(statistic, side):
            return lacking
    parts = [parts_of_mean(side.numbers, side.groups) for side in (first, second)]
    ends, p = difference(*parts)
    value = float(first.numbers.mean() - second.numbers.mean())
    counts: dict[str, Any] = {
        "n": len(first.numbers) + len(second.numbers),
        "n_groups": first.n_groups + second.n_groups,
        "units": tuple(sorted({*first.units, *second.units})),
        "timed": first.timed,
    }
    p = max(p, permutation_p(*parts), 2.0 ** (1 - min(map(len, parts))))
    return Evidence(statistic, value, *ends, p, value > 0, abs(value), **counts)


def _inside(found: Evidence, p_at: Callable[[float], float], limits: _Limits) -> Evidence:
    """Test that a value lies between limits: both of them where it does, the one that it is beyond where not."""
    above, below = limits
    agrees = above < found.value < below
    crossed = limits if agrees else ((above,) if found.value <= above else (below,))
    finite = [limit for limit in crossed if math.isfinite(limit)]
    distance = min(abs(found.value - limit) for limit in finite)
    return replace(found, p=max(p_at(limit) for limit in finite), agrees=agrees, distance=distance)


def _fisher(correlation: Any) -> Any:
    """Return Fisher's z, whose spread is about the same everywhere; finite for a perfect correlation."""
    return np.arctanh(np.clip(correlation, -_PERFECT, _PERFECT))
