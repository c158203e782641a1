"""Claims about MSR's parameters (5.4, 5.7): learning rate against lambda, and the size of the mask."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from misure.paper.claims.claim import Finding, Part
from misure.paper.claims.samples import SUFFICIENT, Method, Subject
from misure.paper.claims.significance import bootstrap_p, limits
from misure.paper.statistics import resampled_means

DICE_MARGIN = 0.02
"""What the step from lambda 0.001 to 0.01 may cost in Dice explained and still be the better balance: the paper calls
it that in Tables 2 to 5, where it costs 0.017 at most (TransUNet)."""

UNPRUNED = 0.95
"""A mask with at least this share of the sufficient region's pixels counts as not pruned."""

_RATES = (0.001, 0.01, 0.1)
_LAMBDAS = (0.001, 0.01, 0.1)
_SIZES = (56, 112, 224)
_DICE, _RATIO = "dice_explained", "perturbation_ratio"


def lr_lambda_findings(subject: Subject) -> Iterator[Finding]:
    """Test on one dataset and model which learning rate and lambda do best."""

    def finding(name: str, section: str, statement: str, *parts: Part) -> Finding:
        remake = f"table{subject.pair.lr_lambda_table}"
        return Finding(name, section, statement, subject.pair, parts, subject.origin, remake)

    best = {lam: cell(0.1, lam) for lam in _LAMBDAS}
    yield finding(
        "lr-best-ratio",
        "5.4.1",
        "Learning rate 0.1 has the lowest ratio, whatever lambda.",
        *(subject.higher(_RATIO, cell(lr, lam), best[lam]) for lam in _LAMBDAS for lr in _RATES[:2]),
    )
    yield finding(
        "lr-best-dice",
        "5.4.1",
        "Learning rate 0.1 has the best results, read for Dice explained: the highest at lambda 0.01.",
        *(subject.higher(_DICE, best[0.01], cell(lr, 0.01)) for lr in _RATES[:2]),
    )
    yield finding(
        "lambda-0.1-lowest-ratio",
        "5.4.1",
        "At learning rate 0.1, lambda 0.1 has the lowest ratio.",
        *(subject.higher(_RATIO, best[lam], best[0.1]) for lam in (0.001, 0.01)),
    )
    yield finding(
        "lambda-0.1-costs-dice",
        "5.4.1",
        "At learning rate 0.1, lambda 0.1 costs Dice explained.",
        *(subject.higher(_DICE, best[lam], best[0.1]) for lam in (0.001, 0.01)),
    )
    yield finding(
        "lambda-0.01-best-balance",
        "5.4.1",
        "At learning rate 0.1, lambda 0.01 is a better balance than 0.001: a lower ratio for at most "
        f"{DICE_MARGIN:g} less Dice explained (our reading of 'balance').",
        subject.higher(_RATIO, best[0.001], best[0.01]),
        subject.higher(_DICE, best[0.01], best[0.001], margin=DICE_MARGIN),
    )
    yield finding(
        "low-lr-prunes-nothing",
        "5.7",
        f"With a low learning rate (0.001) nothing seems pruned: the ratio is at least {UNPRUNED:g} of SR's.",
        subject.times_higher(_RATIO, cell(0.001, 0.01), SUFFICIENT, UNPRUNED),
    )


def mask_size_findings(subject: Subject) -> Iterator[Finding]:
    """Test on one dataset and model which mask size does best."""
    small, middle, large = (_sized(size) for size in _SIZES)

    def finding(name: str, section: str, statement: str, *parts: Part) -> Finding:
        return Finding(name, section, statement, subject.pair, parts, subject.origin, "table6")

    yield finding(
        "mask-224-lowest-ratio",
        "5.4.2",
        "Mask size 224 has the lowest ratio.",
        *(subject.higher(_RATIO, other, large) for other in (small, middle)),
    )
    yield finding(
        "mask-224-best-dice",
        "5.4.2",
        "Mask size 224 has the highest Dice explained.",
        *(subject.higher(_DICE, large, other) for other in (small, middle)),
    )
    yield finding(
        "mask-size-matters-for-ratio",
        "5.4.2",
        "The mask size matters more for the ratio than for Dice explained: from 224 to 56, its mean changes by the "
        "larger factor.",
        _factors(subject, small, large),
    )
    yield finding(
        "larger-masks-pruned-more",
        "5.7",
        "Larger masks are pruned more: the ratio falls from 56 to 112 and from 112 to 224.",
        subject.higher(_RATIO, small, middle),
        subject.higher(_RATIO, middle, large),
    )


def cell(lr: float, lam: float) -> Method:
    """Return MSR at a learning rate and lambda."""
    return Method("msr", None, {"lr": lr, "lam": lam}, f"MSR at learning rate {lr:g} and lambda {lam:g}")


def _sized(size: int) -> Method:
    return Method("msr", None, {"mask_size": size}, f"MSR with mask {size}")


def _factors(subject: Subject, small: Method, large: Method) -> Part:
    statistic = "difference in |log factor| between the ratio's and Dice explained's change, mask 56 against 224"
    metrics = [subject.table(metric, small, large) for metric in (_RATIO, _DICE)]
    samples = metrics[0][1]
    if part := samples.too_few(statistic):
        return part
    observed = [[np.array([side.mean()]) for side in columns] for columns, _ in metrics]
    resampled = [[resampled_means(side, samples.groups) for side in columns] for columns, _ in metrics]
    if any((side <= 0).any() for columns in (*observed, *resampled) for side in columns):
        return Part(statistic, missing=f"{statistic}: a mean is 0, which has no factor", **samples.counts())
    value, draws = (_log_factor(ratio) - _log_factor(dice) for ratio, dice in (observed, resampled))
    low, high = limits(draws)
    return Part(statistic, float(value[0]), low, high, bootstrap_p(draws), bool(value[0] > 0), **samples.counts())


def _log_factor(means: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    factor: NDArray[np.float64] = np.abs(np.log(means[0] / means[1]))
    return factor
