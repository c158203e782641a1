"""Readings of what the paper leaves open: compared over the same samples, judged with care."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from paper_records import COCO, ORGANS, TRANSUNET, TRIANGLE, UNET, organ, photo, run_of, unit
from scipy import stats

from misure.paper.extensions.ambiguities import ambiguities_table, ambiguities_tables, distance, nearest_table, summary
from misure.paper.material import Material
from misure.paper.published import Pair

HALF = {"context_value": 0.5}


def values(dice: float, ratio: float, **others: float) -> dict[str, float]:
    return {"dice_explained": dice, "perturbation_ratio": ratio} | others


def row_of(
    table: pd.DataFrame, reading: str, quantity: str, threshold: float | None = None, setting: str = ""
) -> pd.Series:
    rows = table[(table["reading"] == reading) & (table["quantity"] == quantity) & (table["setting"] == setting)]
    rows = rows[rows["threshold"].isna() if threshold is None else rows["threshold"].eq(threshold)]
    (place,) = rows.index
    return rows.loc[place]


def test_means_distances_and_changes_by_hand() -> None:
    literal = [unit("msr", s, **values(dice, ratio)) for s, dice, ratio in ((0, 0.9, 1.0), (1, 1.0, 2.0))]
    half = [unit("msr", s, HALF, **values(dice, ratio)) for s, dice, ratio in ((0, 0.7, 0.5), (1, 0.9, 0.7))]
    table = ambiguities_table(run_of(*literal, *half), TRIANGLE)
    first = row_of(table, "literal", "perturbation_ratio")
    assert (first["n"], first["n_groups"], first["mean"], first["paper"]) == (2, 2, 1.5, 0.63)
    assert first["distance"] == pytest.approx(math.log(1.5 / 0.63), rel=1e-12)
    assert first["literal"]
    other = row_of(table, "start at 0.5 around the object", "dice_explained")
    assert other["mean"] == pytest.approx(0.8, rel=1e-12)
    assert other["distance"] == pytest.approx(0.165, rel=1e-12)
    # -0.2 and -0.1, sample by sample: the interval of the difference, not of two means
    reach = 0.05 * float(stats.t.ppf(0.975, 1))
    ends = other["change_low"], other["change_mean"], other["change_high"]
    assert ends == pytest.approx((-0.15 - reach, -0.15, -0.15 + reach))
    assert not other["literal"]
    absent = row_of(table, "soft target", "dice_explained")
    assert (absent["n"], absent["note"]) == (0, "not run in this profile")
    assert math.isnan(absent["nearest_share"])


def test_a_reading_with_far_fewer_samples_takes_none_from_the_others() -> None:
    literal = [unit("msr", s) for s in range(5)]
    half = [unit("msr", s, HALF) for s in range(5)]
    soft = [unit("msr", 0, {"dice_target": "soft"})]
    table = ambiguities_table(run_of(*literal, *half, *soft), TRIANGLE)
    assert row_of(table, "literal", "dice_explained")["n"] == 5
    assert row_of(table, "soft target", "dice_explained")["note"] == "too few samples yet (1)"


def test_the_share_of_resamples_equals_a_count_of_all_of_them() -> None:
    """Three samples have 27 equally likely resamples; the share is theirs up to the noise of 10,000 draws."""
    literal, half = np.array([0.5, 0.9, 1.0]), np.array([1.0, 0.63, 0.2])
    units = [unit("msr", s, perturbation_ratio=literal[s], region_ratio=100.0) for s in range(3)]
    units += [unit("msr", s, HALF, perturbation_ratio=half[s], region_ratio=100.0) for s in range(3)]
    row = row_of(ambiguities_table(run_of(*units), TRIANGLE), "literal", "perturbation_ratio")
    wins = 0.0
    for drawn in np.ndindex(3, 3, 3):
        away = [abs(math.log(reading[list(drawn)].mean() / 0.63)) for reading in (literal, half)]
        wins += float(away[0] < away[1])
    assert 0 < wins < 27
    assert row["nearest_share"] == pytest.approx(wins / 27, abs=0.02)  # 4 standard errors of 10,000 draws


def test_one_image_gives_no_share() -> None:
    units = [organ("msr", 3, label, p) for label in ("Liver", "Aorta") for p in ({}, HALF)]
    table = ambiguities_table(run_of(*units), UNET)
    assert row_of(table, "literal", "dice_explained")["n"] == 2
    assert table["nearest_share"].isna().all()


def test_samples_of_an_image_are_drawn_together() -> None:
    units = [
        organ("msr", s, label, p, perturbation_ratio=float(s + 1))
        for s in range(2)
        for label in ORGANS
        for p in ({}, HALF)
    ]
    row = row_of(ambiguities_table(run_of(*units), UNET), "literal", "perturbation_ratio")
    reach = 0.5 * float(stats.t.ppf(0.975, 1))
    assert (row["n"], row["n_groups"], row["high"]) == (16, 2, pytest.approx(1.5 + reach))


def test_rise_has_one_dice_and_each_threshold_its_printed_number() -> None:
    units = [unit("rise", s, {"n_masks": 300, "style": style}) for s in range(2) for style in ("hard", "bilinear")]
    table = ambiguities_table(run_of(*units), TRIANGLE)
    rise = table[table["method"] == "RISE"]
    assert set(rise["quantity"]) == {"dice_explained", "perturbation_ratio", "region_ratio"}
    papers = [row_of(rise, "bilinear masks", "perturbation_ratio", t)["paper"] for t in (0.2, 0.4)]
    assert papers == [26.07, 5.83]


def test_black_blanking_is_shown_only_where_it_differs() -> None:
    for pair, expected in ((TRIANGLE, False), (UNET, False), (COCO, True)):
        assert ("black blanking" in set(ambiguities_table(run_of(unit("msr", 0)), pair)["reading"])) is expected


def test_the_distance_of_a_mean_of_zero_is_infinite() -> None:
    assert distance("perturbation_ratio", 0.0, 0.63) == math.inf
    assert distance("perturbation_ratio", 1.26, 0.63) == distance("perturbation_ratio", 0.315, 0.63)
    assert math.isnan(distance("perturbation_ratio", 1.0, None))


def test_records_without_a_definition_leave_it_empty() -> None:
    units = [unit("msr", s, p, region_ratio=float("nan")) for s in range(2) for p in ({}, HALF)]
    table = ambiguities_table(run_of(*units), TRIANGLE)
    assert row_of(table, "literal", "region_ratio")["n"] == 0
    assert row_of(table, "literal", "perturbation_ratio")["n"] == 2


def test_the_nearest_reading_and_the_span_by_hand() -> None:
    units = [unit("msr", s, **values(0.9, 2.0, binary_dice_explained=0.5, region_ratio=1.0)) for s in range(2)]
    units += [unit("msr", s, HALF, **values(0.8, 0.25, binary_dice_explained=0.7, region_ratio=0.5)) for s in range(2)]
    nearest = nearest_table(ambiguities_table(run_of(*units), TRIANGLE)).set_index(["table", "setting", "measure"])
    row = nearest[nearest["method"].eq("MSR")].loc[1, "", "dice_explained"]
    assert row["lowest"] == "literal, as Dice explained, mask cut at zero"
    assert (row["lowest_mean"], row["highest_mean"], row["highest"]) == (0.5, 0.9, "literal")
    assert row["span"] == pytest.approx(0.4, rel=1e-12)
    # 0.965 is printed: 0.9 is nearest, then 0.8
    assert (row["nearest"], row["mean"], row["nearest_share"], row["n"]) == ("literal", 0.9, 1.0, 2)
    assert row["distance"] == row["literal_distance"] == pytest.approx(0.065, rel=1e-12)
    row = nearest.loc[2, "learning rate 0.1, lambda 0.01", "perturbation_ratio"]
    assert (row["paper"], row["lowest_mean"], row["highest_mean"], row["factor"]) == (0.627, 0.25, 2.0, 8.0)
    assert row["nearest"] == "start at 0.5 around the object, as perturbation ratio of the pixels that are shown"
    assert row["distance"] == pytest.approx(math.log(0.627 / 0.5), rel=1e-12)
    assert row["literal_distance"] == pytest.approx(math.log(2 / 0.627), rel=1e-12)
    assert nearest[nearest["method"].eq("RISE")]["n_readings"].eq(0).all()


def test_every_printed_number_has_its_row_and_a_cell_says_at_least_how_far_the_literal_reading_is() -> None:
    """Of the printed ones: 20 rows of Table 1, 36 cells of Tables 2 to 5 and 12 of Table 6, two numbers each."""
    fast = {"lr": 0.01, "lam": 0.1}
    units = [
        unit("msr", s, p, perturbation_ratio=r) for s in range(2) for p, r in ((fast, 0.5), ({"mask_size": 56}, 2.0))
    ]
    units += [unit("msr", s, fast | HALF, perturbation_ratio=0.95) for s in range(2)]
    units += [unit("seg_grad_cam", s, dice_explained=0.565) for s in range(2)]
    frames = [ambiguities_table(run_of(*units), pair) for pair in (TRIANGLE, UNET, TRANSUNET, COCO)]
    nearest = nearest_table(pd.concat(frames, ignore_index=True))
    assert nearest["table"].value_counts().to_dict() == {1: 40, 2: 18, 3: 18, 4: 18, 5: 18, 6: 24}
    assert nearest["paper"].notna().all()
    measured = nearest[nearest["n"] > 0].set_index(["table", "setting", "threshold", "measure"])
    assert set(measured["dataset"]) == {"Triangle"}
    assert len(measured) == 2 * (1 + 1 + 2)  # of Seg-Grad-CAM there are two thresholds
    changed = measured.loc[2, "learning rate 0.01, lambda 0.1"].loc[float("nan"), "perturbation_ratio"]
    assert (changed["nearest"], changed["paper"], changed["mean"]) == ("start at 0.5 around the object", 0.957, 0.95)
    alone = measured.loc[6, "mask 56"].loc[float("nan"), "perturbation_ratio"]
    assert (alone["nearest"], alone["literal"]) == ("", 2.0)
    assert math.isnan(alone["distance"])
    assert alone["literal_distance"] == pytest.approx(math.log(2.212 / 2), rel=1e-12)
    cam = measured.loc[1, "", 0.05, "dice_explained"]
    assert (cam["method"], cam["paper"], cam["literal_distance"]) == ("Seg-Grad-CAM", 0.665, pytest.approx(0.1))


def test_settings_are_compared_once_and_readings_without_records_are_listed_in_table_1_alone() -> None:
    units = [unit("msr", s, p | q) for s in range(2) for p in ({}, HALF) for q in ({}, {"lr": 0.001})]
    table = ambiguities_table(run_of(*units), TRIANGLE)
    shown = table[table["compared"] & table["method"].eq("MSR")]
    assert set(zip(shown["table"], shown["setting"], strict=True)) == {(1, ""), (2, "learning rate 0.001, lambda 0.01")}
    assert shown[shown["table"].eq(2)]["reading"].nunique() == 2
    assert shown[shown["table"].eq(1)]["reading"].nunique() == 18  # no black and no other objects on Triangle


NEAREST = 'comes "start at 0.5 around the object" with 0.500 [0.500, 0.500], in 100% of the resamples of images.'


@pytest.mark.parametrize(
    ("pair", "n", "said", "unsaid"),
    [
        (TRIANGLE, 12, NEAREST, "Too few"),
        (TRIANGLE, 3, "Too few images (3; it takes 10)", "Nearest to"),
        (UNET, 12, "a stand-in: how near a reading comes", "Nearest to"),
        (COCO, 12, "The network is not the paper's (MobileNetV2 substitution)", "stand-in"),
    ],
)
def test_the_summary_says_how_far_numbers_move_and_no_more_than_is_known(
    pair: Pair, n: int, said: str, unsaid: str
) -> None:
    make = {"triangle": unit, "synapse": partial(organ, label="Liver"), "coco": partial(photo, name="cat")}[
        pair.dataset
    ]
    ratios = (({}, 2.0), (HALF, 0.5))
    units = [make("msr", s, parameters=p, perturbation_ratio=r, region_ratio=2.0) for s in range(n) for p, r in ratios]
    table = ambiguities_table(run_of(*units), pair)
    text = summary(nearest_table(table))
    assert said in text
    assert unsaid not in text


def test_rows_of_a_stand_in_carry_their_mark(tmp_path: Path) -> None:
    run = run_of(*(organ("msr", s, "Liver", p) for s in range(2) for p in ({}, HALF)))
    tables = list(ambiguities_tables(Material(run, "quick", tmp_path, pd.DataFrame(), [TRIANGLE, UNET])))
    assert [table.name for table in tables] == ["ambiguities", "nearest_reading"]
    for table in tables:
        assert "Synapse data: stand-in" in table.title
        assert table.frame["stand_in"].equals(table.frame["dataset"].eq("Synapse"))
        lines = [line for line in table.body().splitlines() if line.endswith("| stand-in |")]
        assert len(lines) == table.frame["stand_in"].sum()
