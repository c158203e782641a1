"""Verdicts on records where every one of them is known."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_records import ORGANS, frame, organ, photo, save_map, unit

from misure.paper.claims import (
    Claim,
    Verdict,
    claims,
    claims_document,
    claims_frame,
    claims_json,
    claims_tables,
    inconsistencies,
)
from misure.paper.claims.claim import Finding, Part, settle
from misure.paper.claims.comparison import network_findings
from misure.paper.claims.parameters import DICE_MARGIN
from misure.paper.claims.samples import Subject
from misure.paper.claims.seen import correlation, variation
from misure.paper.claims.verdicts import COLUMNS
from misure.paper.material import Material
from misure.paper.published import PAIRS
from misure.paper.query import latest_run, shown_pairs
from misure.paper.source import Origin

N = 14
"""Images: the smallest p that 2^14 signs can give, 2^-13, survives the correction for the claims of one dataset."""

TRIANGLE = PAIRS[0]
TRUTH = {  # explainer: {threshold: (Dice explained, ratio)}, as the paper says except that MSR is 5 times lower, not 10
    "msr": {None: (0.90, 0.5)},
    "sufficient_region": {None: (0.95, 1.0)},
    "rise": {0.2: (0.99, 9.0), 0.4: (0.80, 6.0)},
    "seg_grad_cam": {0.05: (0.60, 5.0), 0.1: (0.50, 2.5)},
}
SECONDS = {"msr": 3.0, "sufficient_region": 0.5, "rise": 5.0, "seg_grad_cam": 0.1}


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


def _material(
    records: pd.DataFrame, dataset: str = "", *, profile: str = "quick", maps: Path = Path("nowhere")
) -> Material:
    """Return what the claims about a dataset, or about all of them, are made from."""
    run = latest_run(records, profile)
    pairs = [pair for pair in shown_pairs(run) if dataset in {"", pair.dataset}]
    return Material(run, profile, maps, pd.DataFrame(), pairs)


def _judged(records: pd.DataFrame, profile: str = "quick", maps: Path = Path("nowhere")) -> dict[str, Claim]:
    """Return Triangle's claims by name."""
    return {claim.id: claim for claim in claims(_material(records, "triangle", profile=profile, maps=maps))}


@pytest.fixture(scope="module")
def judged() -> dict[str, Claim]:
    return _judged(_records(TRUTH))


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("rise-best-dice", Verdict.HOLDS),
        ("msr-second-dice", Verdict.HOLDS),
        ("msr-lowest-ratio", Verdict.HOLDS),
        ("msr-order-of-magnitude", Verdict.FAILS),
        ("msr-ratio-below-1", Verdict.HOLDS),
        ("threshold-rise", Verdict.HOLDS),
        ("threshold-cam", Verdict.HOLDS),
        ("stage2-prunes", Verdict.HOLDS),
        ("cam-poor", Verdict.HOLDS),
        ("rise-slowest", Verdict.HOLDS),
        ("rise-slowest-2000-masks", Verdict.HOLDS),
        ("cam-fastest", Verdict.HOLDS),
        ("msr-seconds", Verdict.HOLDS),
        ("rise-minutes", Verdict.FAILS),  # 5 s with 500 masks are 20 s with 2000
        ("size-dilations-constant", Verdict.HOLDS),
        ("size-ratio-constant", Verdict.FAILS),  # it rises with the size in every sample
        ("lr-best-ratio", Verdict.OPEN),
        ("mask-224-best-dice", Verdict.OPEN),
        ("map-on-boundary", Verdict.OPEN),
    ],
)
def test_known_truth(judged: dict[str, Claim], name: str, verdict: Verdict) -> None:
    assert judged[name].verdict == verdict, judged[name].why


def test_the_shown_statistic_is_that_of_the_comparison_it_hangs_on(judged: dict[str, Claim]) -> None:
    weakest = judged["rise-best-dice"]
    assert weakest.statistic == "mean difference in Dice explained, RISE at 0.2 minus MSR"
    assert (weakest.value, weakest.low, weakest.high) == pytest.approx((0.09, 0.09, 0.09))
    assert (weakest.n, weakest.n_groups) == (N, N)
    assert weakest.p == pytest.approx(2 / 10_001, rel=3), "2^-13, estimated from 10,000 draws"
    clearest = judged["msr-order-of-magnitude"]
    shift = (N - 1) / 2000
    assert clearest.value == pytest.approx((2.5 + shift) / (0.5 + shift)), "Seg-Grad-CAM at 0.1 is nearest"
    assert "against the claim" in clearest.why


def test_holes_name_what_is_missing_and_how_to_get_it(judged: dict[str, Claim]) -> None:
    hole = judged["lr-best-ratio"]
    assert "no records" in hole.why
    assert "make reproduce PROFILE=quick ONLY=table2" in hole.why
    assert math.isnan(hole.p)
    assert math.isnan(hole.p_adjusted)


