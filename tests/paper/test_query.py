"""Which records count: never two profiles, weights, datasets or settings at once, no sample twice."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from paper_records import frame, organ, photo, run_of, unit

from misure.errors import MisureError
from misure.paper.published import PAIRS
from misure.paper.query import (
    Tally,
    at_threshold,
    class_labels,
    further_pairs,
    in_class,
    latest_run,
    paper_draw,
    select,
    select_and_tally,
    shown_pairs,
)

EARLY, LATE = "2026-11-01T00:00:00+00:00", "2026-11-02T00:00:00+00:00"


def _samples(rows: pd.DataFrame) -> list[int]:
    return rows["sample"].tolist()


def test_profiles_are_not_mixed() -> None:
    records = frame(unit("msr", 0), unit("msr", 1, profile="paper"))
    assert _samples(latest_run(records, "quick")) == [0]
    assert _samples(latest_run(records, "paper")) == [1]
    assert latest_run(records, "smoke").empty


@pytest.mark.parametrize("column", ["weights", "dataset_fingerprint"])
def test_only_the_newest_weights_and_dataset_count(column: str) -> None:
    records = frame(
        unit("msr", 0, created=EARLY, **{column: "a" * 16}),
        unit("msr", 1, created=LATE, **{column: "b" * 16}),
        unit("rise", 2, created=EARLY, **{column: "b" * 16}),
        unit("msr", 3, created=EARLY, dataset="other", **{column: "c" * 16}),
    )
    run = latest_run(records, "quick")
    assert set(run["sample"]) == {1, 2, 3}


def test_times_of_other_zones_are_compared_as_times() -> None:
    records = frame(
        unit("msr", 0, created="2026-11-01T23:30:00+02:00", weights="a" * 16),
        unit("msr", 1, created="2026-11-01T22:00:00+00:00", weights="b" * 16),
    )
    assert _samples(latest_run(records, "quick")) == [1]


def test_records_of_another_shape_are_refused() -> None:
    with pytest.raises(MisureError, match="lack the columns weights"):
        latest_run(frame(unit("msr", 0)).drop(columns="weights"), "quick")
    with pytest.raises(MisureError, match="not ISO 8601"):
        run_of(unit("msr", 0, created="yesterday"))
    assert latest_run(pd.DataFrame(), "quick").empty


def test_default_parameters_unless_overridden() -> None:
    run = run_of(
        unit("msr", 0),
        unit("msr", 1, {"lr": 0.01}),
        unit("msr", 2, {"lr": 0.01, "lam": 0.1}),
        unit("msr", 3, {"returned": "best"}),
        unit("sufficient_region", 4),
    )
    assert _samples(select(run, "msr")) == [0]
    assert _samples(select(run, "msr", lr=0.01)) == [1]
    assert _samples(select(run, "msr", lr=0.01, lam=0.1)) == [2]
    assert _samples(select(run, "msr", returned="best")) == [3]
    assert select(run, "msr", lr=0.001).empty


def test_none_booleans_and_lists_are_compared() -> None:
    run = run_of(
        unit("seg_grad_cam", 0),
        unit("seg_grad_cam", 1, {"layer": "encoder"}),
        unit("rise", 2, {"shift": False}),
        unit("rise", 3, {"thresholds": [0.3]}),
        unit("rise", 4),
    )
    assert set(select(run, "seg_grad_cam")["sample"]) == {0}
    assert set(select(run, "seg_grad_cam", layer="encoder")["sample"]) == {1}
    assert set(select(run, "rise", shift=False)["sample"]) == {2}
    assert set(select(run, "rise")["sample"]) == {3, 4}
    assert set(select(run, "rise", thresholds=[0.3])["sample"]) == {3}


def test_unknown_names_are_refused() -> None:
    run = run_of(unit("msr", 0))
    with pytest.raises(MisureError, match=r"no method 'mrs'.*msr"):
        select(run, "mrs")
    with pytest.raises(MisureError, match="no parameter 'lambda'"):
        select(run, "msr", **{"lambda": 0.1})


def test_noise_repeats_and_unfinished_samples_do_not_count() -> None:
    run = run_of(
        unit("msr", 0),
        unit("msr", 0, input_noise=1e-6),
        unit("msr", 1, status="skipped", reason="class 1 was not predicted"),
        unit("msr", 2, status="failed", reason="out of memory"),
        unit("msr", 3, {"lr": 0.01}, status="skipped"),
    )
    assert _samples(select(run, "msr")) == [0]
    assert select_and_tally(run, "msr")[1] == Tally(skipped=1, failed=1)
    assert select_and_tally(run, "msr", lr=0.01)[1] == Tally(skipped=1, failed=0)


def test_a_run_in_which_everything_was_skipped() -> None:
    skipped = frame(unit("msr", 0, status="skipped", reason="nothing to explain"))
    records = skipped.drop(columns=["threshold", "dice_explained", "seconds", "precision"])
    run = latest_run(records, "quick")
    assert select(run, "msr").empty
    assert select_and_tally(run, "msr")[1].skipped == 1


def test_the_mask_count_with_most_samples_is_taken() -> None:
    def rise(sample: int, n_masks: int, created: str) -> list[dict[str, Any]]:
        return unit("rise", sample, {"n_masks": n_masks}, created=created)

    units = [rise(0, 300, EARLY), rise(1, 300, EARLY), rise(0, 2000, LATE)]
    few = at_threshold(select(run_of(*units), "rise"), 0.2)
    assert few["param_n_masks"].tolist() == [300, 300]
    run = run_of(*units, rise(1, 2000, LATE))
    assert at_threshold(select(run, "rise"), 0.2)["param_n_masks"].tolist() == [2000, 2000]
    assert set(select(run, "rise", n_masks=300)["param_n_masks"]) == {300}


def test_a_sample_counts_once_and_the_newest_record_wins() -> None:
    run = run_of(
        unit("msr", 0, created=LATE, precision="bf16", dice_explained=0.7),
        unit("msr", 0, created=EARLY, precision="32", dice_explained=0.6),
    )
    assert select(run, "msr")["dice_explained"].tolist() == [0.7]


def test_a_cell_has_one_precision() -> None:
    lowered = [unit("msr", sample, created=LATE, precision="bf16", dice_explained=0.5) for sample in (0, 1)]
    full = [unit("msr", sample, created=EARLY, precision="32", dice_explained=0.9) for sample in (0, 1, 2)]
    assert set(select(run_of(*lowered, *full), "msr")["dice_explained"]) == {0.9}
    assert set(select(run_of(*lowered, *full[:2]), "msr")["dice_explained"]) == {0.5}


def test_thresholds() -> None:
    rows = select(run_of(unit("rise", 0), unit("rise", 1)), "rise")
    assert _samples(at_threshold(rows, 0.4)) == [0, 1]
    assert at_threshold(rows, 0.3).empty
    assert at_threshold(rows, None).empty


def test_only_a_pairs_first_draws_of_each_class_count() -> None:
    run = run_of(
        organ("msr", 0, "Aorta", draw=0),
        organ("msr", 1, "Aorta", draw=49),
        organ("msr", 2, "Aorta", draw=50),
        organ("msr", 3, "Liver", draw=49),
        organ("msr", 4, "Aorta", draw=0, model="transunet"),
        unit("msr", 5, draw=149),
        unit("msr", 6, draw=150),
    )
    assert [_samples(paper_draw(run, pair)) for pair in PAIRS[:3]] == [[5], [0, 1, 3], [4]]


def test_records_of_older_versions_have_no_draws_or_class_names_and_count() -> None:
    old = frame(unit("msr", 0)).drop(columns=["draw", "class_name", "group", "confidence"])
    run = latest_run(old, "quick")
    assert _samples(paper_draw(run, PAIRS[0])) == [0]
    assert class_labels(run) == ["class 1"]
    both = latest_run(
        pd.concat([old, frame(unit("msr", 1, class_name="triangle", draw=1))], ignore_index=True), "quick"
    )
    assert _samples(paper_draw(both, PAIRS[0])) == [0, 1]
    assert class_labels(both) == ["triangle"]


def test_finished_records_of_older_versions_are_of_float32() -> None:
    done, skipped = unit("msr", 0, precision=None), unit("msr", 1, precision=None, status="skipped")
    lowered = unit("msr", 2, precision="bf16")
    run = latest_run(frame(done, skipped, lowered), "quick").set_index("sample")
    assert run["precision"].dropna().to_dict() == {0: "32", 2: "bf16"}


def test_classes_are_told_by_name_whatever_its_spelling() -> None:
    run = run_of(
        organ("msr", 0, "Left Kidney", class_name="left kidney"),
        organ("msr", 1, "Gall Bladder", class_name="gallbladder"),
        organ("msr", 2, "Stomach", class_name="stomach"),
    )
    assert class_labels(run, ("Aorta", "Left Kidney")) == ["Aorta", "Left Kidney", "gallbladder", "stomach"]
    assert _samples(in_class(run, "Left Kidney")) == [0]
    assert _samples(in_class(run, "Gall Bladder")) == [1]
    assert in_class(run, "Kidney").empty
    assert class_labels(latest_run(pd.DataFrame(), "quick"), ("Aorta",)) == ["Aorta"]


def _coco_shown(run: pd.DataFrame) -> list[str]:
    return [pair.model for pair in shown_pairs(run) if pair.dataset == "coco"]


def test_one_network_stands_for_each_of_the_papers() -> None:
    stand_in = photo("msr", 0, "bus", model="deeplabv3_stand_in", stand_in=True)
    substitute = photo("msr", 0, "bus")
    published = photo("msr", 0, "bus", model="deeplabv3_resnet50", substitution="")
    unfinished = photo("msr", 1, "bus", model="deeplabv3_resnet50", status="skipped")
    assert _coco_shown(run_of()) == ["deeplabv3_resnet50"]
    assert _coco_shown(run_of(stand_in)) == ["deeplabv3_stand_in"]
    assert _coco_shown(run_of(stand_in, substitute, unfinished)) == ["deeplabv3_mobilenetv2"]
    assert _coco_shown(run_of(stand_in, substitute, published)) == ["deeplabv3_resnet50"]
    other_profile = run_of(stand_in, photo("msr", 0, "bus", profile="paper"))
    assert _coco_shown(other_profile) == ["deeplabv3_stand_in"]
    labels = [pair.label for pair in shown_pairs(other_profile)]
    assert labels == ["Triangle, U-Net", "Synapse, U-Net", "Synapse, TransUNet", "COCO-2017, DeepLabv3"]


def test_what_the_paper_does_not_have_is_named_as_the_records_spell_it() -> None:
    cells = {"dataset": "cells", "model": "tiny", "class_name": "nucleus", "draw": 400}
    wall = cells | {"class_id": 2, "class_name": "wall"}
    run = run_of(
        unit("msr", 0),
        unit("msr", 0, **cells),
        unit("msr", 1, **wall),
        unit("msr", 0, model="another"),
        unit("msr", 0, model="skipped", status="skipped"),
    )
    pairs = further_pairs(run)
    assert [(pair.label, pair.classes) for pair in pairs] == [
        ("cells, tiny", ("nucleus", "wall")),
        ("triangle, another", ()),
    ]
    assert _samples(paper_draw(run, pairs[0])) == [0, 1]
    assert pairs[0].paper_samples is None
    assert further_pairs(run_of(unit("msr", 0))) == []
