"""The table of volume scores: hand-computed means, what is undefined, marks, and the file in between."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from paper_records import VOLUME_META as META

from misure.errors import MisureError
from misure.paper.material import Material
from misure.paper.table import Table
from misure.paper.tables.volumes import read_all, volume_rows, volumes
from misure.sweep.volume_scores import write_volumes

ORGANS = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")
NAN = math.nan
PHANTOMS = META | {"model": "U-Net ResNet-34", "source": "stand-in: phantom CT (6 volumes)", "stand_in": True}


def scores(
    dice: dict[str, list[float]], hd95: dict[str, list[float]] | None = None, *, quirk: bool = False
) -> pd.DataFrame:
    """Rows as ``score_volumes`` returns them: case -> values by organ."""
    rows = [
        (case, class_id, ORGANS[class_id - 1], value, (hd95 or dice)[case][class_id - 1], 7, 9, quirk)
        for case, values in dice.items()
        for class_id, value in enumerate(values, start=1)
    ]
    names = ["case", "class_id", "class_name", "dice", "hd95", "predicted_voxels", "true_voxels", "empty_truth_counts"]
    return pd.DataFrame(rows, columns=names)


TWO = scores(
    {"case0001": [0.5, NAN, 0, 1, 1, 1, 1, 1], "case0002": [0.25, NAN, 0.5, 0.5, 0.5, 0.5, 0.5, 0.75]},
    {"case0001": [10, NAN, NAN, 2, 2, 2, 2, 0], "case0002": [30, NAN, 4, 4, 4, 4, 4, 6]},
)


@pytest.fixture
def frame() -> pd.DataFrame:
    return TWO.assign(**META)


def made(frame: pd.DataFrame) -> Table:
    return volumes(Material(pd.DataFrame(), "quick", Path(), frame, []))


def test_means_by_hand(frame: pd.DataFrame) -> None:
    row = volume_rows(frame).iloc[0]
    assert (row["model"], row["profile"], row["volumes"], row["published"]) == ("TransUNet", "quick", 2, False)
    # the volumes' means: 5.5 / 7 and 3.5 / 7; the organs' means would give 0.633
    assert row["dice"] == pytest.approx(100 * (5.5 / 7 + 3.5 / 7) / 2, abs=1e-12)
    assert row["hd95"] == pytest.approx((18 / 6 + 56 / 7) / 2, abs=1e-12)
    assert (row["undefined_dice"], row["undefined_hd95"]) == (2, 3)
    assert row["dice_Aorta"] == 37.5
    assert row["hd95_Aorta"] == 20
    assert math.isnan(row["dice_Gallbladder"])
    assert row["undefined_dice_Gallbladder"] == 2
    assert row["dice_Left kidney"] == 25
    assert (row["hd95_Left kidney"], row["undefined_hd95_Left kidney"]) == (4, 1)
    assert row["undefined_dice_Left kidney"] == 0


def test_with_nothing_undefined_it_is_the_mean_over_organs() -> None:
    """As TransUNet's code averages: per organ over volumes, then over organs."""
    values = np.random.default_rng(0).uniform(size=(5, 8))
    frame = scores({f"case{i:04d}": row.tolist() for i, row in enumerate(values)}).assign(**META)
    row = volume_rows(frame).iloc[0]
    assert row["dice"] == pytest.approx(100 * values.mean(0).mean(), abs=1e-10)


def test_published_numbers() -> None:
    table = volume_rows(pd.DataFrame())
    assert table["published"].all()
    assert table["model"].tolist() == ["TransUNet", "R50 U-Net", "U-Net"]
    assert table["dice"].tolist() == [77.48, 74.68, 76.85]
    assert table["hd95"].tolist() == [31.69, 36.87, 39.7]
    assert (table["volumes"] == 12).all()
    organs = [name for name in table if name.startswith("dice_")]
    assert organs[0] == "dice_Aorta"
    assert organs[-1] == "dice_Stomach"
    # the printed means are of organs before rounding: half a unit of the last digit each way
    np.testing.assert_allclose(table[organs].mean(axis=1), table["dice"], atol=0.011)


def test_ours_stand_above_the_published_ones(frame: pd.DataFrame) -> None:
    table = made(frame)
    texts = [[column.text(row) for column in table.columns] for row in table.frame.to_dict("records")]
    ours, published = texts[:2]
    assert [row[0].split(", ")[1] for row in texts] == ["ours", *["published"] * 3]
    assert ours[1:5] == ["2", "64.29", "5.50", "37.50"]
    assert ours[-2:] == ["strict", "quick, 2 Dice undefined, 3 HD95 undefined"]
    assert (published[4], published[-2:]) == ("87.23", ["original", ""])


def test_every_stand_in_row_is_marked(frame: pd.DataFrame) -> None:
    table = made(pd.concat([TWO.assign(**PHANTOMS), frame]))
    marked = table.frame["remarks"].str.contains("stand-in")
    assert table.frame.loc[marked, "network"].tolist() == ["U-Net ResNet-34, ours"]
    assert "stand-in" in table.notes


def test_both_conventions_stand_side_by_side(frame: pd.DataFrame) -> None:
    original = scores({"case0001": [1.0] * 8, "case0002": [1.0] * 8}, quirk=True).assign(**META)
    table = volume_rows(pd.concat([frame, original]))
    assert table["empty_organs"].tolist()[:2] == ["strict", "original"]
    assert table["dice"].tolist()[1] == 100


def test_profiles_are_not_mixed(frame: pd.DataFrame) -> None:
    table = volume_rows(pd.concat([frame, frame.assign(profile="paper", dice=0.5)]))
    assert table["profile"].tolist() == ["quick", "paper", "", "", ""]
    assert table.loc[1, "dice"] == 50


def test_a_volume_scored_twice(frame: pd.DataFrame) -> None:
    with pytest.raises(MisureError, match="TransUNet, profile quick: a volume was scored twice"):
        volume_rows(pd.concat([frame, frame]))


@pytest.mark.parametrize("change", [{"class_name": "triangle"}, {"class_id": 9}])
def test_other_classes_are_not_taken_for_organs(frame: pd.DataFrame, change: dict[str, Any]) -> None:
    alone = frame[frame["class_id"] == 5].assign(**change)
    with pytest.raises(MisureError, match="is not Synapse's: its classes are Aorta, "):
        volume_rows(alone)


def test_the_dataset_has_the_same_organs() -> None:
    protocol = pytest.importorskip("misure.datasets.synapse.protocol")
    assert protocol.CLASS_NAMES[1:] == ORGANS


def test_only_scores_of_the_runs_own_networks_are_read(tmp_path):
    frame = scores({"case0001": [0.5] * 8})
    write_volumes(tmp_path / "mine.json", frame, META)
    write_volumes(tmp_path / "older.json", frame, META | {"weights": "another"})
    write_volumes(tmp_path / "elsewhere.json", frame, META | {"dataset_fingerprint": "another"})
    write_volumes(tmp_path / "lowered.json", frame, META | {"precision": "bf16"})
    run = pd.DataFrame([{key: META[key] for key in ("dataset_fingerprint", "weights")}] * 3)
    run["precision"] = ["bf16", None, "32"]  # older records do not say: they had no other
    found = read_all(tmp_path, run)
    assert len(found) == len(frame)
    assert set(found["weights"]) == {META["weights"]}
    assert set(found["precision"]) == {"32"}
    assert set(read_all(tmp_path, run[:1])["precision"]) == {"bf16"}
    assert read_all(tmp_path / "missing", run).empty
    assert volume_rows(read_all(tmp_path, run[:0]))["published"].all()
