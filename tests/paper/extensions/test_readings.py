"""Readings of stage 2's start: the same samples for all, whole images resampled, careful words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from paper_records import SUBSTITUTION, frame, photo, save_map

from misure.paper.extensions.readings import LITERAL, RATES, READINGS, Reading, readings_table
from misure.paper.extensions.readings_markdown import alternatives, readings_document
from misure.paper.published import PAIRS
from misure.paper.query import latest_run
from misure.paper.tables.markdown import lr_lambda_document
from misure.paper.tables.rows import lr_lambda_table

COCO = next(pair for pair in PAIRS if pair.model == "deeplabv3_mobilenetv2")
LIMITED = Reading("positive_first_channel", 0.5)
TWICE = Reading("positive_first_channel", 0.5, 2)
NOWHERE = Path("nowhere")

# Dice explained and ratio at both rates: the literal reading far from the paper's 0.583, 3.478, 0.81, 0.215.
FAR = ((0.98, 3.478), (0.99, 1.2))
NEAR = ((0.583, 3.478), (0.81, 0.215))


def _units(reading: Reading, sample: int, name: str, values: Any = FAR, spread: float = 0.0) -> list[list[Any]]:
    """Two units, one per learning rate; ``spread`` is added to the Dice and divides the ratio."""
    return [
        photo(
            "msr",
            sample,
            name,
            {"lr": rate, **reading.parameters},
            dice_explained=dice + spread,
            perturbation_ratio=ratio / (1 + spread),
        )
        for rate, (dice, ratio) in zip(RATES, values, strict=True)
    ]


def _run(*units: list[list[Any]]) -> pd.DataFrame:
    return latest_run(frame(*(rows for pair in units for rows in pair)), "quick")


def _table(run: pd.DataFrame, maps: Path = NOWHERE) -> pd.DataFrame:
    return readings_table(run, COCO, maps).set_index("reading", drop=False)


def _many(near: Any = NEAR, images: int = 12) -> pd.DataFrame:
    """Literal and limited start on as many images, alternately a little above and below the mean."""
    units = []
    for sample in range(images):
        spread = 0.005 if sample % 2 else -0.005
        units += _units(LITERAL, sample, "bus", FAR, spread) + _units(LIMITED, sample, "bus", near, spread)
    return _run(units)


def test_every_reading_is_a_parameter_setting_of_its_own_and_the_literal_one_is_the_default() -> None:
    assert READINGS[0] == LITERAL
    assert len({reading.title for reading in READINGS}) == len({tuple(r.parameters.values()) for r in READINGS}) == 8


def test_only_samples_that_all_readings_have_count() -> None:
    run = _run(
        _units(LITERAL, 0, "bus"),
        _units(LITERAL, 0, "car"),
        _units(LITERAL, 5, "dog", ((0.0, 9.0), (0.0, 9.0))),
        _units(LIMITED, 0, "bus", NEAR),
        _units(LIMITED, 0, "car", NEAR),
        _units(LIMITED, 7, "dog", ((0.0, 9.0), (0.0, 9.0))),
    )
    table = _table(run)
    for reading, ((slow_dice, slow_ratio), (fast_dice, fast_ratio)) in ((LITERAL, FAR), (LIMITED, NEAR)):
        row = table.loc[reading.title]
        assert (row["n_samples"], row["n_images"]) == (2, 1)
        assert row["dice_explained_0.001_mean"] == pytest.approx(slow_dice, abs=1e-12)
        assert row["perturbation_ratio_0.001_mean"] == pytest.approx(slow_ratio, abs=1e-12)
        assert row["dice_explained_0.1_mean"] == pytest.approx(fast_dice, abs=1e-12)
        assert row["perturbation_ratio_0.1_mean"] == pytest.approx(fast_ratio, abs=1e-12)
        assert row["dice_change_mean"] == pytest.approx(fast_dice - slow_dice, abs=1e-12)
        assert math.isnan(row["dice_explained_0.1_low"])  # one image says nothing about the spread of images
        assert pd.isna(row["paper_inside_dice_explained_0.1"])
    assert table.loc[LIMITED.title, "factor"] == pytest.approx(1.0, abs=1e-12)
    # By hand: (0.98 / 0.583 x 3.478 / 3.478 x 0.99 / 0.81 x 1.2 / 0.215) to the power of a quarter.
    assert table.loc[LITERAL.title, "factor"] == pytest.approx((0.98 / 0.583 * 0.99 / 0.81 * 1.2 / 0.215) ** 0.25)


def test_a_setting_that_has_just_begun_does_not_take_samples_from_the_others() -> None:
    units = [u for s in range(4) for r in (LITERAL, LIMITED) for u in _units(r, s, "bus")]
    table = _table(_run(units, _units(TWICE, 0, "bus")))
    assert table.loc[LITERAL.title, "n_samples"] == 4
    assert table.loc[TWICE.title, "note"] == "too few samples yet (1 and 1)"
    assert math.isnan(table.loc[TWICE.title, "factor"])
    assert table.loc[READINGS[1].title, "note"] == "not run in this profile"


def test_softmax_twice_is_shown_only_where_it_was_run() -> None:
    assert TWICE.title not in _table(_many()).index
    both = _table(_run(_units(LITERAL, 0, "bus"), _units(TWICE, 0, "bus", NEAR)))
    assert both.loc[TWICE.title, "softmax_passes"] == 2
    assert both.loc[TWICE.title, "n_samples"] == 1


def test_the_sufficient_region_stands_first_over_the_same_samples() -> None:
    regions = [photo("sufficient_region", s, "bus", perturbation_ratio=float(s), dice_explained=0.95) for s in range(9)]
    table = _table(_run(_units(LITERAL, 2, "bus"), _units(LITERAL, 4, "bus"), regions))
    row = table.iloc[0]
    assert (row["reading"], row["n_samples"], row["perturbation_ratio_mean"]) == ("SR", 2, 3.0)


def test_share_of_the_object_that_is_kept(tmp_path: Path) -> None:
    units = _units(LITERAL, 0, "bus")
    saliency = np.zeros((4, 4))
    saliency[0, 0] = 0.3  # the object is the upper left quarter: 4 pixels, of which this is one
    saliency[3, 3] = 0.9
    save_map(tmp_path, units[1][0]["unit"], saliency, channels=3)
    row = _table(_run(units), tmp_path).loc[LITERAL.title]
    assert (row["object_kept_mean"], row["object_kept_n"]) == (0.25, 1)


def test_without_records_there_are_holes_and_no_verdict() -> None:
    frame_ = readings_table(latest_run(pd.DataFrame(), "quick"), COCO, NOWHERE)
    document = readings_document(frame_, "HEAD", COCO)
    assert document.count("not run in this profile") == 1 * 4 + 4 * 4
    assert "**No verdict**: no reading has records at both learning rates." in document
    assert alternatives(frame_) == ("", {})


def test_few_images_give_no_verdict() -> None:
    document = readings_document(_table(_many(images=9)), "HEAD", COCO)
    assert "**No verdict**: too few images (9, with 9 samples); it takes 10." in document
    assert "does not reproduce" not in document


def test_the_verdict_tells_not_reproduced_from_nearest() -> None:
    table = _table(_many())
    document = readings_document(table, "HEAD", COCO)
    assert "## Verdict (12 samples of 12 images)" in document
    literal, limited = (line for line in document.splitlines() if line.startswith("- **1 on"))
    assert "(literal): the paper's value lies inside our interval for 1 of 4 numbers (perturbation ratio" in literal
    assert "at learning rate 0.1 is above 1" in literal
    assert "for 4 of 4 numbers" in limited
    assert "Dice explained rises with the learning rate, by 0.227 [0.227, 0.227]" in limited
    assert "at learning rate 0.1 is far below 1" in limited
    assert "The literal reading does not reproduce the paper's numbers here: 3 of 4 lie outside" in document
    assert f'The reading "{LIMITED.title}" comes nearest of those tried, with a factor of 1.00; ' in document
    assert "it is the nearest in 100% of the resamples of images." in document
    assert "on average and below 0.5 for 0.000 [0.000, 0.000] of the samples" in literal
    assert "on average and below 0.5 for 1.000 [1.000, 1.000] of the samples" in limited
    assert "whether it did cannot be decided from these numbers" in document
    assert f"our network is not the paper's ({SUBSTITUTION}) and our images (103 COCO val2017 images)" in document
    assert f"COCO-2017 network: **{SUBSTITUTION}**" in document.splitlines()[0]


def test_the_nearest_reading_may_not_reproduce_either() -> None:
    document = readings_document(_table(_many(near=((0.7, 1.5), (0.9, 0.4)))), "HEAD", COCO)
    assert "and 4 of 4 numbers lie outside its intervals too, so it does not reproduce them either" in document


def test_a_few_small_predictions_do_not_hide_that_most_ratios_are_far_below_one() -> None:
    units = []
    for sample in range(20):
        small = sample == 0
        units += _units(LITERAL, sample, "bus", ((0.98, 9.0), (0.99, 90.0 if small else 0.8)))
        units += _units(LIMITED, sample, "bus", ((0.6, 9.0), (0.9, 90.0 if small else 0.3)))
    table = _table(_run(units))
    assert table.loc[LIMITED.title, "far_below_mean"] == 0.95
    assert table.loc[LITERAL.title, "far_below_mean"] == 0
    document = readings_document(table, "HEAD", COCO)
    assert "is not clearly below 1 (" in document
    assert "about the code than about segmentation" in document


def test_the_literal_reading_is_not_blamed_where_its_intervals_hold_the_papers_values() -> None:
    units = []
    for sample in range(12):
        spread = 0.01 if sample % 2 else -0.01
        units += _units(LITERAL, sample, "bus", NEAR, spread) + _units(LIMITED, sample, "bus", FAR, spread)
    document = readings_document(_table(_run(units)), "HEAD", COCO)
    assert "The intervals do not exclude the literal reading" in document
    assert "The literal reading itself comes nearest" in document
    assert "does not reproduce" not in document
    assert "about the code" not in document


def test_an_order_that_depends_on_the_images_is_not_settled() -> None:
    units = []
    for sample in range(12):
        better, worse = (LITERAL, LIMITED) if sample % 2 else (LIMITED, LITERAL)
        units += _units(better, sample, "bus", NEAR) + _units(worse, sample, "bus", FAR)
    assert "so that the order of the readings is not settled" in readings_document(_table(_run(units)), "HEAD", COCO)


def test_objects_of_one_photograph_are_drawn_together() -> None:
    """Twice the objects of each photograph say nothing new: the interval is the same."""
    once, twice = [], []
    for sample in range(12):
        values = ((0.5 + 0.03 * sample, 2.0), (0.9, 0.5))
        once += _units(LITERAL, sample, "bus", values)
        twice += _units(LITERAL, sample, "bus", values) + _units(LITERAL, sample, "car", values)
    first, second = (_table(_run(units)).loc[LITERAL.title] for units in (once, twice))
    for end in ("low", "high"):
        assert first[f"dice_explained_0.001_{end}"] == pytest.approx(second[f"dice_explained_0.001_{end}"], abs=1e-12)
    assert (first["n_samples"], second["n_samples"]) == (12, 24)


def test_table5_points_to_it_and_shows_the_nearest_other_reading() -> None:
    run = _many()
    document = lr_lambda_document(lr_lambda_table(run, COCO), "HEAD", COCO, readings_table(run, COCO, NOWHERE))
    assert "`table5_readings.md`" in document
    assert f'comes nearest to the paper: "{LIMITED.title}"' in document
    dice, ratio = (line for line in document.splitlines() if "other reading: " in line)
    assert dice.startswith("| 0.01 | 0.583 / 0.980 [")
    assert dice.count("other reading: 0.583 [") == dice.count("other reading: 0.810 [") == 1
    assert ratio.count("other reading: ") == 2
    alone = lr_lambda_document(lr_lambda_table(run, COCO), "HEAD", COCO)
    assert "reading" not in alone.replace("reading.", "")
