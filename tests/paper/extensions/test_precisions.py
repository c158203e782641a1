"""The two precisions side by side, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from paper_records import TRIANGLE, UNET, run_of, save_map, unit

from misure.paper.extensions.precisions import precisions_table, precisions_tables
from misure.paper.material import Material


def pair_of(explainer: str, sample: int, **lowered: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One sample in float32 and, made a day later and elsewhere, in bfloat16."""
    later = {"created": "2026-11-21T10:00:00+00:00", "device": "another", "precision": "bf16"}
    return unit(explainer, sample), unit(explainer, sample, **later, **lowered)


def test_samples_that_both_have_are_compared_by_hand(tmp_path: Path) -> None:
    first = pair_of("msr", 0, dice_explained=0.8, perturbation_ratio=0.75)
    second = pair_of("msr", 1, dice_explained=0.9, perturbation_ratio=0.5)
    alone = unit("msr", 2, precision="bf16", dice_explained=0.1), unit("msr", 3, dice_explained=0.1)
    for rows, pixels in zip(first, ((0, 1), (1, 2)), strict=True):
        saliency = np.zeros(16)
        saliency[[*pixels]] = 0.5
        save_map(tmp_path, rows[0]["unit"], saliency.reshape(4, 4))
    table = precisions_table(run_of(*first, *second, *alone), TRIANGLE, tmp_path)
    assert table[["method", "n"]].to_numpy().tolist() == [["MSR", 2]]
    row = table.iloc[0]
    assert pd.isna(row["threshold"])
    assert (row["dice_explained_32_mean"], row["dice_change_mean"]) == pytest.approx((0.9, -0.05), abs=1e-12)
    assert row["perturbation_ratio_bf16_mean"] == 0.625
    assert row["ratio_change_mean"] == 0.125
    assert row["dice_change_low"] < -0.1 < 0 < row["dice_change_high"]  # a change may have either sign
    assert row["ratio_change_low"] < 0
    assert row["iou_mean"] == pytest.approx(1 / 3, abs=1e-12)
    assert row["iou_n"] == 1


def test_ranking_methods_are_compared_at_each_threshold(tmp_path: Path) -> None:
    table = precisions_table(run_of(*pair_of("rise", 0, dice_explained=0.7)), TRIANGLE, tmp_path)
    assert table["threshold"].tolist() == [0.2, 0.4]
    assert table["dice_change_mean"].tolist() == pytest.approx([-0.2, -0.2], abs=1e-12)
    assert table["iou_mean"].isna().all()


@pytest.mark.parametrize("changed", [{"precision": "32"}, {"param_n_masks": 7}, {"precision": "tf32"}])
def test_nothing_is_compared_that_differs_in_more_or_in_nothing(tmp_path: Path, changed: dict[str, Any]) -> None:
    full, lowered = pair_of("rise", 0)
    run = run_of(full, [row | changed for row in lowered])
    assert precisions_table(run, TRIANGLE, tmp_path).empty
    assert not [*precisions_tables(Material(run, "quick", tmp_path, pd.DataFrame(), [TRIANGLE, UNET]))]


def test_the_table_names_each_dataset_once(tmp_path: Path) -> None:
    run = run_of(*pair_of("msr", 0))
    (table,) = precisions_tables(Material(run, "quick", tmp_path, pd.DataFrame(), [TRIANGLE, UNET]))
    assert table.frame["dataset"].tolist() == ["Triangle"]
    assert "precisions" in table.name
