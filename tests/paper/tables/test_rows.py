"""Tables 1 to 4 and 6: the paper's numbers beside ours, gaps that stay visible, hand-computed answers."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from paper_records import ORGANS, TRANSUNET, TRIANGLE, UNET, frame, organ, run_of, unit

from misure.paper.published import PAIRS, Pair, table1_reference
from misure.paper.query import latest_run, shown_pairs
from misure.paper.tables.console import console_table
from misure.paper.tables.rows import NOT_RUN, class_rows, lr_lambda_rows, mask_size_rows, method_rows


@pytest.fixture
def run() -> pd.DataFrame:
    """Three MSR samples and a skipped one, two RISE samples with few masks, one MSR at another rate."""
    return run_of(
        unit("msr", 0, dice_explained=0.90, perturbation_ratio=0.4, seconds=1.0),
        unit("msr", 1, dice_explained=0.92, perturbation_ratio=0.5, seconds=2.0),
        unit("msr", 2, dice_explained=1.00, perturbation_ratio=0.9, seconds=6.0),
        unit("msr", 3, status="skipped", reason="class 1 was not predicted"),
        unit("rise", 0, {"n_masks": 300}, dice_explained=0.5, precision="bf16"),
        unit("rise", 1, {"n_masks": 300}, dice_explained=0.7, precision="bf16"),
        unit("msr", 0, {"lr": 0.001, "lam": 0.1}, dice_explained=0.99),
        unit("msr", 0, {"mask_size": 56}, dice_explained=0.93),
        unit("msr", 0, {"mask_size": 112}, status="failed", reason="out of memory"),
        unit("msr", 9, profile="paper", dice_explained=0.0),
        unit("msr", 9, weights="e" * 16, created="2020-01-01T00:00:00+00:00", dice_explained=0.0),
    )


def _row(table: pd.DataFrame, **where: Any) -> pd.Series:
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_table1_by_hand(run: pd.DataFrame) -> None:
    row = _row(method_rows(run), dataset="Triangle", method="MSR")
    assert row["dice_explained_mean"] == pytest.approx(0.94, abs=1e-12)
    assert row["dice_explained_median"] == 0.92
    assert 0.5 < row["dice_explained_low"] < 0.94 < row["dice_explained_high"] == 1, "a Dice is at most 1"
    assert row["perturbation_ratio_mean"] == pytest.approx(0.6, abs=1e-12)
    assert row["seconds_mean"] == 3.0
    assert (row["n_samples"], row["n_skipped"], row["n_failed"]) == (3, 1, 0)
    assert (row["paper_dice_explained"], row["paper_perturbation_ratio"], row["paper_seconds"]) == (0.965, 0.63, 3.38)
    assert row["note"] == ""


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.label)
def test_table1_has_every_row_of_the_paper_and_the_baselines(run: pd.DataFrame, pair: Pair) -> None:
    table = method_rows(run)
    mine = table[(table["dataset"] == pair.dataset_label) & (table["model"] == pair.model_label)]
    rows = [(m, None if math.isnan(t) else t) for m, t in mine[["method", "threshold"]].to_numpy()]
    assert rows[: len(table1_reference(pair))] == list(table1_reference(pair))
    assert rows[5:] == [("SR", None), ("Prediction itself", None), ("Random map", 0.2), ("Random map", 0.4)]


def test_a_profile_that_was_not_run_is_all_dashes(run: pd.DataFrame) -> None:
    empty = latest_run(frame(), "paper")
    for table in (method_rows(empty), mask_size_rows(empty)):
        assert (table["note"] == NOT_RUN).all()
        assert table["dice_explained_mean"].isna().all()
    assert console_table(frame(), "paper").splitlines()[::2] == [
        f"Table 1: {pair.label}, profile paper: {NOT_RUN}" for pair in shown_pairs(empty)
    ]


def test_failed_and_skipped_results_say_so() -> None:
    failed = [unit("msr", s, status="failed") for s in range(2)]
    skipped = [unit("rise", s, status="skipped", reason="nothing there") for s in range(3)]
    table = method_rows(run_of(*failed, *skipped), [TRIANGLE])
    assert _row(table, method="MSR")["note"] == "2 failed"
    assert set(table[table["method"] == "RISE"]["note"]) == {"all 3 samples skipped"}


def test_masks_precision_and_source_are_shown_per_row() -> None:
    records = frame(
        unit("msr", 0, stand_in=True, dataset_source="generated"),
        unit("msr", 1, status="skipped", reason="nothing there"),
        unit("rise", 0, {"n_masks": 300}, precision="bf16"),
    )
    table = method_rows(latest_run(records, "quick"), [TRIANGLE])
    rise, msr = table.iloc[2], table.iloc[4]
    assert (rise["masks"], rise["precision"], rise["profile"], rise["remarks"]) == (300, "bf16", "quick", "300 masks")
    assert (msr["source"], msr["remarks"], msr["note"]) == ("generated", "stand-in, 1 skipped", "")
    assert math.isnan(msr["masks"])


def test_lr_lambda_cells(run: pd.DataFrame) -> None:
    table = lr_lambda_rows(run, PAIRS[0])
    assert len(table) == 9
    assert _row(table, **{"lambda": 0.01, "learning_rate": 0.1})["n_samples"] == 3
    cell = _row(table, **{"lambda": 0.1, "learning_rate": 0.001})
    assert (cell["n_samples"], cell["dice_explained_mean"]) == (1, 0.99)
    assert (cell["paper_dice_explained"], cell["paper_perturbation_ratio"]) == (0.987, 0.961)


def test_table6_by_mask_size(run: pd.DataFrame) -> None:
    table = mask_size_rows(run, [TRIANGLE])
    assert table["mask_size"].tolist() == [56, 112, 224]
    assert table["n_samples"].tolist() == [1, 0, 3]
    assert table["note"].tolist() == ["", "1 failed", ""]


def test_later_draws_are_in_no_table() -> None:
    run = run_of(organ("msr", 0, "Aorta"), organ("msr", 1, "Aorta", draw=50, dice_explained=0.0))
    for table in (
        method_rows(run, [UNET]),
        class_rows(run, [UNET]),
        lr_lambda_rows(run, UNET),
        mask_size_rows(run, [UNET]),
    ):
        assert table["n_samples"].max() == 1
        assert table["dice_explained_mean"].max() == 0.9


def test_table_by_organ_by_hand() -> None:
    run = run_of(
        organ("msr", 0, "Aorta", perturbation_ratio=1.0, n_dilations=3.0, prediction_size=10),
        organ("msr", 1, "Aorta", perturbation_ratio=2.0, n_dilations=5.0, prediction_size=20),
        organ("msr", 2, "Aorta", perturbation_ratio=900.0, n_dilations=40.0, prediction_size=2),
        organ("sufficient_region", 0, "Aorta", perturbation_ratio=140.0, n_dilations=3.0),
        organ("msr", 3, "Pancreas", status="skipped", reason="not predicted"),
        organ("msr", 4, "Liver", model="transunet", perturbation_ratio=5.0, n_dilations=0.0),
    )
    table = class_rows(run, [UNET, TRANSUNET])
    assert table[["model", "class", "method"]].drop_duplicates().shape[0] == len(table) == 2 * len(ORGANS) * 2
    aorta = _row(table, model="U-Net", method="MSR", **{"class": "Aorta"})
    assert (aorta["n_samples"], aorta["n_dilations_median"], aorta["prediction_size_median"]) == (3, 5.0, 10.0)
    assert aorta["perturbation_ratio_mean"] == pytest.approx(301.0, abs=1e-9)
    assert aorta["perturbation_ratio_median"] == 2.0
    assert _row(table, model="U-Net", method="MSR", **{"class": "Pancreas"})["note"] == "all 1 samples skipped"
    assert _row(table, model="TransUNet", method="MSR", **{"class": "Liver"})["perturbation_ratio_mean"] == 5.0


def test_samples_of_several_classes_are_counted() -> None:
    run = run_of(organ("msr", 0, "Aorta"), organ("msr", 1, "Liver"), organ("rise", 0, "Aorta"))
    table = method_rows(run, [UNET])
    assert table.iloc[[4, 2]][["n_samples", "n_classes"]].to_numpy().tolist() == [[2, 2], [1, 1]]


def test_seconds_of_several_images_together_are_marked() -> None:
    rows = method_rows(run_of(unit("msr", 0, batch_size=8), unit("seg_grad_cam", 0)))
    assert "throughput of 8 images together" in _row(rows, dataset="Triangle", method="MSR")["remarks"]
    assert not rows["remarks"][rows["method"] == "Seg-Grad-CAM"].str.contains("together").any()


def test_seconds_are_of_those_timed_alone_on_one_device() -> None:
    seconds = (1.0, 3.0, 1.0, 3.0, 2.0)
    alone = [unit("msr", i, batch_size=1, device="CPU, 2 threads", seconds=s) for i, s in enumerate(seconds)]
    others = [
        unit("msr", 5, batch_size=1, device="CPU, 1 thread", seconds=9.0),
        unit("msr", 6, batch_size=8, seconds=0.1),
    ]
    row = _row(method_rows(run_of(*alone, *others)), dataset="Triangle", method="MSR")
    assert row["seconds_mean"] == 2.0
    assert "seconds: of the 5 timed alone on CPU with 2 threads" in row["remarks"]


def test_a_sufficient_region_keeps_no_less_than_its_object() -> None:
    ratios = [1.0] * 9 + [20.0]
    units = [unit("sufficient_region", i, group=str(i), perturbation_ratio=ratio) for i, ratio in enumerate(ratios)]
    row = _row(method_rows(run_of(*units)), dataset="Triangle", method="SR")
    assert (row["perturbation_ratio_mean"], row["perturbation_ratio_low"]) == (pytest.approx(2.9), 1.0)
