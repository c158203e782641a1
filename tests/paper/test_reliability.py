"""Table 7 and Figures 8 and 9: the paper's numbers beside ours, holes with reasons, examples chosen by rule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from paper_records import ORGANS, PHANTOM, frame, organ, save_map

from misure.errors import MisureError
from misure.paper.figures.reliability import (
    choose_examples,
    describe,
    examples_figure,
    judged_samples,
    roc_figure,
)
from misure.paper.material import Material
from misure.paper.published import PAIRS, reference
from misure.paper.query import latest_run
from misure.paper.reliability import (
    ALL_ORGANS,
    SCORES,
    fit_models,
    reliability_rows,
    samples_by_organ,
    save_models,
    table7,
)
from misure.paper.tables.rows import NOT_RUN
from misure.reliability import NotFitted, ReliabilityModel, cross_validate, score, scores, usable_samples

UNET, TRANSUNET = PAIRS_OF_SYNAPSE = [pair for pair in PAIRS if pair.dataset == "synapse"]
COUNTS = {"Aorta": 40, "Liver": 12, "Pancreas": 25, "Stomach": 3}


@pytest.fixture(autouse=True, scope="module")
def _few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "N_RESAMPLES", 50)
        yield


def samples_of(label: str, n: int, volumes: int = 5, **columns: Any) -> list[list[dict[str, Any]]]:
    """MSR samples whose ratio tells their quality; the pancreas is never reliable."""
    generator = np.random.default_rng(ORGANS.index(label))
    units = []
    for sample in range(n):
        quality = generator.normal() - (9 if label == "Pancreas" else 0)
        numbers = {
            "truth_dice": 0.95 if quality > 0 else 0.6,
            "n_dilations": float(generator.integers(0, 9)),
            "dice_explained": 0.93 + 0.02 * generator.normal(),
            "perturbation_ratio": float(np.exp(generator.normal() - quality)),
            "prediction_size": int(generator.integers(5, 4000)),
            "confidence": float(generator.uniform(0.6, 1)),
            "group": f"case{sample % volumes:04d}",
            "draw": sample,
        }
        units.append(organ("msr", sample, label, **(numbers | columns)))
    return units


def run_of(counts: dict[str, int], **columns: Any) -> pd.DataFrame:
    units = [found for label, n in counts.items() for found in samples_of(label, n, **columns)]
    return latest_run(frame(*units), "quick")


@pytest.fixture(scope="module")
def run() -> pd.DataFrame:
    """Enough of the aorta, too little of the liver and stomach, the pancreas of one label, nothing of the rest."""
    return run_of(COUNTS)


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


@pytest.mark.parametrize(
    ("model", "label", "note"),
    [
        ("U-Net", "Liver", "too few samples: 12 of at least 20"),
        ("U-Net", "Stomach", "too few samples: 3 of at least 20"),
        ("U-Net", "Pancreas", "none of 25 reliable"),
        ("U-Net", "Spleen", "no samples"),
        ("TransUNet", "Aorta", NOT_RUN),
        ("TransUNet", ALL_ORGANS, NOT_RUN),
    ],
)
def test_holes_have_reasons(table: pd.DataFrame, model: str, label: str, note: str) -> None:
    mine = rows_of(table, model=model, organ=label)
    assert len(mine) == 6
    assert set(mine["note"]) == {note}
    assert mine[list(SCORES)].isna().all(axis=None)


def test_prevalence_and_majority_need_no_classifier(table: pd.DataFrame) -> None:
    pancreas = rows_of(table, model="U-Net", organ="Pancreas").iloc[0]
    assert (pancreas["prevalence"], pancreas["majority_accuracy"]) == (0.0, 1.0)
    assert math.isnan(rows_of(table, model="U-Net", organ="Spleen").iloc[0]["majority_accuracy"])


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
    rows = reliability_rows(run_of({"Aorta": 30}, group="case0000"), [UNET])
    aorta = rows_of(rows, organ="Aorta", features="explanation").set_index("protocol")
    assert "1 volume: at least 2 are needed to hold one out" in aorta.loc["honest", "note"]
    assert math.isnan(aorta.loc["honest", "accuracy"])
    assert aorta.loc["paper", "note"].startswith("unstable")
    assert not math.isnan(aorta.loc["paper", "accuracy"])
    assert math.isnan(aorta.loc["paper", "accuracy_low"])


def test_unlabelled_samples_are_left_out_and_said() -> None:
    run = run_of({"Aorta": 30})
    run.loc[run.index[:2], "truth_dice"] = math.nan
    row = rows_of(reliability_rows(run, [UNET]), organ="Aorta").iloc[0]
    assert (row["n"], row["n_left_out"]) == (28, 2)
    assert row["note"].endswith("2 samples left out: a feature, the ground truth or the volume is missing")


def test_an_empty_run_and_other_classes() -> None:
    empty = reliability_rows(latest_run(frame(), "paper"), PAIRS_OF_SYNAPSE)
    assert set(empty["note"]) == {NOT_RUN}
    run = latest_run(
        frame(*samples_of("Aorta", 2, class_name="aorta"), *samples_of("Liver", 2, class_name="tumour")), "quick"
    )
    sizes = {label: len(samples.rows) for label, samples in samples_by_organ(run, UNET).items()}
    assert sizes == dict.fromkeys(ORGANS, 0) | {"Aorta": 2, "tumour": 2, ALL_ORGANS: 4}


def test_classifiers_are_saved_where_they_can_be_fitted(run: pd.DataFrame, tmp_path: Path) -> None:
    stale = tmp_path / "synapse-unet_resnet34" / "liver.json"
    stale.parent.mkdir()
    stale.write_text("{}")
    written = save_models(run, UNET, tmp_path)
    assert [path.relative_to(stale.parent).as_posix() for path in written] == ["aorta.json", "all_organs.json"]
    assert not stale.exists()
    models = fit_models(run, UNET)
    assert ReliabilityModel.load(written[0]) == models["Aorta"]
    assert models["Aorta"].source == f"Synapse, U-Net, {PHANTOM}"
    assert isinstance(models["Liver"], NotFitted)


def panel_texts(figure: Figure) -> dict[str, str]:
    return {axes.get_title(): " ".join(text.get_text() for text in axes.texts) for axes in figure.axes}


def test_roc_panels_have_curves_or_reasons(run: pd.DataFrame, table: pd.DataFrame) -> None:
    figure = roc_figure(run, "quick", UNET)
    texts = panel_texts(figure)
    assert len(texts) == 9
    liver = next(text for title, text in texts.items() if title.startswith("Liver: "))
    assert liver == "no curve:\ntoo few samples: 12 of at least 20"
    assert "none of 25 reliable" in texts["Pancreas: 0 of 25 reliable"]
    assert "no samples" in texts["Spleen"]
    aorta = next(axes for axes in figure.axes if axes.get_title().startswith("Aorta"))
    area = rows_of(table, model="U-Net", organ="Aorta", features="explanation", protocol="honest").iloc[0]["auroc"]
    labels = [text.get_text() for text in aorta.get_legend().get_texts()]
    assert labels[0] == f"MSR, honest ({area:.2f})"
    assert len(labels) == 4
    drawn = aorta.lines[0].get_xydata()
    assert np.trapezoid(drawn[:, 1], drawn[:, 0]) == pytest.approx(area, abs=1e-12)
    assert PHANTOM in figure.get_supxlabel()
    assert set(panel_texts(roc_figure(run, "quick", TRANSUNET)).values()) == {f"no curve:\n{NOT_RUN}"}


def test_own_classifiers_judge_where_defined_else_that_of_all_organs(run: pd.DataFrame) -> None:
    judged = judged_samples(run, UNET).set_index("unit")
    organs = samples_by_organ(run, UNET)
    for label, classifier in (("Aorta", "Aorta"), ("Liver", ALL_ORGANS)):
        source = organs[classifier]
        expected = pd.Series(cross_validate(source, "honest").probabilities, index=source.rows["unit"])
        mine = judged[judged["class_name"] == label]
        assert set(mine["classifier"]) == {classifier}
        assert (mine["probability"] == expected[mine.index]).all()
    assert (judged["reason"] == "").all()


def judged_rows(*samples: tuple[float, bool]) -> pd.DataFrame:
    return pd.DataFrame([{"sample": i, "probability": p, "reliable": r} for i, (p, r) in enumerate(samples)])


def test_examples_are_the_most_certain_of_each_kind() -> None:
    judged = judged_rows((0.4, False), (0.1, False), (0.1, False), (0.9, True), (0.6, True), (0.3, True), (0.55, False))
    chosen = {kind: row["sample"] for kind, row in choose_examples(judged)}
    assert chosen == {"correctly flagged": 1, "correctly accepted": 3, "wrong": 5}
    kinds = dict(choose_examples(judged_rows((0.9, True))))
    assert kinds["correctly flagged"] is None
    assert kinds["wrong"] is None
    assert [row["sample"] for _, row in choose_examples(judged_rows(*[(math.nan, True)] * 5))] == [0, 1, 2]
    assert choose_examples(judged_rows((0.9, True)).head(0)) == [("", None)]


def texts_of(figure: Figure) -> str:
    return "\n".join(text.get_text() for axes in figure.axes for text in axes.texts)


def test_worked_examples_show_probability_and_verdict(run: pd.DataFrame, tmp_path: Path) -> None:
    judged = judged_samples(run, UNET)
    for unit in judged["unit"]:
        save_map(tmp_path, unit, np.random.default_rng(0).random((8, 12)))
    figure = examples_figure(run, tmp_path, "quick", UNET)
    chosen = [row for _, row in choose_examples(judged) if row is not None]
    assert len(chosen) == 3
    for row, verdict in zip(chosen, ("right", "right", "wrong"), strict=True):
        assert f"probability of reliable {row['probability']:.2f}: {verdict}" in describe(row)
        assert describe(row) in texts_of(figure)
    assert [axes.get_ylabel() for axes in figure.axes[::6]] == ["correctly flagged", "correctly accepted", "wrong"]
    assert texts_of(figure).count("not saved") == 3  # these maps have no ground truth
    figure.savefig(tmp_path / "drawn.png", dpi=30)


def test_a_saved_ground_truth_is_drawn(tmp_path: Path) -> None:
    run = run_of({"Aorta": 3})
    truth = np.zeros((8, 12), bool)
    truth[2:4] = True
    for unit in run["unit"]:
        save_map(tmp_path, unit, np.ones((8, 12)))
        with np.load(tmp_path / f"{unit}.npz") as arrays:
            known = {name: arrays[name] for name in arrays.files}
        np.savez(tmp_path / f"{unit}.npz", truth=truth, **known)
    figure = examples_figure(run, tmp_path, "quick", UNET)
    assert (np.asarray(figure.axes[1].images[0].get_array()) == truth).all()
    assert "no probability:\ntoo few samples: 3 of at least 20" in texts_of(figure)
    assert f"perturbation ratio {run['perturbation_ratio'][0]:.3f}" in texts_of(figure)
    assert [axes.get_ylabel() for axes in figure.axes[::6]] == ["sample 0", "sample 1", "sample 2"]


def test_without_maps_the_figure_says_so_and_damage_is_named(run: pd.DataFrame, tmp_path: Path) -> None:
    assert "no saved maps" in texts_of(examples_figure(run, tmp_path / "none", "quick", UNET))
    for unit in run["unit"]:
        (tmp_path / f"{unit}.npz").write_bytes(b"PK truncated")
    with pytest.raises(MisureError, match="delete it and its record and run again"):
        examples_figure(run, tmp_path, "quick", UNET)
