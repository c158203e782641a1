"""Scores of out-of-fold probabilities, with intervals over volumes.

Measures take weights, N or draws x N, and return one value or one per draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from misure.errors import MisureError
from misure.evaluation.intervals import interval, pseudo_values
from misure.reliability.validation import OutOfFold
from misure.validation import check_arguments

MINIMUM_VOLUMES = 4
"""Scores are no means: of fewer volumes, one left out changes them too much to tell their spread."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A score with its interval.

    Attributes:
        value: NaN where it is undefined.
        low: Lower end of the 95 % interval over volumes; NaN where there is none.
        high: Upper end of it.
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class Scores:
    """How well probabilities tell reliable from unreliable predictions.

    AUROC and AUPRC compare samples of the same test fold only, that is, probabilities of one classifier. Pooling
    folds would compare classifiers with each other: holding out volumes with many reliable samples lowers the
    probabilities given to them, so that features without any information score far below chance.

    Attributes:
        accuracy: Share judged rightly, at probability 0.5; to be read against the majority class's share.
        balanced_accuracy: Mean of the shares among the reliable and among the unreliable; chance is 0.5.
        auroc: Share of (reliable, unreliable) pairs in the same fold that are ranked rightly; chance is 0.5.
        auprc: Average precision, reliable being the positive label: mean over folds with both labels,
            weighted by their reliable samples.
        brier: Mean squared error of the probability, lower is better; a constant prediction of the
            prevalence p scores p (1 - p).
        auprc_chance: AUPRC of a constant probability.
    """

    accuracy: Estimate
    balanced_accuracy: Estimate
    auroc: Estimate
    auprc: Estimate
    brier: Estimate
    auprc_chance: float


UNDEFINED = Scores(*(Estimate(float("nan")),) * 5, float("nan"))
"""The scores where nothing could be fitted."""


def score(out: OutOfFold) -> Scores:
    """Score out-of-fold probabilities.

    Args:
        out: As :func:`misure.reliability.cross_validate` returns it.

    Returns:
        Scores over all samples; all NaN where ``out`` is undefined. Intervals leave out volumes one by one
        (:mod:`misure.evaluation.intervals`), without fitting the classifiers again. They need four volumes, and a score
        that is defined without any one of them.
    """
    check_arguments(score, locals())
    if out.reason:
        return UNDEFINED
    once = np.ones(len(out.reliable))

    def estimate(measure: Callable[[OutOfFold, _Floats], _Floats]) -> Estimate:
        return Estimate(float(measure(out, once)), *_interval(measure, out))

    constant = replace(out, probabilities=np.zeros(len(out.reliable)))
    return Scores(
        estimate(_accuracy),
        estimate(_balanced_accuracy),
        estimate(auroc),
        estimate(auprc),
        estimate(_brier),
        float(auprc(constant, once)),
    )


def area_under_curve(out: OutOfFold) -> float:
    """Return :class:`Scores`' AUROC without its interval; NaN where it is undefined."""
    check_arguments(area_under_curve, locals())
    return float("nan") if out.reason else float(auroc(out, np.ones(len(out.reliable))))


def auroc(out: OutOfFold, weights: _Floats) -> _Floats:
    """Return the area under the ROC curve over pairs within folds, ties counting half; NaN without such pairs."""
    won = pairs = np.zeros(weights.shape[:-1])
    for positive, negative in _by_fold(out, weights):
        above = negative.sum(axis=-1, keepdims=True) - negative.cumsum(axis=-1)
        won = won + (positive * (above + negative / 2)).sum(axis=-1)
        pairs = pairs + positive.sum(axis=-1) * negative.sum(axis=-1)
    return _ratio(won, pairs)


