"""The paper's contradictions: where they are, from its printed numbers alone, and ours beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from paper_records import run_of, unit

from misure.paper.claims import inconsistencies
from misure.paper.material import Material
from misure.paper.published import Pair, lr_lambda_reference, reference, table1_reference, table6_reference
from misure.paper.query import shown_pairs

N = 6


@pytest.fixture(scope="module")
def listed() -> pd.DataFrame:
    units = []
    for sample in range(N):
        units.append(unit("msr", sample, perturbation_ratio=0.5 + sample / 1000))
        units.append(unit("rise", sample, perturbation_ratio=6 + sample / 1000))
    run = run_of(*units)
    return inconsistencies(Material(run, "quick", Path("nowhere"), pd.DataFrame(), shown_pairs(run)))


PAIRS = shown_pairs(run_of())


def _of(listed: pd.DataFrame, pair: Pair, name: str) -> pd.DataFrame:
    here = listed["dataset"].eq(pair.dataset_label) & listed["model"].eq(pair.model_label)
    return listed[here & listed["id"].eq(name)]


def test_the_papers_numbers_beside_ours(listed: pd.DataFrame) -> None:
    ratio = _of(listed, PAIRS[0], "order-of-magnitude")
    assert ratio["paper"].tolist() == [0.63, 5.83]
    np.testing.assert_allclose(ratio["ours"], [0.5 + (N - 1) / 2000, 6 + (N - 1) / 2000])
    assert ratio["n"].tolist() == [N, N]
    assert not listed["ours"][listed["dataset"] != "Triangle"].notna().any()


@pytest.mark.parametrize("pair", PAIRS, ids=[pair.label for pair in PAIRS])
def test_a_contradiction_is_listed_where_the_printed_numbers_have_it(listed: pd.DataFrame, pair: Pair) -> None:
    table, msr = table1_reference(pair), table1_reference(pair)["MSR", None]
    rates = {lr: value.dice_explained for (lam, lr), value in lr_lambda_reference(pair).items() if lam == 0.01}
    sizes = {size: value.dice_explained for size, value in table6_reference(pair).items()}
    others = {key: value for key, value in table.items() if key != ("MSR", None)}
    dice = sorted(table, key=lambda key: -table[key].dice_explained)
    near = {
        f"{name} at {threshold:g} ({value.perturbation_ratio / msr.perturbation_ratio:.1f} times)"
        for (name, threshold), value in others.items()
        if value.perturbation_ratio < 10 * msr.perturbation_ratio
    }
    kept = {cell: value.perturbation_ratio for cell, value in lr_lambda_reference(pair).items()}
    unpruned = kept[0.001, 0.001]
    there = {
        "low-lambda": kept[0.001, 0.1] < 0.95 * unpruned and abs(kept[0.001, 0.1] / unpruned - 0.1) < 0.01,
        "high-values": kept[0.1, 0.1] > 0.1 * unpruned,
        "best-learning-rate": max(rates, key=rates.get) != 0.1,
        "best-mask-size": max(sizes, key=sizes.get) != 224,
        "second-in-dice": dice[:2] != [("RISE", 0.2), ("MSR", None)],
        "order-of-magnitude": bool(near),
    }
    assert {name: len(_of(listed, pair, name)) > 0 for name in there} == there
    if near:
        text = _of(listed, pair, "order-of-magnitude")["contradiction"].iloc[0]
        assert all(words in text for words in near)


def test_the_organ_whose_accuracy_says_least(listed: pd.DataFrame) -> None:
    name, _, accuracy, area = max(reference()["table7"], key=lambda row: row[2] - row[3])
    rows = listed[listed["id"] == "accuracy-alone"]
    assert rows["model"].tolist() == ["U-Net", "TransUNet"]
    assert f"{name} accuracy {accuracy} with AUC {area}" in rows["contradiction"].iloc[0]
    assert rows["quantity"].str.startswith(name).all()
