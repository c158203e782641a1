"""Verdicts on records where every one of them is known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from paper_records import ORGANS, TRIANGLE, frame, organ, photo, run_of, save_map, unit

from misure.paper.claims import COLUMNS, Verdict, claims, claims_document, claims_json, inconsistencies
from misure.paper.claims.comparisons import accuracy_above_majority, times
from misure.paper.claims.records import PairRecords
from misure.paper.material import Material
from misure.paper.query import latest_run, shown_pairs

N = 14
"""Images: the smallest p that 2^14 signs can give, 2^-13, survives the correction for the claims of one dataset."""

TRUTH = {  # explainer: {threshold: (Dice explained, ratio)}, as the paper says except that MSR is 5 times lower, not 10
    "msr": {None: (0.90, 0.5)},
    "sufficient_region": {None: (0.95, 1.0)},
    "rise": {0.2: (0.99, 9.0), 0.4: (0.80, 6.0)},
    "seg_grad_cam": {0.05: (0.60, 5.0), 0.1: (0.50, 2.5)},
}
SECONDS = {"msr": 3.0, "sufficient_region": 0.5, "rise": 5.0, "seg_grad_cam": 0.1}

Judged = dict[str, SimpleNamespace]


def _records(truth: dict[str, dict[float | None, tuple[float, float]]], n: int = N, **columns: Any) -> pd.DataFrame:
    """Records of Triangle whose every sample differs a little from the truth, in the same way for all methods."""
    units = []
    for sample in range(n):
        for name, results in truth.items():
            rows = unit(name, sample, {"n_masks": 500} if name == "rise" else {}, seconds=SECONDS[name], **columns)
            for row in rows:
                dice, ratio = results[None if math.isnan(row["threshold"]) else row["threshold"]]
                row |= {"dice_explained": dice - sample / 1000, "perturbation_ratio": ratio + sample / 1000}
                row |= {"prediction_size": 100 + sample, "n_dilations": 1.0}
            units.append(rows)
    return frame(*units)


def _material(records: pd.DataFrame, dataset: str, profile: str = "quick", maps: Path = Path("nowhere")) -> Material:
    """Return what the claims about a dataset, or without one about all of them, are made from."""
    run = latest_run(records, profile)
    pairs = [pair for pair in shown_pairs(run) if dataset in {"", pair.dataset}]
    return Material(run, profile, maps, pd.DataFrame(), pairs)


def _judged(records: pd.DataFrame, dataset: str = "triangle", model: str | None = None, **material: Any) -> Judged:
    """Return the rows of claims by name, with the records that they rest on."""
    every = claims(_material(records, dataset, **material))
    rows = [SimpleNamespace(**claim.row(), units=claim.units) for claim in every]
    return {row.id: row for row in rows if model in {None, row.model}}


@pytest.fixture(scope="module")
def judged() -> Judged:
    return _judged(_records(TRUTH))


HOLDS = [
    *("rise-best-dice", "msr-second-dice", "msr-lowest-ratio", "msr-ratio-below-1", "threshold-rise", "threshold-cam"),
    *(
        "stage2-prunes",
        "cam-poor",
        "rise-slowest",
        "cam-fastest",
        "msr-seconds",
        "msr-3-to-4-seconds",
    ),
]
FAILS = ["msr-order-of-magnitude", "msr-two-thirds", "rise-minutes", "size-ratio-constant"]
"""5 s with 500 masks are 20 s with 2000; the ratio rises with the size in every sample."""
OPEN = ["lr-best-ratio", "mask-224-best-dice", "map-on-boundary", "size-dilations-constant"]


def test_known_truth(judged: Judged) -> None:
    expected = dict.fromkeys(HOLDS, "holds") | dict.fromkeys(FAILS, "does not hold")
    expected |= dict.fromkeys(OPEN, "cannot be told from this data")
    assert {name: judged[name].verdict for name in expected} == expected


def test_the_shown_statistic_is_that_of_the_comparison_it_hangs_on(judged: Judged) -> None:
    weakest = judged["rise-best-dice"]
    assert weakest.statistic == "mean difference in Dice explained, RISE at 0.2 minus MSR"
    assert (weakest.value, weakest.low, weakest.high) == pytest.approx((0.09, 0.09, 0.09))
    assert (weakest.n, weakest.n_groups) == (N, N)
    assert weakest.p == pytest.approx(2**-13, abs=1.4e-4), "within 4 standard errors of 100,000 draws"
    shift = (N - 1) / 2000
    nearest = pytest.approx((2.5 + shift) / (0.5 + shift), rel=1e-5)  # leaving out corrects by spread^2 / 14, 5e-6 here
    assert judged["msr-order-of-magnitude"].value == nearest
    assert judged["rise-minutes"].value == pytest.approx(20)


def test_a_stand_in_and_the_smoke_profile_support_nothing() -> None:
    generated, smoke = (
        _judged(_records(TRUTH, stand_in=True)),
        _judged(_records(TRUTH, profile="smoke"), profile="smoke"),
    )
    for name in ("rise-best-dice", "msr-order-of-magnitude", "size-ratio-constant"):
        assert (generated[name].verdict, smoke[name].verdict) == (Verdict.STAND_IN, Verdict.OPEN)
        assert math.isfinite(generated[name].value), "the number is still shown"
        assert generated[name].stand_in
    assert generated["lr-best-ratio"].verdict == Verdict.STAND_IN, "too little of it is a stand-in still"


@pytest.mark.parametrize(("quality", "verdict"), [(0.69, Verdict.OPEN), (0.71, Verdict.HOLDS), (None, Verdict.HOLDS)])
def test_a_network_too_bad_to_explain_decides_nothing(quality: float | None, verdict: Verdict) -> None:
    claim = _judged(_records(TRUTH).assign(val_dice=quality))["rise-best-dice"]
    assert (claim.verdict, claim.val_dice) == (verdict, pytest.approx(quality or math.nan, nan_ok=True))
    assert claim.value == pytest.approx(0.09), "the number is still shown"


def test_seconds_of_several_images_together_are_not_those_of_one() -> None:
    records = _records(TRUTH)
    judged = _judged(records.assign(batch_size=np.where(records["explainer"].eq("msr"), 4, 1)))
    for name in ("msr-seconds", "rise-slowest"):
        assert judged[name].verdict == Verdict.OPEN
        assert "4 images were explained together" in judged[name].why
    assert judged["rise-minutes"].verdict == Verdict.FAILS, "RISE's are of one image"


def test_a_processor_s_seconds_are_compared_with_each_other_alone() -> None:
    judged = _judged(_records(TRUTH).assign(device="CPU, 2 threads"))
    absolute = ("msr-seconds", "msr-3-to-4-seconds", "rise-minutes")
    assert [judged[name].verdict for name in absolute] == [Verdict.OPEN] * len(absolute)
    assert not any("misure reproduce" in judged[name].why for name in absolute), "the same machine cannot tell more"
    assert judged["rise-slowest"].verdict == _judged(_records(TRUTH))["rise-slowest"].verdict != Verdict.OPEN


def test_seconds_of_different_devices_are_not_compared() -> None:
    records = _records(TRUTH)
    elsewhere = records["explainer"].eq("rise") & records["sample"].lt(4)
    judged = _judged(records.assign(device=np.where(elsewhere, "a GPU", "another GPU")))
    assert (judged["rise-slowest"].verdict, judged["rise-slowest"].n) == (Verdict.HOLDS, N - 4)
    assert "(on another GPU)" in judged["msr-seconds"].statement
    assert "(on a GPU, another GPU)" in judged["rise-minutes"].statement


def test_claims_compare_numbers_of_one_precision() -> None:
    """What exists in the other precision alone is not there."""
    records = _records(TRUTH)
    judged = _judged(records.assign(precision=np.where(records["explainer"].eq("rise"), "bf16", "32")))
    assert judged["rise-best-dice"].verdict == Verdict.OPEN
    assert judged["stage2-prunes"].verdict == Verdict.HOLDS


def test_no_second_place_for_what_comes_first() -> None:
    judged = _judged(_records(TRUTH | {"msr": {None: (1.0, 0.5)}}))
    assert judged["msr-second-dice"].verdict == judged["rise-best-dice"].verdict == Verdict.FAILS
    assert judged["msr-second-dice"].statistic == "mean difference in Dice explained, RISE at 0.2 minus MSR"


def test_a_factor_is_told_where_sizes_differ_by_orders_of_magnitude() -> None:
    """The sufficient region keeps twice as much of every object: p belongs to the factor, not to the largest."""
    records = _records({"msr": TRUTH["msr"], "sufficient_region": TRUTH["sufficient_region"]})
    scale = 10.0 ** (records["sample"] % 4)
    records["perturbation_ratio"] = np.where(records["explainer"].eq("msr"), 1.0, 2.0) * scale
    pair = PairRecords(_material(records, "triangle"), TRIANGLE)
    found = [times(pair, metric="perturbation_ratio", higher="SR", lower="MSR", factor=of) for of in (1.9, 2.1)]
    assert [one.agrees for one in found] == [True, False]
    assert all(one.p < 0.001 for one in found)
    assert all((one.value, one.low, one.high) == pytest.approx((2, 2, 2)) for one in found)
    records.loc[records["explainer"].eq("msr"), "perturbation_ratio"] = 0.0
    nothing = times(
        PairRecords(_material(records, "triangle"), TRIANGLE),
        metric="perturbation_ratio",
        higher="SR",
        lower="MSR",
        factor=10,
    )
    assert nothing.agrees
    assert "minus 10 times" in nothing.statistic


def test_a_correlation_with_what_never_differs_is_undefined() -> None:
    constant = _judged(_records(TRUTH))["size-dilations-constant"]
    assert math.isnan(constant.value)
    assert "all 14 values are 1.000" in constant.why
    assert "misure reproduce" not in constant.why, "more objects of the same kind do not supply a difference"
    records = _records({"msr": TRUTH["msr"]}, n=200)
    varied = _judged(records.assign(n_dilations=records["sample"] % 2))["size-dilations-constant"]
    # the interval of no correlation in 200 samples is 0 +- 1.96 / sqrt(197) = 0.14, well inside 0.3
    assert (varied.verdict, varied.n) == (Verdict.HOLDS, 200)


def test_pixels_kept_that_grow_with_the_root_of_the_size() -> None:
    units = []
    for sample in range(2 * N):
        size = 100 + 50 * sample
        columns = {"prediction_size": size, "perturbation_ratio": (1 + sample % 2 / 10) / math.sqrt(size)}
        units.append(photo("msr", sample, "bus", n_dilations=float(-sample), **columns))
    judged = _judged(frame(*units), "coco")
    grown = judged["size-kept-less-than-proportional"]
    assert (grown.verdict, grown.n_groups) == (Verdict.HOLDS, 2 * N)
    assert grown.low < 0.5 < grown.high < 1
    assert judged["size-ratio-falls"].verdict == Verdict.HOLDS


def test_too_few_or_unclear_samples_tell_nothing() -> None:
    few = _judged(_records(TRUTH, n=5))["rise-best-dice"]
    assert few.verdict == Verdict.OPEN
    assert "too few images (5" in few.why
    records = _records(TRUTH)
    odd = records["explainer"].eq("rise") & records["sample"].mod(2).eq(1)
    records.loc[odd, "dice_explained"] = 0.6
    assert _judged(records)["rise-best-dice"].verdict == Verdict.OPEN, "the difference changes sides"


def test_objects_of_one_image_are_one_group(judged: Judged) -> None:
    records = _records(TRUTH)
    twice = pd.concat([records, records.assign(class_id=2, unit=records["unit"] + "b")], ignore_index=True)
    once, doubled = judged["rise-best-dice"], _judged(twice)["rise-best-dice"]
    assert (doubled.n, doubled.n_groups) == (2 * N, N)
    assert doubled.p == once.p
    assert (doubled.low, doubled.high) == pytest.approx((once.low, once.high))


def test_means_over_shared_samples_against_a_plain_grouping() -> None:
    records = _records(TRUTH)
    records = records[~(records["explainer"].eq("rise") & records["sample"].lt(4))]
    records["dice_explained"] += np.random.default_rng(0).normal(0, 0.05, len(records))
    shared = records[records["sample"].ge(4)].fillna({"threshold": 0})
    means = shared.groupby(["explainer", "threshold"])["dice_explained"].mean()
    others = [("msr", 0.0), ("rise", 0.4), ("seg_grad_cam", 0.05), ("seg_grad_cam", 0.1)]
    claim = _judged(records)["rise-best-dice"]
    assert claim.n == N - 4
    assert claim.value == pytest.approx(min(means["rise", 0.2] - means[other] for other in others)), "the weakest"


def _varied(results: dict[str, tuple[dict[str, Any], float, float]]) -> pd.DataFrame:
    """MSR's records at parameters, with a Dice explained and a ratio each."""
    units = []
    for sample in range(N):
        for parameters, dice, ratio in results.values():
            columns = {"dice_explained": dice + sample / 1e4, "perturbation_ratio": ratio + sample / 1e4}
            units.append(unit("msr", sample, parameters, prediction_size=9 + sample, n_dilations=0.0, **columns))
    return frame(*units)


