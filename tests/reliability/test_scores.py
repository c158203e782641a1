"""Scores: exact answers, scikit-learn and slow loops as oracles."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reliability_records import records
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    roc_auc_score,
)

from misure.evaluation.intervals import interval
from misure.reliability import (
    PROTOCOLS,
    OutOfFold,
    area_under_curve,
    cross_validate,
    roc_curve,
    score,
    scores,
    usable_samples,
)


def out_of_fold(n: int, folds: int, volumes: int, seed: int) -> OutOfFold:
    """Random probabilities with ties."""
    generator = np.random.default_rng(seed)
    return OutOfFold(
        generator.integers(0, 8, n) / 7,
        generator.integers(0, folds, n),
        generator.random(n) < 0.4,
        np.array([f"case{number}" for number in generator.integers(0, volumes, n)]),
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_separable_samples_score_perfectly(protocol: str) -> None:
    rows = records(48, 6)
    rows["perturbation_ratio"] = np.where(rows["truth_dice"] >= 0.9, 1.0, 1000.0)
    found = score(cross_validate(usable_samples(rows), protocol))
    for perfect in (found.accuracy, found.balanced_accuracy, found.auroc, found.auprc):
        assert (perfect.value, perfect.low, perfect.high) == (1.0, 1.0, 1.0)
    assert found.brier.value < 0.02  # the penalty keeps probabilities off 0 and 1


def test_features_without_information_score_chance_even_where_volumes_differ() -> None:
    ours, pooled = [], []
    for seed in range(16):
        out = cross_validate(usable_samples(records(80, 8, seed, signal=0, between=2)), "honest")
        ours.append(area_under_curve(out))
        pooled.append(roc_auc_score(out.reliable, out.probabilities))
    # Three standard errors of the mean over the data sets.
    assert abs(np.mean(ours) - 0.5) < 3 * np.std(ours) / math.sqrt(16)
    assert np.mean(pooled) < 0.4  # why probabilities of different folds are not compared


@given(n=st.integers(4, 40), seed=st.integers(0, 999))
def test_one_fold_scores_are_scikit_learn_s(n: int, seed: int) -> None:
    out = out_of_fold(n, 1, 5, seed)
    weights = np.random.default_rng(seed).integers(1, 4, n).astype(float)
    if out.reliable.all() or not out.reliable.any():
        assert math.isnan(scores.auroc(out, weights))
        assert math.isnan(scores.auprc(out, weights))
        return
    given_weights: dict[str, Any] = {"sample_weight": weights}
    expected = [
        roc_auc_score(out.reliable, out.probabilities, **given_weights),
        average_precision_score(out.reliable, out.probabilities, **given_weights),
    ]
    # Sums of fewer than 100 terms in another order.
    assert [scores.auroc(out, weights), scores.auprc(out, weights)] == pytest.approx(expected, abs=1e-12)
    found = score(out)
    named = out.probabilities >= 0.5
    assert found.accuracy.value == pytest.approx(accuracy_score(out.reliable, named), abs=1e-12)
    assert found.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(out.reliable, named), abs=1e-12)
    assert found.brier.value == pytest.approx(brier_score_loss(out.reliable, out.probabilities), abs=1e-12)
    assert found.auprc_chance == pytest.approx(out.reliable.mean(), abs=1e-12)


def pairs_won(out: OutOfFold) -> float:
    """AUROC over pairs in the same fold, pair by pair."""
    won = total = 0.0
    for i, j in itertools.product(range(len(out.reliable)), repeat=2):
        if out.folds[i] == out.folds[j] and out.reliable[i] and not out.reliable[j]:
            total += 1
            difference = out.probabilities[i] - out.probabilities[j]
            won += 1.0 if difference > 0 else 0.5 * (difference == 0)
    return won / total if total else math.nan


@given(n=st.integers(4, 30), folds=st.integers(1, 5), seed=st.integers(0, 999))
def test_auroc_counts_pairs_within_folds_and_is_the_area_of_the_curve(n: int, folds: int, seed: int) -> None:
    out = out_of_fold(n, folds, 5, seed)
    expected = pairs_won(out)
    assert area_under_curve(out) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    if math.isnan(expected):
        return
    false, true = roc_curve(out)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, pytest.approx(1, abs=1e-12))
    assert (np.diff(false) >= 0).all()
    assert (np.diff(true) >= -1e-12).all()  # rounding of weighted means
    assert np.trapezoid(true, false) == pytest.approx(expected, abs=1e-12)


def test_intervals_are_those_of_scores_without_each_volume() -> None:
    out = out_of_fold(30, 1, 5, 3)
    found = score(out)
    for estimate, measure in ((found.auroc, roc_auc_score), (found.brier, brier_score_loss)):
        kept = [out.groups != name for name in np.unique(out.groups)]
        without = np.array([measure(out.reliable[some], out.probabilities[some]) for some in kept])
        pseudo = estimate.value + (len(kept) - 1) * (without.mean() - without)
        assert [estimate.low, estimate.high] == pytest.approx(interval(pseudo, (0, 1)), abs=1e-12)


def test_three_volumes_have_no_interval() -> None:
    scored = score(cross_validate(usable_samples(records(60, 3)), "honest"))
    assert 0.5 < scored.auroc.value <= 1
    assert math.isnan(scored.auroc.low)
    assert math.isnan(scored.accuracy.high)
