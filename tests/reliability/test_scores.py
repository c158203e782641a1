"""Cross-validation and scores: folds, exact answers, scikit-learn and slow loops as oracles."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    roc_auc_score,
)
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from misure.errors import MisureError
from misure.reliability import (
    FEATURE_SETS,
    PROTOCOLS,
    OutOfFold,
    Samples,
    area_under_curve,
    cross_validate,
    roc_curve,
    score,
    scores,
    usable_samples,
)
from misure.reliability.validation import fold_numbers


def records(n: int, volumes: int, seed: int = 0, *, signal: float = 1.0, between: float = 0.0) -> pd.DataFrame:
    """Samples whose ratio tells their quality by ``signal``; ``between`` is how much volumes differ in quality."""
    generator = np.random.default_rng(seed)
    volume = np.arange(n) % volumes
    quality = between * generator.normal(size=volumes)[volume] + generator.normal(size=n)
    return pd.DataFrame(
        {
            "n_dilations": generator.integers(0, 20, n),
            "dice_explained": 0.93 + 0.02 * generator.normal(size=n),
            "perturbation_ratio": np.exp(generator.normal(size=n) - signal * quality),
            "prediction_size": generator.integers(5, 5000, n),
            "confidence": generator.uniform(0.5, 1, n),
            "truth_dice": np.where(quality > 0, 0.95, 0.5),
            "group": [f"case{number:04d}" for number in volume],
        }
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


@given(
    labels=st.lists(st.booleans(), min_size=20, max_size=60).filter(lambda found: 5 <= sum(found) <= len(found) - 5),
    volumes=st.integers(2, 12),
    seed=st.integers(0, 99),
)
def test_folds_hold_whole_volumes(labels: list[bool], volumes: int, seed: int) -> None:
    groups = np.array([f"case{number}" for number in np.random.default_rng(seed).integers(0, volumes, len(labels))])
    n_volumes = len(set(groups))
    if n_volumes < 2:
        return
    folds = fold_numbers(np.array(labels), groups, "honest", seed)
    assert 2 <= len(set(folds)) <= min(5, n_volumes)
    assert ((folds >= 0) & (folds < 5)).all()
    assert all(len(set(folds[groups == name])) == 1 for name in set(groups))
    assert (folds == fold_numbers(np.array(labels), groups, "honest", seed)).all()


def test_the_paper_s_folds_share_volumes_and_test_both_labels() -> None:
    samples = usable_samples(records(40, 4))
    folds = fold_numbers(samples.reliable, samples.groups, "paper")
    assert all(samples.reliable[folds == number].any() for number in range(5))
    assert not any(samples.reliable[folds == number].all() for number in range(5))
    assert any(len(set(folds[samples.groups == name])) > 1 for name in set(samples.groups))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_feature_sets_share_their_folds(protocol: str) -> None:
    samples = usable_samples(records(40, 6))
    folds = [cross_validate(samples, protocol, columns).folds.tolist() for columns in FEATURE_SETS.values()]
    assert folds == folds[:1] * 3


def test_out_of_fold_probabilities_are_scikit_learn_s() -> None:
    rows = records(60, 6)
    samples = usable_samples(rows)
    inputs = np.column_stack([rows["n_dilations"], rows["dice_explained"], np.log1p(rows["perturbation_ratio"])])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    splitter = StratifiedKFold(5, shuffle=True, random_state=0)
    expected = cross_val_predict(classifier, inputs, samples.reliable, cv=splitter, method="predict_proba")[:, 1]
    # The same fits; 1e-12 allows for another memory layout.
    np.testing.assert_allclose(cross_validate(samples, "paper").probabilities, expected, rtol=0, atol=1e-12)


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


def test_intervals_are_those_of_copied_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "N_RESAMPLES", 40)
    out = out_of_fold(30, 1, 5, 3)
    names = np.unique(out.groups)
    draws = np.random.default_rng(7).multinomial(len(names), np.full(len(names), 1 / len(names)), size=40)
    areas, briers = [], []
    for counts in draws:
        copies = [
            i for name, count in zip(names, counts, strict=True) for i in [*np.flatnonzero(out.groups == name)] * count
        ]
        areas.append(roc_auc_score(out.reliable[copies], out.probabilities[copies]))
        briers.append(brier_score_loss(out.reliable[copies], out.probabilities[copies]))
    found = score(out, seed=7)
    for estimate, values in ((found.auroc, areas), (found.brier, briers)):
        assert [estimate.low, estimate.high] == pytest.approx(np.quantile(values, (0.025, 0.975)), abs=1e-12)


def test_intervals_need_four_volumes_and_depend_on_the_seed() -> None:
    few, more = (cross_validate(usable_samples(records(60, volumes)), "honest") for volumes in (3, 4))
    scored = score(few)
    assert 0.5 < scored.auroc.value <= 1
    assert math.isnan(scored.auroc.low)
    assert math.isnan(scored.accuracy.high)
    assert score(more) == score(more) != score(more, seed=1)


def one_sided(volumes: dict[str, list[bool]]) -> Samples:
    """Volumes with given labels."""
    labels = [(name, label) for name, found in volumes.items() for label in found]
    rows = records(len(labels), 2).assign(
        group=[name for name, _ in labels], truth_dice=[0.95 if label else 0.5 for _, label in labels]
    )
    return usable_samples(rows)


def test_a_fold_with_one_training_label_predicts_its_prevalence() -> None:
    out = cross_validate(one_sided({"a": [True] * 12, "b": [True, False] * 6}), "honest")
    assert out.reason == ""
    assert (out.probabilities[out.groups == "b"] == 1).all()
    assert ((out.probabilities > 0) & (out.probabilities < 1))[out.groups == "a"].all()
    assert out.notes[:2] == ("2 folds", "training samples of one label in 1 of 2 folds: their prevalence predicted")
    assert score(out).auroc.value == 0.5  # fold b is one tie, and fold a has no pairs


def test_volumes_of_one_label_each_give_no_number() -> None:
    two = cross_validate(one_sided({"a": [True] * 12, "b": [False] * 12}), "honest")
    assert two.reason == "both labels never occur together outside a fold"
    assert np.isnan(two.probabilities).all()
    three = cross_validate(one_sided({"a": [True] * 9, "b": [False] * 9, "c": [True] * 9}), "honest")
    assert "no AUROC and AUPRC: no fold tests both labels" in three.notes
    assert math.isnan(score(three).auroc.value)
    assert 0 <= score(three).accuracy.value <= 1


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (records(3, 3), "too few samples: 3 of at least 20"),
        (records(30, 3).assign(truth_dice=0.95), "all 30 reliable"),
        (records(30, 1), "1 volume: at least 2 are needed to hold one out"),
        (records(0, 1), "no samples"),
    ],
)
def test_too_little_gives_a_reason_and_nan(rows: pd.DataFrame, reason: str) -> None:
    out = cross_validate(usable_samples(rows), "honest")
    assert out.reason == reason
    assert len(out.probabilities) == len(rows)
    assert np.isnan(out.probabilities).all()
    assert all(math.isnan(estimate.value) for estimate in (score(out).accuracy, score(out).auroc, score(out).brier))


def test_samples_with_holes_are_left_out_and_counted() -> None:
    rows = records(40, 4)
    rows.loc[0, "truth_dice"] = math.nan
    rows.loc[1, "perturbation_ratio"] = math.inf
    rows.loc[2, "group"] = None
    rows.loc[3, "confidence"] = math.nan
    samples = usable_samples(rows)
    assert (len(samples.rows), samples.n_left_out) == (37, 3)
    assert samples.reliable.tolist() == (rows["truth_dice"][3:] >= 0.9).tolist()
    out = cross_validate(samples, "honest", FEATURE_SETS["confidence"])
    assert out.reason == "confidence known for 36 of 37 samples"
    assert cross_validate(samples, "honest").reason == ""
    assert samples.majority_accuracy == max(samples.prevalence, 1 - samples.prevalence)
    without = usable_samples(rows.drop(columns="confidence"))
    assert "confidence known for 0" in cross_validate(without, "honest", FEATURE_SETS["confidence"]).reason


def test_the_threshold_is_reached_not_crossed() -> None:
    rows = records(3, 1).assign(truth_dice=[0.9, 0.8999, 0.7])
    assert [usable_samples(rows, at).reliable.tolist() for at in (0.9, 0.7)] == [[True, False, False], [True] * 3]


def test_errors_name_what_is_missing() -> None:
    with pytest.raises(MisureError, match="lack the columns truth_dice, group"):
        usable_samples(records(3, 1).drop(columns=["truth_dice", "group"]))
    with pytest.raises(MisureError, match="no protocol 'honset'; close names: honest"):
        cross_validate(usable_samples(records(40, 4)), "honset")