@pytest.mark.parametrize(("cost", "verdict"), [(0.01, Verdict.HOLDS), (-0.1, Verdict.HOLDS), (0.04, Verdict.FAILS)])
def test_balance_allows_a_small_loss(cost: float, verdict: Verdict) -> None:
    cells = {0.001: (0.9, 0.9), 0.01: (0.9 - cost, 0.6), 0.1: (0.5, 0.2)}
    judged = _judged(_varied({str(lam): ({"lam": lam}, *numbers) for lam, numbers in cells.items()}))
    assert judged["lambda-0.01-best-balance"].verdict == verdict
    assert judged["lambda-0.1-lowest-ratio"].verdict == Verdict.HOLDS
    assert judged["lambda-0.1-costs-dice"].verdict == Verdict.HOLDS


def test_the_mask_size_that_changes_a_mean_by_the_larger_factor() -> None:
    judged = _judged(_varied({"small": ({"mask_size": 56}, 0.4, 4.0), "large": ({}, 0.8, 0.5)}))
    factor = judged["mask-size-matters-for-ratio"]
    means = [value + (N - 1) / 2e4 for value in (4.0, 0.5, 0.4, 0.8)]
    assert factor.value == pytest.approx(math.log(means[0] / means[1]) - math.log(means[3] / means[2]))
    assert factor.verdict == Verdict.HOLDS
    zero = _judged(_varied({"small": ({"mask_size": 56}, 0.4, 4.0), "large": ({}, 0.8, -(N - 1) / 1e4)}))
    assert "a mean is 0, which has no factor" in zero["mask-size-matters-for-ratio"].why


