"""Figures 8 and 9: curves or reasons, and examples chosen by rule."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from paper_records import PHANTOM, TRANSUNET, UNET, judged_organs, save_map

from misure.paper.figures.reliability import (
    choose_examples,
    describe,
    examples_figure,
    judged_samples,
    roc_figure,
)
from misure.paper.reliability import ALL_ORGANS, samples_by_organ
from misure.paper.tables.rows import NOT_RUN
from misure.reliability import area_under_curve, cross_validate


@pytest.fixture(scope="module")
def run() -> pd.DataFrame:
    """Enough of the aorta, too little of the liver, the pancreas of one label, nothing of the rest."""
    return judged_organs({"Aorta": 40, "Liver": 12, "Pancreas": 25})


def panel_texts(figure: Figure) -> dict[str, str]:
    return {axes.get_title(): " ".join(text.get_text() for text in axes.texts) for axes in figure.axes}


def test_roc_panels_have_curves_or_reasons(run: pd.DataFrame) -> None:
    figure = roc_figure(run, "quick", UNET)
    texts = panel_texts(figure)
    assert len(texts) == 9
    liver = next(text for title, text in texts.items() if title.startswith("Liver: "))
    assert liver == "no curve:\ntoo few samples: 12 of at least 20"
    assert "none of 25 reliable" in texts["Pancreas: 0 of 25 reliable"]
    assert "no samples" in texts["Spleen"]
    aorta = next(axes for axes in figure.axes if axes.get_title().startswith("Aorta"))
    area = area_under_curve(cross_validate(samples_by_organ(run, UNET)["Aorta"], "honest"))
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
    run = judged_organs({"Aorta": 3})
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
    with pytest.warns(UserWarning, match="damaged maps are left out"):
        figure = examples_figure(run, tmp_path, "quick", UNET)
    assert not [image for axes in figure.axes for image in axes.images]