def test_every_unit_is_a_record_of_the_methods_compared(judged: dict[str, Claim]) -> None:
    run = latest_run(_records(TRUTH), "quick")
    explainers = run.set_index("unit")["explainer"]
    assert set(explainers[list(judged["stage2-prunes"].units)]) == {"msr", "sufficient_region"}
    assert len(judged["rise-best-dice"].units) == 3 * N, "thresholds share their record"


def test_a_stand_in_and_the_smoke_profile_support_nothing() -> None:
    generated, smoke = _judged(_records(TRUTH, stand_in=True)), _judged(_records(TRUTH, profile="smoke"), "smoke")
    for name in ("rise-best-dice", "msr-order-of-magnitude", "size-dilations-constant"):
        assert generated[name].verdict == Verdict.STAND_IN
        assert math.isfinite(generated[name].value), "the number is still shown"
        assert generated[name].origin.stand_in
        assert smoke[name].verdict == Verdict.OPEN
        assert "smoke" in smoke[name].why
    assert generated["lr-best-ratio"].verdict == Verdict.STAND_IN, "too little of it is a stand-in still"


def test_few_images_tell_nothing_however_clear_they_are() -> None:
    few = _judged(_records(TRUTH, n=5))["rise-best-dice"]
    assert few.verdict == Verdict.OPEN
    assert "too few images (5" in few.why


def test_a_difference_that_changes_sides_tells_nothing() -> None:
    records = _records(TRUTH)
    odd = records["explainer"].eq("rise") & records["sample"].mod(2).eq(1)
    records.loc[odd, "dice_explained"] = 0.6
    claim = _judged(records)["rise-best-dice"]
    assert claim.verdict == Verdict.OPEN
    assert "not clear enough" in claim.why


def test_objects_of_one_image_are_one_group(judged: dict[str, Claim]) -> None:
    records = _records(TRUTH)
    twice = pd.concat([records, records.assign(class_id=2, unit=records["unit"] + "b")], ignore_index=True)
    once, doubled = judged["rise-best-dice"], _judged(twice)["rise-best-dice"]
    assert (doubled.n, doubled.n_groups) == (2 * N, N)
    assert doubled.p == once.p
    assert (doubled.low, doubled.high) == pytest.approx((once.low, once.high))


def test_only_samples_that_both_methods_explained_are_compared() -> None:
    records = _records(TRUTH)
    lost = records["explainer"].eq("rise") & records["sample"].lt(4)
    assert _judged(records[~lost])["rise-best-dice"].n == N - 4


def test_compared_means_against_a_plain_grouping() -> None:
    records = _records(TRUTH)
    noise = np.random.default_rng(0).normal(0, 0.05, len(records))
    records["dice_explained"] += noise
    means = records.fillna({"threshold": 0}).groupby(["explainer", "threshold"])["dice_explained"].mean()
    others = [("msr", 0.0), ("rise", 0.4), ("seg_grad_cam", 0.05), ("seg_grad_cam", 0.1)]
    leads = [means["rise", 0.2] - means[other] for other in others]
    assert _judged(records)["rise-best-dice"].value == pytest.approx(min(leads)), "the weakest"


def _cells(samples: int, dice: dict[float, float], ratio: dict[float, float]) -> pd.DataFrame:
    """MSR at learning rate 0.1 for each lambda."""
    units = []
    for sample in range(samples):
        for lam, value in dice.items():
            columns = {"dice_explained": value + sample / 1e4, "perturbation_ratio": ratio[lam] + sample / 1e4}
            units.append(unit("msr", sample, {"lam": lam}, prediction_size=9 + sample, n_dilations=0.0, **columns))
    return frame(*units)


@pytest.mark.parametrize(
    ("cost", "verdict"), [(DICE_MARGIN / 2, Verdict.HOLDS), (-0.1, Verdict.HOLDS), (2 * DICE_MARGIN, Verdict.FAILS)]
)
def test_balance_allows_a_small_loss(cost: float, verdict: Verdict) -> None:
    records = _cells(N, {0.001: 0.9, 0.01: 0.9 - cost, 0.1: 0.5}, {0.001: 0.9, 0.01: 0.6, 0.1: 0.2})
    found = _judged(records)
    assert found["lambda-0.01-best-balance"].verdict == verdict
    assert found["lambda-0.1-lowest-ratio"].verdict == Verdict.HOLDS
    assert found["lambda-0.1-costs-dice"].verdict == Verdict.HOLDS