def test_a_trend_is_counted_organ_by_organ_and_volumes_are_drawn_whole() -> None:
    units = []
    for volume in range(N):
        for number, label in enumerate(ORGANS[:4]):
            size = 100 * (number + 1) + volume  # larger organs have more dilations, larger ones of an organ fewer
            columns = {"n_dilations": 50.0 * number - volume, "prediction_size": size, "stand_in": False}
            units.append(organ("msr", volume, label, **columns))
    claim = _judged(frame(*units), "synapse", "U-Net")["size-dilations-falls"]
    assert claim.verdict == Verdict.HOLDS, claim.why
    assert (claim.value, claim.n, claim.n_groups) == (pytest.approx(-1), 4 * N, N)
    assert "over 4 classes" in claim.statistic


def test_networks_are_paired_by_sample_where_both_explained_it() -> None:
    units = []
    for sample in range(N):
        for model, dice in (("unet_resnet34", 0.8), ("transunet", 0.2)):
            described = {"model": model, "stand_in": False, "dice_explained": dice + sample / 100}
            units.append(organ("seg_grad_cam", sample, "Aorta", **described))
    records = frame(*units)
    paired = _judged(records, "synapse")["cam-worse-on-transformer"]
    assert (paired.verdict, paired.n, paired.model) == (Verdict.HOLDS, N, "")
    assert (paired.low, paired.high) == pytest.approx((0.6, 0.6)), "the same samples: no spread"
    apart = records.assign(sample=records["sample"] + 100 * records["model"].eq("transunet"))
    unpaired = _judged(apart, "synapse")["cam-worse-on-transformer"]
    assert "own samples" in unpaired.statistic
    assert (unpaired.n, unpaired.value) == (2 * N, pytest.approx(0.6))
    assert unpaired.low < 0.59


