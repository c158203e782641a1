"""Marks: a stand-in and a substituted network are named wherever their numbers are shown."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from paper_records import COCO, PHANTOM, SUBSTITUTION, frame, organ, photo, run_of, unit

from misure.explainers import MSR
from misure.paper.figures.maps import qualitative_figure
from misure.paper.figures.sizes import size_figure
from misure.paper.published import DASH
from misure.paper.query import latest_run
from misure.paper.source import Origin, distinct, marked
from misure.paper.tables.console import console_table
from misure.paper.tables.rows import class_rows, lr_lambda_rows, mask_size_rows, method_rows


@pytest.fixture
def run() -> pd.DataFrame:
    """Two pairs of one photograph and one of another, explained by a substituted network."""
    return run_of(photo("msr", 0, "bus"), photo("msr", 0, "car"), photo("msr", 3, "bus"))


@pytest.mark.parametrize(
    ("origin", "label", "marks"),
    [
        (Origin("BTCV", stand_in=False), "BTCV", ()),
        (Origin("", stand_in=False), DASH, ()),
        (Origin(PHANTOM, stand_in=True), PHANTOM, ("stand-in",)),
        (Origin("phantom CT", stand_in=True), "stand-in: phantom CT", ("stand-in",)),
        (Origin("Stand-In of 3 volumes", stand_in=True), "Stand-In of 3 volumes", ("stand-in",)),
        (Origin("", stand_in=True), "stand-in", ("stand-in",)),
        (Origin("COCO", False, SUBSTITUTION), f"COCO, {SUBSTITUTION}", (SUBSTITUTION,)),
        (Origin("scenes", True, SUBSTITUTION), f"stand-in: scenes, {SUBSTITUTION}", ("stand-in", SUBSTITUTION)),
        (Origin("items", False, scale=0.5), "items, half scale", ("half scale",)),
        (Origin("items", False, scale=64 / 224), "items, scale 0.29", ("scale 0.29",)),
    ],
)
def test_every_combination_is_named_once(origin: Origin, label: str, marks: tuple[str, ...]) -> None:
    assert (origin.label, origin.marks) == (label, marks)
    assert origin.data_cell.count("**") == 2 * origin.stand_in
    assert Origin.of_row(pd.Series(origin.columns())) == origin


def test_records_of_older_versions_know_of_no_substitution() -> None:
    old = frame(unit("msr", 0)).drop(columns=["substitution", "network_source", "scale"])
    assert Origin.of(old).marks == Origin.of(latest_run(old, "quick")).marks == ()


def test_missing_and_empty_values_are_not_listed() -> None:
    assert distinct(pd.Series(["", None, "b", "a", "b"])) == "b, a"


@pytest.mark.parametrize(
    "table", [method_rows, mask_size_rows, class_rows, lambda run, pairs: lr_lambda_rows(run, pairs[0])]
)
def test_every_table_carries_the_substitution(run: pd.DataFrame, table: object) -> None:
    made = table(run, [COCO])  # type: ignore[operator]
    measured = made[made["n_samples"] > 0]
    assert len(measured)
    assert set(measured["substitution"]) == {SUBSTITUTION}
    assert all(SUBSTITUTION in remarks for remarks in measured["remarks"])
    assert marked("Title", made) == f"Title; COCO-2017 network: {SUBSTITUTION}"


def test_reduced_images_fill_the_paper_s_cells_and_say_so() -> None:
    half = MSR().at_scale(0.5)
    reduced = [unit("msr", n, half.parameters, scale=0.5) for n in range(2)]
    reduced += [unit("msr", n, MSR(mask_size=112).at_scale(0.5).parameters, scale=0.5) for n in range(3)]
    run = run_of(*reduced, unit("msr", 9, {"mask_size": 112}, scale=0.5), unit("msr", 9, half.parameters, scale=1.0))
    cells = mask_size_rows(run).set_index(["dataset", "mask_size"]).loc["Triangle"]
    assert cells["n_samples"].to_dict() == {56: 0, 112: 3, 224: 2}
    assert cells["scale"].to_list() == [1, 0.5, 0.5]
    assert marked("Table 6", mask_size_rows(run)) == "Table 6; Triangle: half scale"


def test_headings_name_both_marks() -> None:
    both = run_of(organ("msr", 0, "Aorta"), photo("msr", 0, "bus"))
    expected = f"Table 1; COCO-2017 network: {SUBSTITUTION}; Synapse data: {PHANTOM}"
    assert marked("Table 1", method_rows(both)) == expected
    assert marked("Table 1", method_rows(run_of(unit("msr", 0)))) == "Table 1"
    assert marked("Table 1", pd.DataFrame()) == "Table 1"


def test_figures_name_it_in_their_caption(run: pd.DataFrame, tmp_path: Path) -> None:
    for figure in (qualitative_figure(run, tmp_path, "quick", [COCO]), size_figure(run, "quick", COCO)):
        assert f"network: {SUBSTITUTION}" in figure.get_supxlabel().replace("\n", " ")


def test_the_terminal_names_it_in_title_and_rows_within_its_width(run: pd.DataFrame) -> None:
    widest = {"perturbation_ratio": 1234.5, "seconds": 1234.0, "dice_explained": 0.123}
    records = frame(*(photo(name, s, "bus", **widest) for name in ("msr", "rise", "prediction") for s in range(2)))
    text = console_table(records, "quick").split("\n\n")[-1]
    assert f"{SUBSTITUTION};" in text.splitlines()[0]
    measured = [line for line in text.splitlines() if "0.123" in line]
    assert len(measured) == 4
    assert all(line.endswith("  substitution") for line in measured)
    assert max(map(len, text.splitlines())) <= 110