def test_a_trend_is_counted_organ_by_organ_and_volumes_are_drawn_whole() -> None:
    units = []
    for volume in range(8):
        for number, label in enumerate(ORGANS[:4]):
            size = 100 * (number + 1) + volume  # larger organs have more dilations, larger ones of an organ fewer
            columns = {"n_dilations": 50.0 * number - volume, "prediction_size": size, "stand_in": False}
            units.append(organ("msr", volume, label, **columns))
    found = claims(_material(frame(*units), "synapse"))
    claim = next(claim for claim in found if claim.id == "size-dilations-falls" and claim.model == "U-Net")
    assert claim.verdict == Verdict.HOLDS, claim.why
    assert (claim.value, claim.n, claim.n_groups) == (pytest.approx(-1), 32, 8)
    assert "over 4 classes" in claim.statistic


def test_networks_are_paired_by_sample_where_both_explained_it() -> None:
    units = []
    for sample in range(N):
        for model, dice in (("unet_resnet34", 0.8), ("transunet", 0.2)):
            described = {"model": model, "stand_in": False, "dice_explained": dice + sample / 100}
            units.append(organ("seg_grad_cam", sample, "Aorta", **described))
    records = frame(*units)
    paired = _of_both(records)
    assert paired.verdict == Verdict.HOLDS
    assert (paired.n, paired.model) == (N, "")
    assert (paired.low, paired.high) == pytest.approx((0.6, 0.6)), "the same samples: no spread"
    apart = records.assign(sample=records["sample"] + 100 * records["model"].eq("transunet"))
    unpaired = _of_both(apart)
    assert "own samples" in unpaired.statistic
    assert (unpaired.n, unpaired.value) == (2 * N, pytest.approx(0.6))
    assert unpaired.low < 0.59


def _of_both(records: pd.DataFrame) -> Claim:
    return next(claim for claim in claims(_material(records, "synapse")) if claim.id == "cam-worse-on-transformer")


@pytest.mark.parametrize(("on_contour", "verdict"), [(True, Verdict.HOLDS), (False, Verdict.FAILS)])
def test_mass_on_and_off_the_contour(tmp_path: Path, on_contour: bool, verdict: Verdict) -> None:
    saliency = np.zeros((224, 224), np.float16)  # save_map's object is the upper left quarter, its contour at 112
    saliency[109:112, :112] = on_contour
    saliency[:20, :20] = 0.01 if on_contour else 1.0
    records = _records({"msr": TRUTH["msr"]})
    for number, name in enumerate(records["unit"]):
        save_map(tmp_path, name, saliency * (1 - number / 100))
    found = _judged(records, maps=tmp_path)
    assert found["map-on-boundary"].verdict == verdict, found["map-on-boundary"].why
    assert found["msr-finer-than-rise"].verdict == Verdict.OPEN


def test_variation_and_correlation_by_hand() -> None:
    step = {"saliency": np.array([[0.0, 2.0], [0.0, 2.0]])}
    assert variation(step) == pytest.approx(4 / 4)
    assert variation({"saliency": 3 * step["saliency"]}) == variation(step)
    assert math.isnan(variation({"saliency": np.zeros((2, 2))}))
    assert correlation(step, {"saliency": 5 - step["saliency"]}) == pytest.approx(-1)
    assert math.isnan(correlation(step, {"saliency": np.ones((2, 2))}))


def test_reliability_is_judged_by_held_out_volumes() -> None:
    units = []
    chance = np.random.default_rng(0)
    for sample in range(160):
        good = bool(chance.random() < 0.5)
        columns = {"n_dilations": 1.0 if good else 9.0 + chance.random(), "truth_dice": 0.95 if good else 0.4}
        columns |= {"prediction_size": int(chance.integers(100, 200)), "group": f"case{sample % 16}", "stand_in": False}
        units.append(organ("msr", sample, ORGANS[sample % 2], **columns))
    records = frame(*units)
    found = {claim.id: claim for claim in claims(_material(records, "synapse")) if claim.model == "U-Net"}
    assert found["reliability-all-organs"].verdict == Verdict.HOLDS
    assert found["reliability-all-organs"].value == pytest.approx(0.5)
    assert found["reliability-all-organs"].n_groups == 16
    assert found["reliability-beyond-size"].verdict == Verdict.HOLDS
    assert found["reliability-each-organ"].verdict == Verdict.OPEN, "six organs have no records"


def test_a_substitution_is_named_in_the_row() -> None:
    units = [photo("msr", sample, "bus", perturbation_ratio=0.2 + sample / 1000) for sample in range(N)]
    found = claims(_material(frame(*units), "coco"))
    claim = next(claim for claim in found if claim.id == "msr-ratio-below-1")
    assert claim.verdict == Verdict.HOLDS
    assert "with the MobileNetV2 substitution" in claim.why


