"""Readings of stage 2's start: the same samples for all, whole images resampled, careful words."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from paper_records import COCO, SUBSTITUTION, photo, run_of, save_map

from misure.paper.extensions.readings import Reading, readings_of
from misure.paper.extensions.second_stage import RATES, second_stage, second_stage_table, verdict
from misure.paper.material import Material
from misure.paper.query import latest_run

READINGS = readings_of("table5_readings")
LITERAL, _, _, LIMITED, *_, TWICE, _ = READINGS
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
            {"lr": rate, **dict(reading.parameters)},
            dice_explained=dice + spread,
            perturbation_ratio=ratio / (1 + spread),
        )
        for rate, (dice, ratio) in zip(RATES, values, strict=True)
    ]


def _run(*units: list[list[Any]]) -> pd.DataFrame:
    return run_of(*(rows for pair in units for rows in pair))


def _table(run: pd.DataFrame, maps: Path = NOWHERE) -> pd.DataFrame:
    return second_stage_table(run, COCO, maps).set_index("reading", drop=False)


def _many(near: Any = NEAR, images: int = 12, first: Any = FAR) -> pd.DataFrame:
    """Literal and limited start on as many images, alternately a little above and below the mean."""
    units = []
    for sample in range(images):
        spread = 0.005 if sample % 2 else -0.005
        units += _units(LITERAL, sample, "bus", first, spread) + _units(LIMITED, sample, "bus", near, spread)
    return _run(units)


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
        assert (row["n_samples"], row["n_groups"]) == (2, 1)
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


def test_without_records_there_are_holes() -> None:
    table = _table(latest_run(pd.DataFrame(), "quick"))
    assert table["note"].tolist() == ["not run in this profile"] * 5
    assert not table["n_samples"].any()
    assert "no reading has records" in verdict(table)


def test_the_verdict_counts_what_lies_outside_and_names_the_nearest() -> None:
    run = _many()
    table = _table(run)
    inside = table.filter(like="paper_inside")
    assert inside.loc[LITERAL.title].tolist() == [False, False, True, False]
    assert all(inside.loc[LIMITED.title])
    assert table.loc[LIMITED.title, ["dice_change_low", "dice_change_high"]].tolist() == pytest.approx([0.227, 0.227])
    assert table.loc[[LITERAL.title, LIMITED.title], "far_below_mean"].tolist() == [0, 1]
    assert table.loc[[LITERAL.title, LIMITED.title], "nearest_share"].tolist() == [0, 1]
    document = second_stage(Material(run, "quick", NOWHERE, pd.DataFrame(), [COCO]), COCO).markdown()
    assert "3 of 4 lie outside" in document
    assert f'"{LIMITED.title}" comes nearest of those tried, with a factor of 1.00' in document
    assert document.splitlines()[0].endswith(f"COCO-2017 network: {SUBSTITUTION}")


def _unsettled() -> pd.DataFrame:
    units = []
    for sample in range(12):
        better, worse = (LITERAL, LIMITED) if sample % 2 else (LIMITED, LITERAL)
        units += _units(better, sample, "bus", NEAR) + _units(worse, sample, "bus", FAR)
    return _run(units)


def _mostly_small() -> pd.DataFrame:
    """A few small predictions, whose ratios are large, do not hide that most are far below one."""
    units = []
    for sample in range(20):
        ratios = (90.0, 90.0) if sample == 0 else (0.8, 0.3)
        units += _units(LITERAL, sample, "bus", ((0.98, 9.0), (0.99, ratios[0])))
        units += _units(LIMITED, sample, "bus", ((0.6, 9.0), (0.9, ratios[1])))
    return _run(units)


@pytest.mark.parametrize(
    ("run", "said", "unsaid"),
    [
        (lambda: _many(images=9), "**No verdict**: too few images (9, with 9", "does not reproduce"),
        (lambda: _many(near=((0.7, 1.5), (0.9, 0.4))), "4 of 4 numbers lie outside its intervals too", "No verdict"),
        (lambda: _many(first=NEAR, near=FAR), "The literal reading itself comes nearest", "about the code"),
        (_unsettled, "the order of the readings is not settled", "No verdict"),
        (_mostly_small, "says more about the code than about segmentation", "is far below 1"),
    ],
)
def test_the_verdict_says_no_more_than_the_intervals(run: Callable[[], pd.DataFrame], said: str, unsaid: str) -> None:
    text = " ".join(verdict(_table(run())).partition("Every cell")[0].split())
    assert said in text
    assert unsaid not in text
