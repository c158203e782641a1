"""Readings of what the paper leaves open: compared over the same samples, judged with care."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from paper_records import COCO, ORGANS, TRIANGLE, UNET, organ, photo, run_of, unit

from misure.paper.extensions.ambiguities import ambiguities_table, ambiguities_tables, costs_table, distance, summary
from misure.paper.material import Material
from misure.paper.published import Pair

HALF = {"context_value": 0.5}


def values(dice: float, ratio: float, **others: float) -> dict[str, float]:
    return {"dice_explained": dice, "perturbation_ratio": ratio} | others


def row_of(table: pd.DataFrame, reading: str, quantity: str, threshold: float | None = None) -> pd.Series:
    rows = table[(table["reading"] == reading) & (table["quantity"] == quantity)]
    rows = rows[rows["threshold"].isna() if threshold is None else rows["threshold"].eq(threshold)]
    (place,) = rows.index
    return rows.loc[place]


def test_means_distances_and_changes_by_hand() -> None:
    literal = [unit("msr", s, **values(dice, ratio)) for s, dice, ratio in ((0, 0.9, 1.0), (1, 1.0, 2.0))]
    half = [unit("msr", s, HALF, **values(dice, ratio)) for s, dice, ratio in ((0, 0.7, 0.5), (1, 0.9, 0.7))]
    table = ambiguities_table(run_of(*literal, *half), TRIANGLE)
    first = row_of(table, "literal", "perturbation_ratio")
    assert (first["n"], first["n_images"], first["mean"], first["paper"]) == (2, 2, 1.5, 0.63)
    assert first["distance"] == pytest.approx(math.log(1.5 / 0.63), rel=1e-12)
    assert first["literal"]
    other = row_of(table, "start at 0.5 around the object", "dice_explained")
    assert other["mean"] == pytest.approx(0.8, rel=1e-12)
    assert other["distance"] == pytest.approx(0.165, rel=1e-12)
    # -0.2 and -0.1, sample by sample: the interval of the difference, not of two means
    assert (other["change_mean"], other["change_low"], other["change_high"]) == pytest.approx((-0.15, -0.2, -0.1))
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
    assert (row["n"], row["n_images"], row["low"], row["high"]) == (16, 2, 1.0, 2.0)  # either image alone at the ends


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


def test_costs_by_hand() -> None:
    units = [unit("msr", s, **values(0.9, 2.0, binary_dice_explained=0.5, region_ratio=1.0)) for s in range(2)]
    units += [unit("msr", s, HALF, **values(0.8, 0.25, binary_dice_explained=0.7, region_ratio=0.5)) for s in range(2)]
    costs = costs_table(ambiguities_table(run_of(*units), TRIANGLE))
    dice, ratio = costs.iloc[0], costs.iloc[1]
    assert (dice["lowest"], dice["lowest_reading"], dice["lowest_quantity"]) == (
        0.5,
        "literal",
        "binary_dice_explained",
    )
    assert (dice["highest"], dice["literal"], dice["n_readings"]) == (0.9, 0.9, 2)
    assert dice["span"] == pytest.approx(0.4, rel=1e-12)
    assert (ratio["lowest"], ratio["highest"], ratio["factor"]) == (0.25, 2.0, 8.0)
    assert costs.iloc[2][["method", "n_readings"]].tolist() == ["RISE", 0]


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
    text = summary(table, costs_table(table))
    assert said in text
    assert unsaid not in text


def test_rows_of_a_stand_in_carry_their_mark(tmp_path: Path) -> None:
    run = run_of(*(organ("msr", s, "Liver", p) for s in range(2) for p in ({}, HALF)))
    tables = list(ambiguities_tables(Material(run, "quick", tmp_path, pd.DataFrame(), [TRIANGLE, UNET])))
    assert [table.name for table in tables] == ["ambiguities", "ambiguities_cost"]
    for table in tables:
        assert "Synapse data: stand-in" in table.title
        assert table.frame["stand_in"].equals(table.frame["dataset"].eq("Synapse"))
        lines = [line for line in table.body().splitlines() if line.endswith("| stand-in |")]
        assert len(lines) == table.frame["stand_in"].sum()