def test_tables_and_json(judged: dict[str, Claim]) -> None:
    material = _material(_records(TRUTH), "triangle")
    tables = {name: (numbers, document) for name, numbers, document in claims_tables(material)}
    numbers, document = tables["claims"]
    assert tuple(numbers.columns) == COLUMNS
    assert not numbers.duplicated(["id", "dataset", "model"]).any()
    assert "**does not hold**" in document
    assert "Holm" in document
    stored = json.loads(json.dumps(claims_json(claims(material)), allow_nan=False))
    assert len(stored) == len(numbers)
    held = next(claim for claim in stored if claim["id"] == "rise-best-dice")
    assert tuple(held["units"]) == judged["rise-best-dice"].units
    assert held["n_records"] == 3 * N


def test_without_any_record_every_claim_is_open() -> None:
    material = _material(frame())
    found = claims(material)
    assert {claim.verdict for claim in found} == {Verdict.OPEN}
    assert all(claim.n == 0 and not claim.units for claim in found)
    assert claims_frame([]).empty
    assert claims_document(found, inconsistencies(material), "")


def test_a_claim_over_all_datasets_does_not_mark_one_as_a_stand_in() -> None:
    units = []
    for sample in range(8):
        for name in ("msr", "seg_grad_cam"):
            dice = {"dice_explained": 0.9 - sample / 100 - (0.5 if name == "seg_grad_cam" else 0)}
            units += [organ(name, sample, "Aorta", **dice), unit(name, sample, **dice)]
            units.append(photo(name, sample, "bus", **(dice | {"dice_explained": 0.9 - sample / 100})))
    material = _material(frame(*units))
    subjects = {pair: Subject(material, pair) for pair in material.pairs}
    claim = settle(network_findings(subjects), "quick")[-1]
    assert (claim.id, claim.dataset, claim.verdict) == ("cam-best-on-coco", "all", Verdict.STAND_IN), "no TransUNet"
    recorded = {pair: subject for pair, subject in subjects.items() if pair.model != "transunet"}
    (claim,) = settle(network_findings(recorded), "quick")
    assert (claim.verdict, claim.value) == (Verdict.STAND_IN, pytest.approx(0.5))
    assert claim.origin.stand_in
    title = claims_document([claim], pd.DataFrame(), "").splitlines()[0]
    assert "stand-in" not in title


def test_inconsistencies_have_the_papers_numbers_beside_ours() -> None:
    found = inconsistencies(_material(_records(TRUTH)))
    ratio = found[(found["id"] == "order-of-magnitude") & (found["dataset"] == "Triangle")]
    assert "RISE at 0.4 (9.3 times)" in ratio["contradiction"].iloc[0]
    assert ratio["paper"].tolist() == [0.63, 5.83]
    np.testing.assert_allclose(ratio["ours"], [0.5 + (N - 1) / 2000, 6 + (N - 1) / 2000])
    ids = {key: set(rows["id"]) for key, rows in found.groupby(["dataset", "model"])}
    assert {"ratio-below-1", "best-learning-rate", "best-mask-size", "second-in-dice"} <= ids["Triangle", "U-Net"]
    assert {"same-setting", "best-learning-rate", "order-of-magnitude"} <= ids["Synapse", "TransUNet"]
    assert "decimal-comma" in ids["COCO-2017", "DeepLabv3"]
    assert "best-learning-rate" not in ids["Synapse", "U-Net"], "Table 3 agrees with the text"


_PARTS = st.lists(st.builds(Part, st.just("x"), st.just(1.0), p=st.floats(1e-6, 1), agrees=st.booleans()), min_size=1)


@given(_PARTS)
def test_a_composite_is_never_clearer_than_its_parts(parts: list[Part]) -> None:
    finding = Finding("a", "5.2", "b", TRIANGLE, parts, Origin("", stand_in=False), "table1")
    (claim,) = settle([finding], "quick")
    assert 0 < claim.p <= claim.p_adjusted <= 1
    if claim.verdict == Verdict.HOLDS:
        assert all(part.agrees and part.p < 0.05 for part in parts)
    if claim.verdict == Verdict.FAILS:
        assert any(not part.agrees and part.p * len(parts) < 0.05 for part in parts)


def test_a_contradiction_counts_although_another_comparison_lacks_records() -> None:
    parts = [Part("x", missing="x: no records"), Part("y", 0.1, p=0.001, agrees=False)]
    finding = Finding("a", "5.2", "b", TRIANGLE, parts, Origin("", stand_in=False), "table1")
    assert settle([finding], "quick")[0].verdict == Verdict.FAILS
    unclear = dataclasses.replace(finding, parts=[parts[0], dataclasses.replace(parts[1], p=0.5)])
    claim = settle([unclear], "quick")[0]
    assert claim.verdict == Verdict.OPEN
    assert "1 of 2 comparisons lack records" in claim.why
    agreeing = dataclasses.replace(finding, parts=[parts[0], dataclasses.replace(parts[1], agrees=True)])
    assert math.isnan(settle([agreeing], "quick")[0].p), "what is missing could still contradict"
