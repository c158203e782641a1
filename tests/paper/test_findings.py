"""Findings: the sentence that the numbers choose, the numbers in it, and the records named for it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from paper_records import COCO, TRIANGLE, UNET, organ, photo, run_of, unit

from misure.paper.claims import Claim, Verdict
from misure.paper.claims.claim import Evidence, Finding
from misure.paper.extensions.equal_ratio import like_for_like_tables
from misure.paper.extensions.second_stage import second_stage
from misure.paper.findings import Cell, KeyFinding, findings_document, findings_json, key_findings
from misure.paper.material import Material
from misure.paper.published import Pair, shipped
from misure.paper.query import shown_pairs
from misure.paper.reliability import table7
from misure.paper.source import Origin
from misure.paper.table import Table
from misure.paper.tables.paper import lr_lambda, table1, table6

N = 6
"""The fewest that are judged."""

DESCRIBED = shipped("findings.yaml")["findings"]
OUTCOMES = {"against": {"same", "higher", "lower"}, "judged_by": {"holds", "fails", "open"}}
RATIOS = {"msr": 0.7, "sufficient_region": 1.0, "prediction": 1.0, "random_map": 20.0, "rise": 30.0}
DICE = {"prediction": 0.99}


def _units() -> list[list[dict[str, Any]]]:
    units = []
    for sample in range(N):
        for name, ratio in RATIOS.items():
            numbers = {"perturbation_ratio": ratio + sample / 1000, "dice_explained": DICE.get(name, 0.95)}
            units.append(unit(name, sample, **numbers))
        units.append(unit("msr", sample, {"lr": 0.001}, perturbation_ratio=1.0 + sample / 1000))
        units.append(photo("sufficient_region", sample, "cat", dice_explained=0.95 + sample / 1000))
    units.append(unit("prediction", N, dice_explained=0.99))
    return [*units, unit("msr", 0, {"lam": 0.1}), organ("msr", 0, "Aorta")]


@pytest.fixture(scope="module")
def material() -> Material:
    run = run_of(*_units())
    return Material(run, "quick", Path("nowhere"), pd.DataFrame(), shown_pairs(run))


@pytest.fixture(scope="module")
def tables(material: Material) -> list[Table]:
    swept = [lr_lambda(material, pair) for pair in (TRIANGLE, COCO)]
    like_for_like, _ = like_for_like_tables(material)
    return [table1(material), *swept, table6(material), second_stage(material, COCO), like_for_like, table7(material)]


def _claim(name: str, verdict: Verdict, pair: Pair = COCO) -> Claim:
    evidence = Evidence("a power", 0.8, 0.7, 0.9, n=N, n_groups=N, units=("a", "b"))
    origin = Origin("photographs", stand_in=False)
    finding = Finding(name, "5.3", "", pair.dataset_label, pair.model_label, [evidence], origin, "figure7")
    return Claim(finding, 0.01, verdict, "")


@pytest.fixture(scope="module")
def found(material: Material, tables: list[Table]) -> Sequence[KeyFinding]:
    names = ("size-kept-less-than-proportional", "size-ratio-falls")
    judged = [_claim(name, Verdict.HOLDS) for name in names]
    return key_findings(material, tables, [*judged, _claim("low-lr-prunes-nothing", Verdict.FAILS, TRIANGLE)])


def test_the_numbers_choose_the_sentence_and_findings_without_records_are_last(found: Sequence[KeyFinding]) -> None:
    chosen = {of.id: of.outcome for of in found}
    assert chosen == {
        "ratio": "higher",
        "dice-is-no-merit": "higher",
        "lambda": "few",
        "low-rate": "fails",
        "against-itself": "higher",
        "size": "holds",
        **dict.fromkeys(("mask-size", "equal-ratio", "one-fifth", "reliability"), "missing"),
    }
    assert [of.outcome for of in found[-4:]] == ["missing"] * 4
    assert not any(of.units or of.figure for of in found[-4:])


def test_a_number_is_its_tables_and_rests_on_the_records_of_that_cell(
    material: Material, tables: list[Table], found: Sequence[KeyFinding]
) -> None:
    ratio = next(of for of in found if of.id == "ratio")
    row = tables[0].frame.query("dataset == 'Triangle' and method == 'MSR'").iloc[0]
    assert [ratio.number.value, ratio.number.low, ratio.number.high, ratio.number.n] == [
        row[name]
        for name in ("perturbation_ratio_mean", "perturbation_ratio_low", "perturbation_ratio_high", "n_samples")
    ]
    assert f"**{ratio.number.with_interval}**" in ratio.sentence
    records = material.run[material.run["unit"].isin(ratio.units)]
    assert records["perturbation_ratio"].tolist() == [0.7 + sample / 1000 for sample in range(N)]
    size = next(of for of in found if of.id == "size")
    assert (size.number.value, size.units) == (0.8, ("a", "b"))


def test_a_number_beside_it_of_other_samples_says_of_how_many(found: Sequence[KeyFinding]) -> None:
    merit, ratio = (next(of for of in found if of.id == name) for name in ("dice-is-no-merit", "ratio"))
    assert (merit.number.n, merit.sentence.count(f"(n = {N})")) == (N + 1, 2)  # MSR and the random map
    assert "n = " not in ratio.sentence


@pytest.mark.parametrize(
    ("method", "expected"),
    [("MSR", {"ratio": "few", "dice-is-no-merit": "alone"}), ("Random map", {"dice-is-no-merit": "alone"})],
)
def test_a_number_of_too_few_images_is_not_judged_or_named_beside_another(
    material: Material, tables: list[Table], method: str, expected: dict[str, str]
) -> None:
    few = tables[0].frame.assign(n_groups=tables[0].frame["n_groups"].where(tables[0].frame["method"] != method, N - 1))
    found = {of.id: of.outcome for of in _with_table1(material, tables, few)}
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.90, 0.925, "lower"), (0.90, 0.94, "same"), (0.935, 0.94, "higher")]
)
def test_a_dice_is_set_apart_from_the_objects_own_by_more_than_a_margin(
    material: Material, tables: list[Table], low: float, high: float, expected: str
) -> None:
    frame = tables[0].frame.copy()
    ends = [f"dice_explained_{name}" for name in ("mean", "low", "high")]
    frame.loc[frame["method"] == "Prediction itself", ends] = [high, low, high]
    found = {of.id: of.outcome for of in _with_table1(material, tables, frame)}
    assert found["dice-is-no-merit"] == expected


def _with_table1(material: Material, tables: list[Table], frame: pd.DataFrame) -> Sequence[KeyFinding]:
    return key_findings(material, [Table("table1", "", tables[0].columns, frame), *tables[1:]], [])


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"n_groups": 10, "default": [True, False]}, {"literal": False, "0.600 (n = 12)": True, '"near"': True}),
        ({"n_groups": 10, "default": [False, True]}, {"literal": True, "0.600 (n = 12)": True, '"near"': False}),
        ({"n_groups": 9, "default": [True, False]}, {"Too few": True, "0.600": False}),
    ],
)
def test_the_nearest_reading_is_named_where_it_has_records(
    material: Material,
    tables: list[Table],
    found: Sequence[KeyFinding],
    counts: dict[str, Any],
    expected: dict[str, bool],
) -> None:
    frame = pd.DataFrame({"reading": ["far", "near"], "factor": [2.0, 1.1], "dice_explained_0.001_mean": [0.9, 0.6]})
    frame = frame.assign(
        dataset=COCO.dataset_label,
        model=COCO.model_label,
        n_samples=12,
        **counts,
        **{"perturbation_ratio_0.1_mean": 0.2},
    )
    readings = Table("table5_readings", "", (), frame.assign(**Origin("photographs", stand_in=False).columns()))
    with_them = key_findings(material, [*(of for of in tables if of.name != readings.name), readings], [])
    plain, told = (next(of.sentence for of in each if of.id == "against-itself") for each in (found, with_them))
    assert told.startswith(plain)
    assert {words: words in told.removeprefix(plain) for words in expected} == expected


@pytest.mark.parametrize(
    ("low", "high", "limit", "expected"),
    [(0.6, 0.8, 0.6, "same"), (0.6, 0.8, 0.59, "higher"), (0.6, 0.8, 0.81, "lower"), (0.7, 0.7, 0.7001, "same")],
)
def test_an_interval_that_holds_the_limit_is_the_same(low: float, high: float, limit: float, expected: str) -> None:
    assert Cell(0.7, low, high, 9).compared(limit) == expected


@pytest.mark.parametrize("entry", DESCRIBED, ids=[entry["id"] for entry in DESCRIBED])
def test_every_outcome_has_a_sentence_that_can_be_filled_in(entry: dict[str, Any], tables: list[Table]) -> None:
    sentences = {key: text for keys, text in entry.items() for key in keys.split(" or ")}
    [rule] = OUTCOMES.keys() & entry.keys()
    words = dict.fromkeys(("number", "paper", "printed", "n", "n_groups", "p"), "1") | dict.fromkeys(
        entry.get("others", ()), Cell()
    )
    for outcome in OUTCOMES[rule]:
        assert "**{number}**" in sentences[outcome]
        assert "{" not in f"{sentences[outcome]} {entry.get('also', '')}".format(**words)
    names = {table.name for table in tables} | {"claims", "inconsistencies"}
    assert entry.get("table", entry["number"].get("table")) in names
    ids = {claim["id"] for claim in shipped("claims/claims.yaml")["claims"]}
    named = [cell["claim"] for cell in (entry["number"], *entry.get("others", {}).values()) if "claim" in cell]
    named += [source for source in entry["rests_on"] if isinstance(source, str)]
    assert {*named, *([entry["judged_by"]] if rule == "judged_by" else [])} <= ids


def test_a_stand_in_says_nothing_about_the_paper(tables: list[Table]) -> None:
    run = run_of(*(organ("msr", sample, "Aorta") for sample in range(N)))
    material = Material(run, "quick", Path("nowhere"), pd.DataFrame(), [UNET])
    frame = pd.DataFrame(
        [{"dataset": "Synapse", "model": "U-Net", "organ": "All organs", "protocol": "honest"}], index=[0, 1]
    ).assign(features=["explanation", "size"], auroc=0.8, auroc_low=0.7, auroc_high=0.9, n=N, n_volumes=N)
    frame = frame.assign(paper_auc=math.nan, **Origin("phantoms", stand_in=True).columns())
    [finding] = key_findings(material, [Table("table7", "", tables[-1].columns, frame)], [])
    assert finding.outcome == "stand_in"
    assert "0.800 [0.700, 0.900]" in finding.sentence


def test_the_document_and_its_json_name_everything(found: Sequence[KeyFinding]) -> None:
    document = findings_document(found, [_claim("x", Verdict.HOLDS)], "the head")
    assert all(of.sentence in document for of in found)
    assert [line.split(".")[0] for line in document.splitlines() if "**" in line and line[0].isdigit()] == [
        str(number) for number in range(1, 11)
    ]
    listed = json.loads(json.dumps(findings_json(found), allow_nan=False))
    assert [(of["id"], tuple(of["units"])) for of in listed] == [(of.id, of.units) for of in found]
    assert listed[-1]["value"] is None


def test_a_number_that_another_is_compared_with_has_an_interval_too() -> None:
    """Ends by hand: 0.01 below, and the root of the sum of the squares of what each could be off by."""
    first = Cell(0.97, 0.965, 0.975, 9, 8)
    sure, unsure = Cell(0.98, 0.975, 0.985, 9, 9), Cell(0.98, 0.9, 1.0, 7, 6)
    assert first.minus(sure).compared(-0.02) == "higher"
    apart = first.minus(unsure)
    assert (apart.value, apart.low, apart.high) == pytest.approx((-0.01, -0.01 - 0.000425**0.5, -0.01 + 0.006425**0.5))
    assert (apart.n, apart.n_groups) == (7, 6)
    assert apart.compared(-0.02) == "same"
