"""The classifier: scikit-learn's own answers, a JSON that survives, new explanations, and refusals."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.toys import Shifts
from reliability_records import records
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import misure
from misure.errors import MisureError
from misure.reliability import FEATURES, NotFitted, ReliabilityModel, fit


def toy(n: int, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """Features and labels of samples whose ratio grows as their quality falls."""
    rows = records(n, max(1, n // 4), seed)
    return rows[list(FEATURES)], rows["truth_dice"] >= 0.9


def fitted(n: int = 60, seed: int = 0) -> ReliabilityModel:
    rows, reliable = toy(n, seed)
    model = fit(rows, reliable, class_name="Liver", source="a test")
    assert isinstance(model, ReliabilityModel)
    return model


def sklearn_pipeline(rows: pd.DataFrame, reliable: pd.Series) -> Any:
    """The same classifier written with scikit-learn alone, the logarithm inside."""

    def log_ratio(values: np.ndarray) -> np.ndarray:
        return np.column_stack([values[:, :2], np.log1p(values[:, 2])])

    steps = FunctionTransformer(log_ratio), StandardScaler(), LogisticRegression(max_iter=1000)
    return make_pipeline(*steps).fit(rows[list(FEATURES)].to_numpy(float), reliable.to_numpy())


@given(n=st.integers(20, 80), seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_probabilities_are_scikit_learn_s(n: int, seed: int) -> None:
    rows, reliable = toy(n, seed)
    model = fit(rows, reliable, class_name="Liver")
    if isinstance(model, NotFitted):
        assert min(reliable.sum(), (~reliable).sum()) < 5
        return
    new = toy(30, seed + 1)[0]
    expected = sklearn_pipeline(rows, reliable).predict_proba(new.to_numpy(float))[:, 1]
    # The same float64 arithmetic in another order.
    np.testing.assert_allclose(model.probabilities(new), expected, rtol=0, atol=1e-12)
    assert model.prevalence == reliable.mean()


def test_constant_and_far_away_features_are_harmless() -> None:
    rows, reliable = toy(40)
    model = fit(rows.assign(n_dilations=0), reliable, class_name="Liver")
    assert (model.scales[0], model.coefficients[0]) == (1.0, 0.0)
    far = replace(fitted(), coefficients=(-1e6, 0.0, 0.0))
    assert far.probabilities(toy(2)[0].assign(n_dilations=[0, 10_000])).tolist() == [1.0, 0.0], "no overflow"


def explanation(method: str = "msr", **parameters: Any) -> misure.Explanation:
    image = torch.zeros(1, 12, 12)
    image[:, 4:8, 4:8] = 1
    return misure.explain(Shifts(1), image.double(), target=1, method=method, **parameters)


def test_a_new_explanation_is_judged_by_its_three_features() -> None:
    model, explained = fitted(), explanation(n_iterations=3, mask_size=8)
    found = model.predict(explained)
    assert found.features == {name: getattr(explained, name) for name in FEATURES}
    rows = pd.DataFrame([found.features])
    expected = sklearn_pipeline(*toy(60)).predict_proba(rows.to_numpy())[0, 1]
    assert found.probability == pytest.approx(expected, abs=1e-12)  # float64 in another order
    for method in ("sufficient_region", "prediction"):
        with pytest.raises(MisureError, match=rf'by {method} lacks .*explain with method="msr"$'):
            model.predict(explanation(method))


def test_a_saved_model_is_the_same_model(tmp_path: Path) -> None:
    model = fitted()
    path = model.save(tmp_path / "new" / "liver.json")
    assert ReliabilityModel.load(path) == model
    assert [entry.name for entry in path.parent.iterdir()] == ["liver.json"]
    assert set(model.versions) == {"misure", "scikit-learn", "numpy"}


def _without(raw: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if key != name}


def _other(**values: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda raw: json.dumps(raw | values).encode()


DAMAGE = {
    "no object": (lambda raw: json.dumps([raw]).encode(), "not a JSON object"),
    "missing": (lambda raw: json.dumps(_without(raw, "means")).encode(), "lacks or has in excess: means"),
    "no version": (lambda raw: json.dumps(_without(raw, "format_version")).encode(), "format None"),
    "newer": (_other(format_version=2), "format 2, this version reads 1"),
    "in excess": (_other(extra=1), "in excess: extra"),
    "truncated": (lambda raw: json.dumps(raw).encode()[:100], "cannot be read"),
    "binary": (lambda raw: b"\xff\xfe\x00", "cannot be read"),
    "other features": (_other(features=["size"]), "unusable: features"),
    "short": (_other(means=[1.0, 2.0]), "unusable: means"),
    "text": (_other(coefficients=["1", 2, 3]), "unusable: coefficients"),
    "infinite": (_other(intercept=math.inf), "unusable: intercept"),
    "boolean": (_other(prevalence=True), "unusable: prevalence=True"),
    "no samples": (_other(n=0), "unusable: n=0"),
    "beyond any float": (_other(intercept=10**400), "unusable: intercept=1000"),
    "no number": (_other(means=[math.nan, 1.0, 2.0]), "unusable: means=nan"),
    "deep": (lambda raw: b"[" * 100_000, "cannot be read"),
    "nested": (_other(coefficients=[[1.0], 2.0, 3.0]), r"unusable: coefficients=\[1.0\]"),
    "a text": (_other(scales="1,2,3"), "unusable: scales=1,2,3 is not a list"),
    "zero scale": (_other(scales=[1.0, 0.0, 1.0]), "unusable: scales"),
    "no texts": (_other(class_name=None), "unusable: class_name=None"),
    "versions": (_other(versions={"numpy": 2}), "unusable: versions=2"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    change, reason = DAMAGE[damage]
    path = fitted().save(tmp_path / "liver.json")
    path.write_bytes(change(json.loads(path.read_text())))
    with pytest.raises(MisureError, match=reason) as caught:
        ReliabilityModel.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(MisureError, match=r"there is no reliability model nowhere\.json"):
        ReliabilityModel.load("nowhere.json")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([], "no samples"),
        ([True] * 12, "all 12 reliable; too few samples: 12 of at least 20"),
        ([True] * 30, "all 30 reliable"),
        ([False] * 30, "none of 30 reliable"),
        ([True, False, True], "too few samples: 3 of at least 20"),
        ([True] * 4 + [False] * 30, "too few reliable samples: 4 of at least 5"),
        ([True] * 30 + [False], "too few unreliable samples: 1 of at least 5"),
        ([True] * 5 + [False] * 15, ""),
    ],
)
def test_too_little_to_fit_says_so(labels: list[bool], reason: str) -> None:
    found = fit(toy(len(labels))[0], pd.Series(labels, dtype=bool), class_name="Aorta")
    assert isinstance(found, NotFitted if reason else ReliabilityModel)
    assert (found.class_name, getattr(found, "reason", ""), found.n) == ("Aorta", reason, len(labels))
    assert found.prevalence == pytest.approx(np.mean(labels) if labels else math.nan, nan_ok=True)


def test_unusable_input_is_named() -> None:
    rows, reliable = toy(30)
    with pytest.raises(MisureError, match="lack the columns dice_explained"):
        fit(rows.drop(columns="dice_explained"), reliable, class_name="Liver")
    for bad in (math.nan, math.inf, -1.0):
        with pytest.raises(MisureError, match="1 of 30 samples have no usable perturbation_ratio"):
            fit(rows.assign(perturbation_ratio=[bad] + [1.0] * 29), reliable, class_name="Liver")
    with pytest.raises(MisureError, match="30 samples but 29 labels"):
        fit(rows, reliable[1:], class_name="Liver")
    with pytest.raises(MisureError, match="have 2 columns n_dilations: keep one"):
        fit(pd.concat([rows, rows[["n_dilations"]]], axis=1), reliable, class_name="Liver")
    for bad in ([1.0], {}, 10**400, 1j, b"1", pd.NaT):
        with pytest.raises(MisureError, match="1 of 30 samples have no usable n_dilations"):
            fit(rows.assign(n_dilations=pd.Series([bad] + [1] * 29, dtype=object)), reliable, class_name="Liver")


@pytest.mark.parametrize(
    "read",
    [
        str,
        lambda label: str(label).lower(),
        int,
        float,
        np.bool_,
        torch.tensor,
    ],
    ids=["words", "small words", "numbers", "floats", "NumPy", "PyTorch"],
)
@pytest.mark.parametrize("held", [list, np.array, pd.Series, lambda labels: pd.Series(labels, dtype=object)])
def test_labels_of_every_kind_mean_the_same(read: Callable[[bool], Any], held: Callable[[list[Any]], Any]) -> None:
    rows, reliable = toy(30)
    found = fit(rows, held([read(bool(label)) for label in reliable]), class_name="Liver")
    assert found == fit(rows, reliable, class_name="Liver")


@pytest.mark.parametrize("label", [None, math.nan, pd.NA, "0", "no", "", 2, -1, 0.95, b"true", [True]], ids=repr)
def test_a_label_that_is_none_is_named_with_its_row(label: Any) -> None:
    """They all counted as reliable: what is not empty is true."""
    rows, reliable = toy(30)
    labels = reliable.astype(object).tolist()
    labels[7] = label
    with pytest.raises(MisureError, match=r"^the label of row 7 is .*: give True or False") as caught:
        fit(rows, pd.Series(labels, dtype=object), class_name="Liver")
    assert str(label) in str(caught.value)


def test_without_scikit_learn_a_saved_model_still_predicts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = fitted().save(tmp_path / "liver.json")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MisureError, match=r"pip install \"misure\[reliability\]\""):
        fitted()
    assert len(ReliabilityModel.load(path).probabilities(toy(3)[0])) == 3
