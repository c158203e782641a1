"""Figures: which samples and classes are drawn where, scales, captions and labelled gaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from paper_records import ORGANS, PHANTOM, frame, organ, save_map, triangle_records, unit

from misure.paper.figures import qualitative_figure
from misure.paper.reference import PAIRS
from misure.paper.selection import latest_run
from misure.paper.size_figures import size_figure
from misure.paper.tables import NOT_RUN

PAIR, UNET, TRANSUNET, *_ = PAIRS
COLUMN_TITLES = ["Image", "Prediction", "Dilation ($X_{SR}$)", "MSR", "RISE (300 masks)", "Seg-Grad-CAM"]


def _row_labels(figure: Figure) -> list[str]:
    return [axes.get_ylabel() for axes in figure.axes[:-1:6]]


def _size_panels(figure: Figure) -> dict[str, list[Any]]:
    """Left and right axes by the first line of their titles."""
    left, right = figure.axes[::2], figure.axes[1::2]
    return {a.get_title().splitlines()[0]: [a, b] for a, b in zip(left, right, strict=True)}


def test_qualitative_grid(tmp_path: Path) -> None:
    run = latest_run(triangle_records(tmp_path), "quick")
    figure = qualitative_figure(run, tmp_path, "quick", [PAIR])
    panels, bar = figure.axes[:-1], figure.axes[-1]
    assert len(panels) == 2 * len(COLUMN_TITLES)
    assert [axes.get_title() for axes in panels[:6]] == COLUMN_TITLES
    assert [axes.get_ylabel() for axes in panels[::6]] == ["sample 0", "sample 1"]
    assert "scaled" in bar.get_ylabel()
    assert [bool(axes.images) for axes in panels] == [True] * 6 + [True] * 4 + [False, True]
    assert panels[10].texts[0].get_text() == "no map saved"
    for axes in (panels[3], panels[4], panels[5]):
        shown = np.asarray(axes.images[0].get_array())
        assert (shown.min(), shown.max()) == (0.0, 1.0)


def test_a_grid_without_maps_says_so(tmp_path: Path) -> None:
    run = latest_run(triangle_records(tmp_path / "elsewhere"), "quick")
    figure = qualitative_figure(run, tmp_path / "empty", "quick", [PAIR])
    assert {axes.texts[0].get_text() for axes in figure.axes[:-1]} == {"no saved maps\nin this profile"}


def test_at_most_six_samples_are_drawn(tmp_path: Path) -> None:
    units = [unit("msr", sample) for sample in range(8)]
    for rows in units:
        save_map(tmp_path, rows[0]["unit"], np.eye(8))
    figure = qualitative_figure(latest_run(frame(*units), "quick"), tmp_path, "quick", [PAIR])
    assert len(figure.axes) == 6 * 6 + 1


def test_figures_of_a_stand_in_say_so(tmp_path: Path) -> None:
    run = latest_run(frame(unit("msr", 0, stand_in=True)), "quick")
    for figure in (qualitative_figure(run, tmp_path, "quick", [PAIR]), size_figure(run, "quick", PAIR)):
        assert "stand-in" in figure.get_supxlabel()


def test_size_figure(tmp_path: Path) -> None:
    left, right = size_figure(latest_run(triangle_records(tmp_path), "quick"), "quick", PAIR).axes
    assert left.collections[0].get_offsets().tolist() == [[100, 0], [200, 1], [300, 2], [400, 3]]
    assert left.get_title().endswith("= 1.00, n = 4")
    assert right.get_title().endswith("= -1.00, n = 4")


@pytest.mark.parametrize(
    ("dilations", "title"),
    [([], ""), ([0.0, 1.0], "n = 2"), ([0.0, 0.0, 0.0], "undefined (one side is constant), n = 3")],
)
def test_size_figure_with_little_data(dilations: list[float], title: str) -> None:
    units = [unit("msr", s, n_dilations=d, prediction_size=100 + s) for s, d in enumerate(dilations)]
    left = size_figure(latest_run(frame(*units), "quick"), "quick", PAIR).axes[0]
    assert left.get_title().endswith(title)
    assert [text.get_text() for text in left.texts] == ([] if dilations else [NOT_RUN])


def test_organs_and_networks_alternate_as_in_the_paper(tmp_path: Path) -> None:
    units = []
    for model in ("unet_resnet34", "transunet"):
        for number, label in enumerate(ORGANS):
            for sample in (number, 10 + number):
                rows = organ("msr", sample, label, model=model)
                units.append(rows)
                # Both networks have a map of the second sample of each organ, the U-Net one of the first as well.
                if sample >= 10 or model == "unet_resnet34":
                    save_map(tmp_path, rows[0]["unit"], np.eye(8))
    run = latest_run(frame(*units), "quick")
    figure = qualitative_figure(run, tmp_path, "quick", [UNET, TRANSUNET])
    expected = [("Aorta", 10), ("Left Kidney", 12), ("Gall Bladder", 11), ("Liver", 14)]
    assert _row_labels(figure) == [
        f"{label}\n{model}\nsample {sample}" for label, sample in expected for model in ("U-Net", "TransUNet")
    ]
    assert figure.get_supxlabel().startswith("Synapse, U-Net and TransUNet")
    assert PHANTOM in figure.get_supxlabel().replace("\n", " ")


def test_an_organ_without_maps_is_labelled_and_another_makes_up_for_it(tmp_path: Path) -> None:
    units = [organ("msr", number, label) for number, label in enumerate(ORGANS) if label != "Gall Bladder"]
    for rows in units:
        save_map(tmp_path, rows[0]["unit"], np.eye(8))
    figure = qualitative_figure(latest_run(frame(*units), "quick"), tmp_path, "quick", [UNET])
    labels = ["Aorta\nsample 0", "Left Kidney\nsample 2", "Gall Bladder", "Liver\nsample 4", "Right Kidney\nsample 3"]
    assert _row_labels(figure) == labels
    empty = figure.axes[2 * 6 : 3 * 6]
    assert {axes.texts[0].get_text() for axes in empty} == {"no saved maps\nin this profile"}


def test_maps_of_later_draws_and_of_other_settings_are_not_shown(tmp_path: Path) -> None:
    late = organ("msr", 0, "Aorta", draw=50)
    other = organ("msr", 1, "Aorta", {"lr": 0.01})
    shown = organ("msr", 2, "Aorta", draw=49)
    for rows in (late, other, shown):
        save_map(tmp_path, rows[0]["unit"], np.eye(8))
    figure = qualitative_figure(latest_run(frame(late, other, shown), "quick"), tmp_path, "quick", [UNET])
    assert _row_labels(figure) == ["Aorta\nsample 2", "Left Kidney", "Gall Bladder", "Liver"]


def test_sample_with_most_maps_is_preferred(tmp_path: Path) -> None:
    units = [organ("msr", 0, "Aorta"), organ("msr", 1, "Aorta"), organ("seg_grad_cam", 1, "Aorta")]
    for rows in units:
        save_map(tmp_path, rows[0]["unit"], np.eye(8))
    figure = qualitative_figure(latest_run(frame(*units), "quick"), tmp_path, "quick", [UNET])
    assert _row_labels(figure)[0] == "Aorta\nsample 1"


def test_size_figure_has_a_row_for_each_organ_the_papers_first() -> None:
    units = [
        organ("msr", s, label, n_dilations=float(s), prediction_size=10 + s, perturbation_ratio=1.0 + s)
        for label in ORGANS
        if label not in {"Gall Bladder", "Spleen"}
        for s in range(4)
    ]
    figure = size_figure(latest_run(frame(*units), "quick"), "quick", UNET)
    panels = _size_panels(figure)
    first = ["Aorta", "Gall Bladder", "Left Kidney", "Right Kidney"]
    assert list(panels) == [*first, "Liver", "Pancreas", "Stomach"]
    for label, (left, right) in panels.items():
        if label == "Gall Bladder":
            assert (
                left.texts[0].get_text() == right.texts[0].get_text() == "no samples of Gall Bladder\nin this profile"
            )
        else:
            assert left.get_title() == right.get_title() == f"{label}\nSpearman's $\\rho$ = 1.00, n = 4"
            assert right.collections[0].get_offsets().tolist() == [[10, 1], [11, 2], [12, 3], [13, 4]]
    assert PHANTOM in figure.get_supxlabel().replace("\n", " ")


def test_later_draws_are_not_in_the_size_figure() -> None:
    units = [organ("msr", s, "Aorta", n_dilations=1.0, draw=draw) for s, draw in enumerate((0, 49, 50, 51))]
    left, _ = _size_panels(size_figure(latest_run(frame(*units), "quick"), "quick", UNET))["Aorta"]
    assert left.get_title().endswith("n = 2")


@pytest.mark.parametrize(
    ("ratios", "scale"),
    [([1.0, 30.0], "linear"), ([1.0, 30.1], "log"), ([0.0, 1.0, 31.0], "symlog"), ([0.0, 0.0], "linear")],
)
def test_ratio_axes_are_logarithmic_where_the_range_needs_it(ratios: list[float], scale: str) -> None:
    units = [
        organ("msr", s, ORGANS[s % 2], n_dilations=1.0, perturbation_ratio=ratio) for s, ratio in enumerate(ratios)
    ]
    panels = _size_panels(size_figure(latest_run(frame(*units), "quick"), "quick", UNET))
    for label in ORGANS[:2]:  # the same scale in both, though neither has the whole range
        left, right = panels[label]
        assert (left.get_yscale(), right.get_yscale()) == ("linear", scale)
        low, high = right.get_ylim()
        assert all(low < y < high for _, y in right.collections[0].get_offsets())
