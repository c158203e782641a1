"""Cross-validation: folds of whole volumes, scikit-learn's probabilities, and reasons where there are none."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reliability_records import records
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from misure.errors import MisureError
from misure.reliability import FEATURE_SETS, PROTOCOLS, Samples, cross_validate, score, usable_samples
from misure.reliability.validation import fold_numbers


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


@pytest.mark.parametrize("truth", [7.0, -0.1, math.nan, math.inf, None, "high"])
def test_a_record_whose_dice_is_none_is_left_out_and_counted(truth: object) -> None:
    rows = records(30, 6).astype({"truth_dice": object})
    rows.loc[3, "truth_dice"] = truth
    samples = usable_samples(rows)
    assert (len(samples.rows), samples.n_left_out) == (29, 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"threshold": "0.9"}, "threshold=0.9 is not a number from 0 to 1"), ({"threshold": math.nan}, "threshold=nan")],
)
def test_a_threshold_is_a_share(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(MisureError, match=message):
        usable_samples(records(30, 6), **wrong)