def test_maps_that_agree_on_one_network(tmp_path: Path) -> None:
    units = [
        organ(name, sample, "Aorta", {"n_masks": 9} if name == "rise" else {}, model=model, stand_in=False)
        for sample in range(N)
        for model in ("unet_resnet34", "transunet")
        for name in ("seg_grad_cam", "rise")
    ]
    noise = np.random.default_rng(0)
    for rows in units:
        first = rows[0]
        agrees = first["model"] == "unet_resnet34"
        noisy = np.arange(64.0).reshape(8, 8) if agrees else noise.random((8, 8))
        save_map(tmp_path, first["unit"], noisy)
    claim = _judged(frame(*units), "synapse", maps=tmp_path)["cam-follows-rise-on-unet"]
    assert (claim.verdict, claim.n, claim.n_records) == (Verdict.HOLDS, N, 4 * N)
    assert "same samples" in claim.statistic


@pytest.mark.parametrize(("on_contour", "verdict"), [(True, Verdict.HOLDS), (False, Verdict.FAILS)])
def test_mass_on_and_off_the_contour(tmp_path: Path, on_contour: bool, verdict: Verdict) -> None:
    saliency = np.zeros((224, 224), np.float16)  # save_map's object is the upper left quarter, its contour at 112
    saliency[109:112, :112] = on_contour
    saliency[:20, :20] = 0.01 if on_contour else 1.0
    records = _records({"msr": TRUTH["msr"]})
    for number, name in enumerate(records["unit"]):
        save_map(tmp_path, name, saliency * (1 - number / 100))
    judged = _judged(records, maps=tmp_path)
    assert judged["map-on-boundary"].verdict == verdict, judged["map-on-boundary"].why
    assert judged["msr-finer-than-rise"].verdict == Verdict.OPEN


