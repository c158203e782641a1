"""Table 7: the paper's numbers beside ours, holes with reasons, classifiers saved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from paper_records import ORGANS, PHANTOM, TRANSUNET, UNET, frame, judged_organ, judged_organs, run_of

from misure.paper.material import Material
from misure.paper.published import reference
from misure.paper.query import latest_run
from misure.paper.reliability import (
    ALL_ORGANS,
    reliability_rows,
    samples_by_organ,
    save_models,
    table7,
)
from misure.paper.tables.rows import NOT_RUN
from misure.reliability import ReliabilityModel, cross_validate, score, usable_samples

PAIRS_OF_SYNAPSE = [UNET, TRANSUNET]
SCORES = ("accuracy", "balanced_accuracy", "auroc", "auprc", "brier")
COUNTS = {"Aorta": 40, "Liver": 12, "Pancreas": 25, "Stomach": 3}


@pytest.fixture(scope="module")
def run() -> pd.DataFrame:
    """Enough of the aorta, too little of the liver and stomach, the pancreas of one label, nothing of the rest."""
    return judged_organs(COUNTS)


@pytest.fixture(scope="module")
def table(run: pd.DataFrame) -> pd.DataFrame:
    return reliability_rows(run, PAIRS_OF_SYNAPSE)


def rows_of(table: pd.DataFrame, **where: Any) -> pd.DataFrame:
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table)
    return table


def test_the_paper_s_rows_are_there_in_its_order(table: pd.DataFrame) -> None:
    for model in ("U-Net", "TransUNet"):
        mine = rows_of(table, model=model, features="explanation", protocol="honest")
        assert mine["organ"].tolist() == [*ORGANS, ALL_ORGANS]
        columns = ["organ", "paper_n", "paper_accuracy", "paper_auc"]
        assert mine[columns].head(8).to_numpy().tolist() == [list(row) for row in reference()["table7"]]
        assert mine["paper_n"].tail(1).isna().all()
    assert len(table) == 2 * 9 * 3 * 2
    assert rows_of(table, features="size")["paper_accuracy"].isna().all()


def test_numbers_are_those_of_the_library(run: pd.DataFrame, table: pd.DataFrame) -> None:
    aorta = run[run["class_name"] == "Aorta"]
    for protocol in ("paper", "honest"):
        for features, columns in (("explanation", None), ("size", ["prediction_size"])):
            samples = usable_samples(aorta)
            out = cross_validate(samples, protocol, *([columns] if columns else []))
            expected = score(out)
            row = rows_of(table, model="U-Net", organ="Aorta", features=features, protocol=protocol).iloc[0]
            assert [row[name] for name in SCORES] == [getattr(expected, name).value for name in SCORES]
            assert (row["auroc_low"], row["auroc_high"]) == (expected.auroc.low, expected.auroc.high)
            assert row["auprc_chance"] == expected.auprc_chance
            assert (row["n"], row["n_volumes"], row["prevalence"]) == (40, 5, samples.prevalence)
    pooled = rows_of(table, model="U-Net", organ=ALL_ORGANS)
    assert set(pooled["n"]) == {sum(COUNTS.values())}
    assert pooled["auroc"].notna().all()


def test_holes_have_reasons(table: pd.DataFrame) -> None:
    holes = {"Liver": "too few samples: 12 of at least 20", "Pancreas": "none of 25 reliable", "Spleen": "no samples"}
    for model, label, note in [*(("U-Net", *hole) for hole in holes.items()), ("TransUNet", ALL_ORGANS, NOT_RUN)]:
        rows = rows_of(table, model=model, organ=label)
        assert rows["note"].tolist() == [note] * 6
        assert rows[list(SCORES)].isna().all(axis=None)
    pancreas = rows_of(table, model="U-Net", organ="Pancreas").iloc[0]
    assert (pancreas["prevalence"], pancreas["majority_accuracy"]) == (0.0, 1.0), "they need no classifier"


def test_the_table_shows_the_papers_columns_and_marks_every_row(run: pd.DataFrame, tmp_path: Path) -> None:
    shown = table7(Material(run, "quick", tmp_path, pd.DataFrame(), PAIRS_OF_SYNAPSE))
    rows = shown.frame.to_dict("records")
    cells = [{column.name: column.text(row) for column in shown.columns} for row in rows]
    aorta, row = next(
        pair for pair in zip(cells, rows, strict=True) if (pair[1]["organ"], pair[1]["protocol"]) == ("Aorta", "honest")
    )
    assert (aorta["paper_n"], aorta["paper_accuracy"], aorta["paper_auc"]) == ("540", "0.78", "0.78")
    assert aorta["auroc"] == f"{row['auroc']:.3f} [{row['auroc_low']:.3f}, {row['auroc_high']:.3f}]"
    assert aorta["remarks"].startswith("stand-in; unstable: ")
    assert all(row["remarks"].startswith("stand-in") == row["stand_in"] for row in rows)
    assert PHANTOM in shown.title


def test_reasons_may_differ_between_protocols() -> None:
    run = judged_organs({"Aorta": 32}, group="case0000")
    run.loc[run.index[:2], "truth_dice"] = math.nan
    rows = reliability_rows(run, [UNET])
    assert (
        rows["note"].str.endswith("2 samples left out: a feature, the ground truth or the volume is missing").sum()
        == 12
    )
    aorta = rows_of(rows, organ="Aorta", features="explanation").set_index("protocol")
    assert "1 volume: at least 2 are needed to hold one out" in aorta.loc["honest", "note"]
    assert math.isnan(aorta.loc["honest", "accuracy"])
    assert aorta.loc["paper", "note"].startswith("unstable")
    assert not math.isnan(aorta.loc["paper", "accuracy"])
    assert math.isnan(aorta.loc["paper", "accuracy_low"])


def test_an_empty_run_and_other_classes() -> None:
    empty = reliability_rows(latest_run(frame(), "paper"), PAIRS_OF_SYNAPSE)
    assert set(empty["note"]) == {NOT_RUN}
    run = run_of(*judged_organ("Aorta", 2, class_name="aorta"), *judged_organ("Liver", 2, class_name="tumour"))
    sizes = {label: len(samples.rows) for label, samples in samples_by_organ(run, UNET).items()}
    assert sizes == dict.fromkeys(ORGANS, 0) | {"Aorta": 2, "tumour": 2, ALL_ORGANS: 4}


def test_classifiers_are_saved_where_they_can_be_fitted(run: pd.DataFrame, tmp_path: Path) -> None:
    stale = tmp_path / "synapse-unet_resnet34" / "liver.json"
    stale.parent.mkdir()
    stale.write_text("{}")
    written = save_models(run, UNET, tmp_path)
    assert [path.relative_to(stale.parent).as_posix() for path in written] == ["aorta.json", "all_organs.json"]
    assert not stale.exists()
    aorta = ReliabilityModel.load(written[0])
    assert (aorta.n, aorta.source) == (COUNTS["Aorta"], f"Synapse, U-Net, {PHANTOM}")


@pytest.mark.parametrize("name", ["../../victim", "/victim", "..", "a\0b", "x" * 3000, "con", "<script>"])
def test_the_names_of_classes_are_no_paths(tmp_path: Path, name: str) -> None:
    """Neither where a classifier is written nor where that of an earlier run is removed."""
    folder, victim = tmp_path / "outputs" / "reliability", tmp_path / "victim.json"
    victim.write_text("precious")
    for n in (40, 3):
        written = save_models(run_of(*judged_organ("Aorta", n, class_name=name)), UNET, folder)
        assert {path.parent for path in written} <= {folder / "synapse-unet_resnet34"}
        assert len([path for path in written if path.stem != "all_organs"]) == (n == 40)
        assert set(tmp_path.rglob("*.json")) == {victim, *written}
        assert victim.read_text() == "precious"
