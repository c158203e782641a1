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


def judged_rows(*samples: tuple[str, float, bool]) -> pd.DataFrame:
    columns = ["sample", "class_name", "probability", "reliable"]
    return pd.DataFrame([(i, *sample) for i, sample in enumerate(samples)], columns=columns)


def chosen_samples(judged: pd.DataFrame) -> list[int | None]:
    return [None if example.row is None else example.row["sample"] for example in choose_examples(judged)]


def test_examples_are_the_papers_organs_and_labels_that_the_classifier_is_surest_of() -> None:
    aorta = [("Aorta", 0.4, False), ("Aorta", 0.1, False), ("Aorta", 0.1, False), ("Aorta", 0.9, True)]
    others = [("Liver", 0.7, False), ("Spleen", 0.0, False), ("Stomach", 0.6, True), ("Stomach", 0.2, True)]
    judged = judged_rows(*aorta, *others)
    assert chosen_samples(judged) == [1, 4, 6, 7]  # the liver's only one is wrong; the last is the most wrong
    assert [example.printed for example in choose_examples(judged)[:3]] == [0.71, 0.72, 0.92]
    assert chosen_samples(judged_rows(("Stomach", 0.9, True))) == [None, None, 0, None]
    assert chosen_samples(judged_rows(*[("Stomach", math.nan, True)] * 5)) == [None, None, 0]
    assert chosen_samples(judged.head(0)) == [None] * 3


def texts_of(figure: Figure) -> str:
    return "\n".join(text.get_text() for axes in figure.axes for text in axes.texts)


def test_worked_examples_show_probability_and_verdict(run: pd.DataFrame, tmp_path: Path) -> None:
    judged = judged_samples(run, UNET)
    for unit in judged["unit"]:
        save_map(tmp_path, unit, np.random.default_rng(0).random((8, 12)))
    figure = examples_figure(run, tmp_path, "quick", UNET)
    chosen = [example for example in choose_examples(judged) if example.row is not None]
    assert [example.kind for example in chosen][:2] == ["Aorta, unreliable", "Liver, unreliable"]
    for example, verdict in zip(chosen, ("right", "right", "wrong"), strict=True):
        reliable = example.row["probability"]
        words = describe(example.row, example.printed)
        assert f"unreliable {1 - reliable:.2f}, reliable {reliable:.2f}: {verdict}" in words
        assert words in texts_of(figure)
    assert "unreliable 0.71)" in texts_of(figure)  # the paper's
    assert "no reliable prediction\nof Stomach" in texts_of(figure)
    assert texts_of(figure).count("not saved") == 3  # these maps have no ground truth
    figure.savefig(tmp_path / "drawn.png", dpi=30)


def test_an_example_that_ships_without_its_image_is_drawn(tmp_path: Path) -> None:
    run = judged_organs({"Aorta": 3})
    for unit in run["unit"]:
        save_map(tmp_path, unit, np.ones((8, 12)), image=False)
    figure = examples_figure(run, tmp_path, "quick", UNET)
    image, truth, region, sufficient, saliency = figure.axes[:5]
    assert [len(axes.images) for axes in (image, truth, region, sufficient, saliency)] == [0, 0, 1, 1, 1]
    assert image.texts[0].get_text() == truth.texts[0].get_text() == "not saved"
    assert np.asarray(sufficient.images[0].get_array()).sum() == np.asarray(region.images[0].get_array()).sum() == 24


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
    first = run[run["truth_dice"] < 0.9].iloc[0]
    assert f"perturbation ratio {first['perturbation_ratio']:.3f}" in texts_of(figure)


def test_without_maps_the_figure_says_so_and_damage_is_named(run: pd.DataFrame, tmp_path: Path) -> None:
    assert "no saved maps" in texts_of(examples_figure(run, tmp_path / "none", "quick", UNET))
    for unit in run["unit"]:
        (tmp_path / f"{unit}.npz").write_bytes(b"PK truncated")
    with pytest.warns(UserWarning, match="damaged maps are left out"):
        figure = examples_figure(run, tmp_path, "quick", UNET)
    assert not [image for axes in figure.axes for image in axes.images]