def test_reliability_is_judged_by_held_out_volumes() -> None:
    units = []
    chance = np.random.default_rng(0)
    for sample in range(160):
        good = bool(chance.random() < 0.5)
        columns = {"n_dilations": 1.0 if good else 9.0 + chance.random(), "truth_dice": 0.95 if good else 0.4}
        columns |= {"prediction_size": int(chance.integers(100, 200)), "group": f"case{sample % 16}", "stand_in": False}
        units.append(organ("msr", sample, ORGANS[sample % 2], **columns))
    records = frame(*units)
    judged = _judged(records, "synapse", "U-Net")
    material = _material(records, "synapse")
    pair = PairRecords(material, next(pair for pair in material.pairs if pair.model_label == "U-Net"))
    accuracy = accuracy_above_majority(pair, organ="All organs")
    assert accuracy.value == pytest.approx(1 - pair.organs["All organs"].majority_accuracy), "always right"
    assert accuracy.agrees
    pooled = judged["reliability-all-organs"]
    assert (pooled.verdict, pooled.value, pooled.n_groups) == (Verdict.HOLDS, pytest.approx(0.5), 16)
    assert judged["reliability-beyond-size"].verdict == Verdict.HOLDS
    assert judged["reliability-each-organ"].verdict == Verdict.OPEN, "six organs have no records"


def test_a_claim_over_all_datasets_does_not_mark_one_as_a_stand_in() -> None:
    units = []
    for sample in range(8):
        for name in ("msr", "seg_grad_cam"):
            lead = 0.5 if name == "seg_grad_cam" else 0
            units.append(unit(name, sample, dice_explained=0.9 - sample / 100 - lead, stand_in=True))
            units.append(photo(name, sample, "bus", dice_explained=0.9 - sample / 100))
    run = run_of(*units)
    pairs = [pair for pair in shown_pairs(run) if pair.dataset != "synapse"]
    judged = claims(Material(run, "quick", Path("nowhere"), pd.DataFrame(), pairs))
    claim = next(claim for claim in judged if claim.finding.id == "cam-best-on-coco")
    row = claim.row()
    assert (row["dataset"], row["verdict"], row["value"]) == ("all", Verdict.STAND_IN, pytest.approx(0.5))
    assert row["stand_in"]
    assert "stand-in" not in claims_document([claim], pd.DataFrame(), "").splitlines()[0]


def test_json_names_the_records_of_the_methods_compared() -> None:
    records = _records(TRUTH)
    every = claims(_material(records, "triangle"))
    assert tuple(every[0].row()) == COLUMNS
    stored = {claim["id"]: claim for claim in json.loads(json.dumps(claims_json(every), allow_nan=False))}
    assert len(stored) == len(every)
    units = records.set_index("unit")["explainer"][stored["stage2-prunes"]["units"]]
    assert set(units) == {"msr", "sufficient_region"}
    assert stored["rise-best-dice"]["n_records"] == 3 * N, "thresholds share their record"
    hole = stored["lr-best-ratio"]
    assert hole["p"] is hole["p_adjusted"] is None
    assert "misure reproduce profile=quick only=table2" in hole["why"]


def test_without_any_record_every_claim_is_open() -> None:
    material = _material(frame(), "")
    every = claims(material)
    assert {claim.verdict for claim in every} == {Verdict.OPEN}
    assert all(claim.row()["n"] == 0 and not claim.units for claim in every)
    assert claims_document(every, inconsistencies(material), "").count("\n## Section ") == 8
    assert claims_document([], pd.DataFrame(), "")