def auprc(out: OutOfFold, weights: _Floats) -> _Floats:
    """Return the average precision, the mean of folds with both labels; NaN without such folds."""
    precisions = reliable = np.zeros(weights.shape[:-1])
    for positive, negative in _by_fold(out, weights):
        accepted = positive.cumsum(axis=-1)
        precision = np.nan_to_num(_ratio(accepted, accepted + negative.cumsum(axis=-1)))
        both = (positive.sum(axis=-1) > 0) & (negative.sum(axis=-1) > 0)
        precisions = precisions + both * (positive * precision).sum(axis=-1)
        reliable = reliable + both * positive.sum(axis=-1)
    return _ratio(precisions, reliable)


def roc_curve(out: OutOfFold) -> tuple[_Floats, _Floats]:
    """Return the ROC curve whose area is :func:`auroc`: the mean of the folds' curves, weighted by their pairs.

    Args:
        out: Defined, with both labels in at least one fold.

    Returns:
        False and true positive rates from (0, 0) to (1, 1); a vertical step is two points.

    Raises:
        MisureError: If no fold has both labels.
    """
    check_arguments(roc_curve, locals())
    curves, pairs = [], []
    for positive, negative in _by_fold(out, np.ones(len(out.reliable))):
        if positive.sum() and negative.sum():
            curves.append([np.concatenate([[0.0], side.cumsum() / side.sum()]) for side in (negative, positive)])
            pairs.append(positive.sum() * negative.sum())
    if not curves:
        raise MisureError(f"there is no ROC curve: {out.reason or 'no fold tests both labels'}")
    rates = np.unique(np.concatenate([false for false, _ in curves]))
    limits = [_either_side(rates, false, true) for false, true in curves]
    return np.repeat(rates, 2), np.average(np.stack(limits), axis=0, weights=pairs)


def _either_side(at: _Floats, false: _Floats, true: _Floats) -> _Floats:
    """Return a curve's value just before and just after each rate, twice as many as rates."""
    before, after = np.interp(at, false, true), np.interp(at, false, true)
    first, last = np.searchsorted(false, at, side="left"), np.searchsorted(false, at, side="right") - 1
    on_point = false[first] == at
    before[on_point], after[on_point] = true[first[on_point]], true[last[on_point]]
    return np.stack([before, after], axis=1).ravel()


def _accuracy(out: OutOfFold, weights: _Floats) -> _Floats:
    right = (out.probabilities >= 0.5) == out.reliable
    return _ratio((weights * right).sum(axis=-1), weights.sum(axis=-1))


def _balanced_accuracy(out: OutOfFold, weights: _Floats) -> _Floats:
    return (_accuracy(out, weights * out.reliable) + _accuracy(out, weights * ~out.reliable)) / 2


def _brier(out: OutOfFold, weights: _Floats) -> _Floats:
    return _ratio((weights * (out.probabilities - out.reliable) ** 2).sum(axis=-1), weights.sum(axis=-1))


def _by_fold(out: OutOfFold, weights: _Floats) -> Iterator[tuple[_Floats, _Floats]]:
    """Yield per fold the weights of reliable and of unreliable samples per distinct probability, descending."""
    for number in np.unique(out.folds):
        chosen = np.flatnonzero(out.folds == number)
        chosen = chosen[np.argsort(-out.probabilities[chosen], kind="stable")]
        _, starts = np.unique(-out.probabilities[chosen], return_index=True)
        labels = out.reliable[chosen]
        positive, negative = (np.add.reduceat(weights[..., chosen] * s, starts, axis=-1) for s in (labels, ~labels))
        yield positive, negative


def _ratio(numerator: _Floats, denominator: _Floats) -> _Floats:
    defined = denominator > 0
    return np.where(defined, numerator / np.where(defined, denominator, 1), np.nan)


def _interval(measure: Callable[[OutOfFold, _Floats], _Floats], out: OutOfFold) -> tuple[float, float]:
    if len(np.unique(out.groups)) < MINIMUM_VOLUMES:
        return float("nan"), float("nan")
    return interval(pseudo_values(lambda weights: measure(out, weights), out.groups), (0.0, 1.0))
