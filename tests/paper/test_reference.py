"""The reference's numbers beside one's own: exact columns, what is not compared, and how often agreement is missed."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from paper_records import COCO, TRIANGLE, frame, judged_organs, organ, photo, unit

from misure.explainers import EXPLAINERS
from misure.paper.material import Material
from misure.paper.published import DASH, PAIRS, Pair
from misure.paper.query import latest_run, of_pair, shown_pairs
from misure.paper.reference import AGREES, DIFFERS, PROFILE, agreement, mark_shared
from misure.paper.reliability import table7
from misure.paper.statistics import summarise
from misure.paper.tables.paper import lr_lambda, table1, table6


def materials(own: list, theirs: list) -> Material:
    """A run beside a reference that ships."""
    shipped = latest_run(frame(*theirs).assign(profile=PROFILE), PROFILE)
    run = mark_shared(latest_run(frame(*own), "quick"), shipped)
    reference = Material(shipped, PROFILE, Path("nowhere"), pd.DataFrame(), _with_records(shipped))
    return Material(run, "quick", Path("nowhere"), pd.DataFrame(), _with_records(run), reference=reference)


def _with_records(run: pd.DataFrame) -> list[Pair]:
    return [pair for pair in shown_pairs(run) if len(of_pair(run, pair))]


def msr(values: list[float], **columns) -> list:
    return [unit("msr", n, dice_explained=value, **columns) for n, value in enumerate(values)]


LATER = {"created": "2026-11-29T10:00:00+00:00"}


def test_the_interval_of_the_difference_is_put_together_from_those_shown():
    """By hand: the lower end of 0.5 - 0.4 is 0.1 less sqrt(0.03^2 + 0.04^2) = 0.05, the upper sqrt(0.05^2 + 0.12^2)."""
    assert agreement((0.5, 0.47, 0.55), (0.4, 0.28, 0.44)) == DIFFERS
    assert agreement((0.44, 0.41, 0.49), (0.4, 0.28, 0.44)) == AGREES
    assert agreement((0.4, 0.28, 0.44), (0.44, 0.41, 0.49)) == AGREES
    assert agreement((0.2, 0.15, 0.32), (0.32, 0.28, 0.37)) == AGREES
    assert agreement((1, 1, 1), (1 + 1e-9, 1 + 1e-9, 1 + 1e-9)) == AGREES
    assert agreement((1, 1, 1), (1.1, 1.1, 1.1)) == DIFFERS
    for hole in ((math.nan, 0, 1), (0.5, math.nan, math.nan)):
        assert agreement(hole, (0.5, 0.4, 0.6)) == agreement((0.5, 0.4, 0.6), hole) == DASH


@pytest.mark.parametrize(
    ("skewed", "shift", "least", "most"), [(True, 0.0, 0.92, 0.99), (False, 0.0, 0.92, 0.995), (False, 1.5, 0.0, 0.06)]
)
def test_how_often_runs_of_the_same_and_of_another_mean_agree(skewed, shift, least, most):
    """Of 12 and of 50 samples, seeded; numbers as skewed as ratios are (lognormal), or normal ones.

    4,000 pairs of runs agreed in 0.955 (lognormal), 0.962 (normal) and, 1.5 standard deviations apart, 0.019 of the
    cases; the bounds are about three standard errors of 300 pairs away.
    """
    generator = np.random.default_rng(0)

    def drawn(n: int) -> np.ndarray:
        values = generator.lognormal(sigma=0.8, size=n) if skewed else generator.normal(size=n)
        found = summarise(values)
        return np.array([found.mean, found.low, found.high])

    told = [agreement(drawn(12), drawn(50) + shift) == AGREES for _ in range(300)]
    assert least <= np.mean(told) <= most


def test_each_cell_has_the_reference_and_says_whether_it_agrees():
    own = [*msr([0.9, 0.8, 0.7], **LATER), unit("seg_grad_cam", 0, dice_explained=0.3, **LATER)]
    table = table1(materials(own, [*msr([0.8, 0.8, 0.8, 0.9]), *(unit("seg_grad_cam", n) for n in range(2))]))
    row = table.frame.set_index(["dataset", "method", "threshold"]).sort_index().loc[("Triangle", "MSR")].iloc[0]
    assert row["reference_dice_explained_mean"] == pytest.approx(0.825)
    assert row["reference_dice_explained_low"] == pytest.approx(summarise([0.8, 0.8, 0.8, 0.9], bounds=(0, 1)).low)
    assert row["dice_explained_mean"] == pytest.approx(0.8)
    assert (row["n_samples"], row["reference_n_samples"]) == (3, 4)
    assert row["dice_explained_agreement"] == row["perturbation_ratio_agreement"] == row["agreement"] == AGREES
    grad = table.frame[table.frame["method"].eq("Seg-Grad-CAM") & table.frame["dataset"].eq("Triangle")]
    assert set(grad["agreement"]) == {DASH}  # one sample has no interval
    headers = [column.header for column in table.columns]
    assert headers[4:7] == ["Dice explained, paper", "Dice explained, reference ↑", "Dice explained, yours ↑"]
    assert headers[-4:] == ["n, reference", "n, yours", "Beside the reference", "Remarks"]
    for text in (table.markdown(), table.html(), table.latex(), table.csv()):
        assert "0.825" in text
    (line,) = (line for line in table.markdown().splitlines() if line.startswith("| MSR ") and "0.825" in line)
    assert re.search(r"\| 0\.825 \[0\.\d+, 0\.\d+\] \| 0\.800 \[0\.\d+, (0|1)\.\d+\] \|", line)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"scale": 0.5}, "scale"),
        ({"stand_in": True}, "stand-in"),
        ({"substitution": "another"}, "network"),
        ({"created": "2026-11-20T10:00:00+00:00"}, "shared"),
        ({"dice_explained": 0.1}, "Dice differs, Perturbation agrees"),
    ],
)
def test_what_is_not_compared_says_why(changed, word):
    theirs = [rows for n in range(3) for rows in [unit("msr", n)]]
    scaled = EXPLAINERS["msr"].published().at_scale(0.5).parameters if "scale" in changed else {}
    own = [unit("msr", n, scaled, **(LATER | changed)) for n in range(3)]
    if word == "shared":
        own[0] = [row | {"unit": theirs[0][0]["unit"]} for row in own[0]]
    row = table1(materials(own, theirs)).frame.query("dataset == 'Triangle' and method == 'MSR'").iloc[0]
    assert row["n_samples"] == 3
    assert row["agreement"] == word


def test_fewer_masks_are_another_method():
    own = [unit("rise", n, {"n_masks": 200}, **LATER) for n in range(3)]
    table = table1(materials(own, [unit("rise", n) for n in range(3)]))
    assert set(table.frame.query("dataset == 'Triangle' and method == 'RISE'")["agreement"]) == {"masks"}


def test_another_network_of_ours_stands_for_the_same_of_the_paper():
    own = [photo("msr", n, "dog", {"lr": 0.01}, model="deeplabv3_resnet50", substitution="") for n in range(2)]
    beside = materials(own, [photo("msr", n, "dog", {"lr": 0.01}) for n in range(2)])
    (pair,) = (pair for pair in beside.pairs if pair.dataset == "coco")
    assert pair.model != COCO.model
    frame_ = lr_lambda(beside, pair).frame.set_index(["learning_rate", "lambda"])
    assert frame_.loc[(0.01, 0.01), "reference_n_samples"] == 2
    assert frame_.loc[(0.01, 0.01), "agreement"] == "network"
    assert frame_.loc[(0.1, 0.01), "agreement"] == DASH


def test_mask_sizes_and_reliability_are_compared_as_well():
    sizes = [unit("msr", n, {"mask_size": 56}, **LATER) for n in range(2)]
    table = table6(materials(sizes, [unit("msr", n, {"mask_size": 56}) for n in range(2)]))
    assert table.frame.set_index(["dataset", "mask_size"]).loc[("Triangle", 56), "agreement"] == AGREES
    pytest.importorskip("sklearn", reason="pip install 'misure[reliability]'")
    run = judged_organs({"Liver": 40})
    judged = Material(run, PROFILE, Path("nowhere"), pd.DataFrame(), PAIRS[1:2])
    shown = table7(replace(judged, profile="quick", reference=judged)).frame.set_index("organ")
    assert set(shown.loc["Liver", "reference_n"]) == {40}
    assert (shown.loc["Liver", "reference_auroc"] == shown.loc["Liver", "auroc"]).all()
    assert set(shown.loc["Liver", "agreement"]) == {AGREES}


def test_without_a_reference_a_table_stays_as_it_is():
    alone = replace(materials(msr([0.9, 0.8]), msr([0.9, 0.8])), reference=None)
    table = lr_lambda(alone, TRIANGLE)
    assert [column.title for column in table.columns][3] == "Dice explained, ours"
    assert "agreement" not in table.frame


def test_organs_of_a_stand_in_are_compared_with_those_of_a_stand_in():
    own, theirs = ([organ("msr", n, "Liver", **made) for n in range(3)] for made in (LATER, {}))
    table = table1(materials(own, theirs))
    row = table.frame.query("dataset == 'Synapse' and model == 'U-Net' and method == 'MSR'").iloc[0]
    assert row["agreement"] == AGREES
