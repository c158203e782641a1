"""Marks: a stand-in and a substituted network are named wherever their numbers are shown."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from paper_records import PHANTOM, SUBSTITUTION, frame, organ, photo, unit

from misure.paper.figures.maps import qualitative_figure
from misure.paper.figures.sizes import size_figure
from misure.paper.provenance import head_note
from misure.paper.published import DASH, PAIRS, Pair
from misure.paper.query import latest_run
from misure.paper.source import Origin, distinct, heading
from misure.paper.tables.markdown import console_table, experiment_summary, table1_document
from misure.paper.tables.rows import by_class_table, lr_lambda_table, table1, table6

COCO: Pair = next(pair for pair in PAIRS if pair.model == "deeplabv3_mobilenetv2")


@pytest.fixture
def run() -> pd.DataFrame:
    """Two pairs of one photograph and one of another, explained by a substituted network."""
    return latest_run(frame(photo("msr", 0, "bus"), photo("msr", 0, "car"), photo("msr", 3, "bus")), "quick")


@pytest.mark.parametrize(
    ("origin", "label", "cell", "marks"),
    [
        (Origin("BTCV", stand_in=False), "BTCV", "BTCV", ()),
        (Origin("", stand_in=False), DASH, DASH, ()),
        (Origin(PHANTOM, stand_in=True), PHANTOM, f"**{PHANTOM}**", ("stand-in",)),
        (Origin("phantom CT", stand_in=True), "stand-in: phantom CT", "**stand-in: phantom CT**", ("stand-in",)),
        (Origin("", stand_in=True), "stand-in", "**stand-in**", ("stand-in",)),
        (Origin("COCO", False, SUBSTITUTION), f"COCO, {SUBSTITUTION}", f"COCO, **{SUBSTITUTION}**", (SUBSTITUTION,)),
        (
            Origin("scenes", True, SUBSTITUTION),
            f"stand-in: scenes, {SUBSTITUTION}",
            f"**stand-in: scenes**, **{SUBSTITUTION}**",
            ("stand-in", SUBSTITUTION),
        ),
    ],
)
def test_every_combination_is_named_once(origin: Origin, label: str, cell: str, marks: tuple[str, ...]) -> None:
    assert (origin.label, origin.cell, origin.marks) == (label, cell, marks)
    assert Origin.of_row(pd.Series(origin.columns())) == origin


def test_records_of_older_versions_know_of_no_substitution() -> None:
    old = frame(unit("msr", 0)).drop(columns=["substitution", "network_source"])
    assert Origin.of(old).marks == Origin.of(latest_run(old, "quick")).marks == ()


def test_missing_and_empty_values_are_not_listed() -> None:
    assert distinct(pd.Series(["", None, "b", "a", "b"])) == "b, a"


@pytest.mark.parametrize("table", [table1, table6, by_class_table, lambda run, pairs: lr_lambda_table(run, pairs[0])])
def test_every_table_carries_the_substitution(run: pd.DataFrame, table: object) -> None:
    made = table(run, [COCO])  # type: ignore[operator]
    measured = made[made["n_samples"] > 0]
    assert len(measured)
    assert set(measured["substitution"]) == {SUBSTITUTION}
    assert heading("Title", made) == f"# Title; COCO-2017 network: **{SUBSTITUTION}**"


def test_documents_name_it_in_the_first_line_the_head_note_and_each_row(run: pd.DataFrame) -> None:
    document = table1_document(table1(run), head_note(run, "quick"), {})
    lines = document.splitlines()
    assert lines[0].endswith(f"COCO-2017 network: **{SUBSTITUTION}**")
    (note,) = (line for line in lines if line.startswith("- COCO-2017, DeepLabv3:"))
    assert f"network: **{SUBSTITUTION}**" in note
    assert "(published elsewhere)" in note
    assert [f"**{SUBSTITUTION}**" in line for line in lines if " | MSR | " in line] == [False, False, False, True]


def test_headings_name_both_marks() -> None:
    both = latest_run(frame(organ("msr", 0, "Aorta"), photo("msr", 0, "bus")), "quick")
    expected = f"# Table 1; COCO-2017 network: **{SUBSTITUTION}**; Synapse data: **{PHANTOM}**"
    assert heading("Table 1", table1(both)) == expected


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


def test_the_summary_of_an_experiment_names_it(run: pd.DataFrame) -> None:
    assert experiment_summary(run).endswith(f"n = 3; 103 COCO val2017 images, {SUBSTITUTION}")


def test_the_head_note_counts_pairs_beside_the_papers(run: pd.DataFrame) -> None:
    note = head_note(run, "quick", [COCO])
    assert "3 samples explained (2 Bus, 1 Car, 0 Cat (not in the records)" in note
    assert "(the paper has 181), 0 skipped" in note
    assert "for COCO-2017: 181 samples (pairs of an image and a class);" in note
    known = latest_run(frame(photo("msr", 0, "bus", drawn=137)).assign(drawn=137), "quick")
    assert "(of 137 pairs of an image and a class that these images give, the paper has 181)" in head_note(
        known, "quick", [COCO]
    )
