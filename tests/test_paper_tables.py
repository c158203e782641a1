"""Tables 1, 2 and 6: the paper's numbers beside ours, gaps that stay visible, hand-computed answers."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from paper_records import frame, unit

from misure.paper.cells import duration, head_note, mean_interval_median, measured, printed
from misure.paper.maps import NoiseFloor
from misure.paper.markdown import console_table, lr_lambda_document, table1_document, table6_document
from misure.paper.reference import DASH, PAIRS, table1_reference
from misure.paper.selection import latest_run
from misure.paper.statistics import NOTHING, Summary
from misure.paper.tables import NOT_RUN, lr_lambda_table, table1, table6

UNMEASURED = NoiseFloor(0, math.nan, math.nan, math.nan, math.nan)


@pytest.fixture
def run() -> pd.DataFrame:
    """Three MSR samples and a skipped one, two RISE samples with few masks, one MSR at another rate."""
    return latest_run(
        frame(
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
        ),
        "quick",
    )


def _row(table: pd.DataFrame, **where: Any) -> pd.Series:
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def _parse(document: str) -> list[dict[str, str]]:
    """Read the first Markdown table of a document back."""
    lines = [line.strip("| ").split(" | ") for line in document.splitlines() if line.startswith("|")]
    return [dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]]


def test_table1_by_hand(run: pd.DataFrame) -> None:
    row = _row(table1(run), method="MSR")
    assert row["dice_explained_mean"] == pytest.approx(0.94, abs=1e-12)
    assert row["dice_explained_median"] == 0.92
    assert 0.90 <= row["dice_explained_low"] < 0.94 < row["dice_explained_high"] <= 1.00
    assert row["perturbation_ratio_mean"] == pytest.approx(0.6, abs=1e-12)
    assert row["seconds_mean"] == 3.0
    assert (row["n_samples"], row["n_skipped"], row["n_failed"]) == (3, 1, 0)
    assert (row["paper_dice_explained"], row["paper_perturbation_ratio"], row["paper_seconds"]) == (0.965, 0.63, 3.38)
    assert row["note"] == ""


def test_table1_has_every_row_of_the_paper_and_the_baselines(run: pd.DataFrame) -> None:
    rows = [(m, None if math.isnan(t) else t) for m, t in table1(run)[["method", "threshold"]].to_numpy()]
    assert rows[: len(table1_reference(PAIRS[0]))] == list(table1_reference(PAIRS[0]))
    assert rows[5:] == [("SR", None), ("Prediction itself", None), ("Random map", 0.2), ("Random map", 0.4)]


def test_missing_results_stay_visible(run: pd.DataFrame) -> None:
    table = table1(run)
    for method in ("Seg-Grad-CAM", "SR", "Prediction itself", "Random map"):
        missing = table[table["method"] == method]
        assert (missing["n_samples"] == 0).all()
        assert (missing["note"] == NOT_RUN).all()
        assert missing["dice_explained_mean"].isna().all()
    cells = _parse(table1_document(table, "", UNMEASURED))
    assert len(cells) == len(table)
    assert cells[0]["Dice explained, ours"] == f"{DASH} (not run in this profile)"
    assert cells[0]["Dice explained, paper"] == "0.665"
    assert cells[5]["Dice explained, paper"] == DASH


def test_a_profile_that_was_not_run_is_all_dashes(run: pd.DataFrame) -> None:
    empty = latest_run(frame(), "paper")
    assert (table1(empty)["note"] == NOT_RUN).all()
    assert (table6(empty)["note"] == NOT_RUN).all()
    assert "no records" in head_note(empty, "paper")
    assert console_table(frame(), "paper").count(NOT_RUN) == 6


def test_failed_and_skipped_results_say_so() -> None:
    failed = [unit("msr", s, status="failed") for s in range(2)]
    skipped = [unit("rise", s, status="skipped", reason="nothing there") for s in range(3)]
    table = table1(latest_run(frame(*failed, *skipped), "quick"))
    assert _row(table, method="MSR")["note"] == "2 failed"
    assert set(table[table["method"] == "RISE"]["note"]) == {"all 3 samples skipped"}


def test_masks_precision_and_source_are_shown_per_row() -> None:
    records = frame(
        unit("msr", 0, stand_in=True, dataset_source="generated"),
        unit("rise", 0, {"n_masks": 300}, precision="bf16"),
    )
    cells = _parse(table1_document(table1(latest_run(records, "quick")), "", UNMEASURED))
    rise, msr = cells[2], cells[4]
    assert (rise["Masks"], rise["Precision"], rise["Profile"]) == ("300 (paper 2000)", "bf16", "quick")
    assert (msr["Masks"], msr["Source"]) == (DASH, "generated **(stand-in)**")


def test_one_sample_has_a_dash_for_its_interval() -> None:
    table = table1(latest_run(frame(unit("msr", 0, dice_explained=0.9)), "quick"))
    cells = _parse(table1_document(table, "", UNMEASURED))
    assert cells[4]["Dice explained, ours"] == f"0.900 [{DASH}], median 0.900"


def test_lr_lambda_cells(run: pd.DataFrame) -> None:
    table = lr_lambda_table(run, PAIRS[0])
    assert len(table) == 9
    assert _row(table, **{"lambda": 0.01, "learning_rate": 0.1})["n_samples"] == 3
    cell = _row(table, **{"lambda": 0.1, "learning_rate": 0.001})
    assert (cell["n_samples"], cell["dice_explained_mean"]) == (1, 0.99)
    assert (cell["paper_dice_explained"], cell["paper_perturbation_ratio"]) == (0.987, 0.961)
    grid = _parse(lr_lambda_document(table, "", PAIRS[0]))
    assert grid[2]["lambda"] == "0.1"
    assert grid[2]["learning rate 0.001"] == f"0.987 / 0.990 [{DASH}], n = 1"
    assert grid[0]["learning rate 0.01"] == f"0.977 / {DASH} (not run in this profile)"


def test_table6_by_mask_size(run: pd.DataFrame) -> None:
    table = table6(run)
    assert table["mask_size"].tolist() == [56, 112, 224]
    assert table["n_samples"].tolist() == [1, 0, 3]
    assert table["note"].tolist() == ["", "1 failed", ""]
    cells = _parse(table6_document(table, ""))
    assert cells[0]["Dice explained, paper"] == "0.975"
    assert cells[0]["Dice explained, ours"] == f"0.930 [{DASH}], median 0.930"
    assert cells[1]["Dice explained, ours"] == f"{DASH} (1 failed)"


def test_head_note_says_what_the_numbers_come_from(run: pd.DataFrame) -> None:
    note = head_note(run, "quick")
    for part in (
        "Profile: `quick`",
        "3 samples explained, 1 skipped (class 1 was not predicted)",
        "shipped Fashion-MNIST subset",
        "`0123456789abcdef`",
        "device: toy device",
        "precision: 32, bf16",
        "150 samples",
    ):
        assert part in note
    assert "stand-in" not in note


def test_console_table_shows_paper_and_ours_within_a_terminal() -> None:
    msr = [unit("msr", s, dice_explained=0.9, perturbation_ratio=0.5) for s in range(2)]
    text = console_table(frame(*msr, unit("rise", 0, {"n_masks": 300})), "quick")
    line = next(line for line in text.splitlines() if line.startswith("MSR"))
    assert line.split()[1:5] == [DASH, "0.965", "0.900", "[0.900,"]
    assert "RISE (300 masks)" in text
    assert "profile quick" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (printed, 27.38, "27.38"),
        (printed, 140.123, "140.123"),
        (printed, None, DASH),
        (measured, 0.12345, "0.123"),
        (measured, 27.3812, "27.38"),
        (measured, math.nan, DASH),
        (duration, 0.06712, "0.0671"),
        (duration, 1234.4, "1234"),
    ],
)
def test_numbers_as_written(write: Any, value: float | None, text: str) -> None:
    assert write(value) == text


def test_cells_of_summaries() -> None:
    assert mean_interval_median(Summary(3, 0.5, 0.4, 0.1, 12.0)) == "0.500 [0.100, 12.00], median 0.400"
    assert mean_interval_median(NOTHING, "why") == f"{DASH} (why)"
