"""Figures of sizes: which samples and classes are drawn where, scales and labelled gaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from paper_records import (
    COCO,
    COCO_CLASSES,
    ORGANS,
    PHANTOM,
    TRIANGLE,
    UNET,
    organ,
    photo,
    run_of,
    triangle_records,
    unit,
)

from misure.paper.figures.sizes import size_figure
from misure.paper.query import latest_run
from misure.paper.tables.rows import NOT_RUN


def _size_panels(figure: Figure) -> dict[str, list[Any]]:
    """The axes of dilations and of the ratio by the first line of their titles."""
    dilations, ratio, kept = figure.axes[::3], figure.axes[1::3], figure.axes[2::3]
    assert [axes.get_title().splitlines()[0] for axes in kept] == [
        axes.get_title().splitlines()[0] for axes in dilations
    ]
    return {a.get_title().splitlines()[0]: [a, b] for a, b in zip(dilations, ratio, strict=True)}


def test_size_figure(tmp_path: Path) -> None:
    left, right, kept = size_figure(latest_run(triangle_records(tmp_path), "quick"), "quick", TRIANGLE).axes
    assert left.collections[0].get_offsets().tolist() == [[100, 0], [200, 1], [300, 2], [400, 3]]
    assert left.get_title().endswith("= 1.00, n = 4")
    assert right.get_title().endswith("= -1.00, n = 4")
    assert kept.collections[0].get_offsets().tolist() == [[100, 100], [200, 100], [300, 100], [400, 100]]
    assert kept.get_title() == "log-log slope 0.00, n = 4"


def test_pixels_kept_grow_with_size_where_the_ratio_does_not_change() -> None:
    units = [
        unit("msr", s, perturbation_ratio=0.5 if s else 0.0, prediction_size=100 + 90 * s, n_dilations=0.0)
        for s in range(4)
    ]
    kept = size_figure(run_of(*units), "quick", TRIANGLE).axes[2]
    assert kept.get_title() == "log-log slope 1.00, n = 3 of 4"  # what keeps nothing has no logarithm


@pytest.mark.parametrize(
    ("dilations", "title"),
    [([], ""), ([0.0, 1.0], "n = 2"), ([0.0, 0.0, 0.0], "undefined (one side is constant), n = 3")],
)
def test_size_figure_with_little_data(dilations: list[float], title: str) -> None:
    units = [unit("msr", s, n_dilations=d, prediction_size=100 + s) for s, d in enumerate(dilations)]
    left = size_figure(run_of(*units), "quick", TRIANGLE).axes[0]
    assert left.get_title().endswith(title)
    assert [text.get_text() for text in left.texts] == ([] if dilations else [NOT_RUN])


def test_size_figure_has_a_row_for_each_organ_the_papers_first() -> None:
    units = [
        organ("msr", s, label, n_dilations=float(s), prediction_size=10 + s, perturbation_ratio=1.0 + s)
        for label in ORGANS
        if label not in {"Gall Bladder", "Spleen"}
        for s in range(4)
    ]
    figure = size_figure(run_of(*units), "quick", UNET)
    panels = _size_panels(figure)
    first = ["Aorta", "Gall Bladder", "Left Kidney", "Right Kidney"]
    assert list(panels) == [*first, *(f"{label} (not in the paper)" for label in ("Liver", "Pancreas", "Stomach"))]
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
    left, _ = _size_panels(size_figure(run_of(*units), "quick", UNET))["Aorta"]
    assert left.get_title().endswith("n = 2")


@pytest.mark.parametrize(
    ("ratios", "scale"),
    [([1.0, 30.0], "linear"), ([1.0, 30.1], "log"), ([0.0, 1.0, 31.0], "symlog"), ([0.0, 0.0], "linear")],
)
def test_ratio_axes_are_logarithmic_where_the_range_needs_it(ratios: list[float], scale: str) -> None:
    units = [
        organ("msr", s, ORGANS[s % 2], n_dilations=1.0, perturbation_ratio=ratio) for s, ratio in enumerate(ratios)
    ]
    panels = _size_panels(size_figure(run_of(*units), "quick", UNET))
    for label in ORGANS[:2]:  # the same scale in both, though neither has the whole range
        left, right = panels[label]
        assert (left.get_yscale(), right.get_yscale()) == ("linear", scale)
        low, high = right.get_ylim()
        assert all(low < y < high for _, y in right.collections[0].get_offsets())


def test_classes_that_the_paper_merges_are_shown_together_first() -> None:
    units = [
        photo("msr", s, name, n_dilations=1.0 + s, prediction_size=10 + s, perturbation_ratio=1.0)
        for s, name in enumerate([*COCO_CLASSES, "dog", "dog"])
        if name != "cow"
    ]
    panels = _size_panels(size_figure(run_of(*units), "quick", COCO))
    assert list(panels) == ["All classes", "Dog (not in the paper)"]  # the other classes have one sample each
    assert panels["All classes"][0].get_title() == "All classes\nSpearman's $\\rho$ = 1.00, n = 9"
    assert panels["Dog (not in the paper)"][0].get_title().endswith("= 1.00, n = 3")
    alone = size_figure(run_of(units[0]), "quick", COCO)
    assert len(alone.axes) == 3
