"""Methods at equal ratio: the table by hand, and what the figure shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from paper_curves import aorta, compared, curves, material_of, save
from paper_records import TRANSUNET, TRIANGLE, UNET, save_map, unit

from misure.evaluation.curves import area, dice_at
from misure.paper.extensions.equal_ratio import RATIOS, lambda_cells, like_for_like_figures, like_for_like_tables
from misure.paper.extensions.methods import ALWAYS, methods_of
from misure.paper.material import Material
from misure.plotting import style_of


def table(material: Material) -> pd.DataFrame:
    return next(like_for_like_tables(material)).frame.set_index("explainer")


def test_dice_between_points_is_linear_in_the_logarithm() -> None:
    curve = curves([0.2, 0.4, 0.8, 1.0])  # at 0.05, 0.5, 5 and 50
    assert dice_at(curve, 0.5) == pytest.approx(0.4)
    assert dice_at(curve, 0.5 * 10**0.25) == pytest.approx(0.5)
    assert dice_at(curve, 0.001) == 0.2
    assert dice_at(curve, 50) == 1
    assert np.isnan(dice_at(curve, 51))


def test_a_set_counts_from_its_own_ratio_on() -> None:
    """A binary map at ratio 1, cut where 0.5 and 5 are allowed, and the whole image at 50."""
    curve = curves([0, 0, 0.8, 0.8]) | {"curve_ratio": np.array([0, 0, 1.0, 1.0])}
    assert [dice_at(curve, ratio) for ratio in (0.05, 0.5, 1, 2, 5, 20, 50)] == pytest.approx(
        [0, 0, 0.8, 0.8, 0.8, 0.8, 0.8]
    )
    assert dice_at(curve, 0.5**0.5) == pytest.approx(0.4)  # half way from 0.5 to 1: where it begins is not known
    assert area(curve, 1, 50) == pytest.approx(0.8)


def test_areas_by_hand() -> None:
    curve = curves([0.2, 0.4, 0.8, 1.0])
    assert area(curve, 0.05, np.inf) == pytest.approx((0.3 + 0.6 + 0.9) / 3)
    assert area(curve, 0.5, 5) == pytest.approx(0.6)
    # From 0.5 * 10 ** 0.5 to 5 * 10 ** 0.5: half of the second decade (0.6 to 0.8) and of the third (0.8 to 0.9).
    assert area(curve, 0.5 * 10**0.5, 5 * 10**0.5) == pytest.approx((0.7 + 0.85) / 2)


@given(arrays(np.float64, 7, elements=st.floats(0, 1)), st.floats(1, 5000), st.floats(0.06, 0.9))
def test_areas_are_within_bounds_and_that_of_a_constant_is_the_constant(
    scores: np.ndarray, room: float, low: float
) -> None:
    curve = curves(scores.tolist(), room)
    assert scores.min() - 1e-12 <= area(curve, low, 10) <= scores.max() + 1e-12  # rounding of the weights
    assert area(curves([0.7] * 5, room), low, np.inf) == pytest.approx(0.7)


def test_the_table_has_means_intervals_and_differences(tmp_path: Path) -> None:
    found = table(material_of(tmp_path, *compared(tmp_path)))
    assert list(found.index) == list(ALWAYS)
    heights = [1 - 0.01 * sample for sample in range(3)]
    # Trapezoids over three decades from 0, 0.3 h, h to 1.
    expected = [(0.15 * h + 0.65 * h + (h + 1) / 2) / 3 for h in heights]
    assert found.loc["msr", "area_mean"] == pytest.approx(np.mean(expected))
    assert found.loc["msr", "area_low"] < found.loc["msr", "area_mean"] < found.loc["msr", "area_high"]
    assert found.loc["msr", "dice_at_5_mean"] == pytest.approx(np.mean(heights))
    assert found.loc["msr", "area_minus_msr_mean"] == 0
    # Each place down lowers h by a tenth; the area by (0.15 + 0.65 + 0.5) / 3 of that, on every sample alike.
    assert found.loc["rise", "area_minus_msr_mean"] == pytest.approx(-0.1 * 1.3 / 3)
    assert found.loc["rise", "area_minus_msr_low"] == pytest.approx(found.loc["rise", "area_minus_msr_high"])
    assert set(found["n_samples"]) == {3}


def test_a_ratio_that_an_image_has_no_room_for_leaves_it_out(tmp_path: Path) -> None:
    units = compared(tmp_path, 2)
    for rows in units:
        if rows[0]["sample"] == 0:
            save(tmp_path, rows[0]["unit"], curves([0, 0.5, 0.75, 1], room=4.0))
    material = material_of(tmp_path, *units)
    found = table(material)
    assert [found.loc["msr", f"dice_at_{ratio:g}_n"] for ratio in RATIOS] == [2, 2, 2, 1, 1]


def test_msr_over_lambda_is_on_shared_samples(tmp_path: Path) -> None:
    units = [
        unit("msr", sample, {"lam": lam}, perturbation_ratio=ratio + sample, binary_dice_explained=0.5)
        for lam, ratio in ((0.001, 3.0), (0.01, 2.0), (0.1, 1.0))
        for sample in range(3 if lam == 0.01 else 2)
    ]
    shown = lambda_cells(material_of(tmp_path, *units), TRIANGLE)
    assert shown["lambda"].tolist() == [0.001, 0.01, 0.1]
    assert shown["n_samples"].tolist() == [2, 2, 2]
    assert shown["perturbation_ratio_mean"].tolist() == [3.5, 2.5, 1.5]
    assert shown["binary_dice_explained_mean"].tolist() == [0.5] * 3


def test_records_without_curves_are_holes(tmp_path: Path) -> None:
    rows = unit("msr", 0)
    save_map(tmp_path, rows[0]["unit"], np.ones((4, 4)))
    material = material_of(tmp_path, rows, unit("rise", 0))
    assert set(table(material)["n_samples"]) == {0}
    assert table(material).filter(like="_mean").isna().all(axis=None)
    ((_, figure),) = like_for_like_figures(material)
    assert "no saved curves" in figure.axes[0].texts[0].get_text()


def test_a_figure_has_a_panel_for_each_network_and_names_every_method(tmp_path: Path) -> None:
    units = [*compared(tmp_path, make=aorta), *compared(tmp_path, make=aorta, model="transunet")]
    material = material_of(tmp_path, *units, pairs=(UNET, TRANSUNET))
    ((name, figure),) = like_for_like_figures(material)
    assert (name, len(figure.axes)) == ("like_for_like_synapse", 2)
    assert [axes.get_title() for axes in figure.axes] == ["Synapse, U-Net, n = 3", "Synapse, TransUNet, n = 3"]
    assert "stand-in" in figure.get_supxlabel()
    named = {method.title for method in methods_of(material, UNET)} | {"0.05", "0.1", "0.2", "0.4"}  # with thresholds
    for axes in figure.axes:
        assert named <= {text.get_text() for text in axes.texts}
        assert axes.get_xscale() == "log"


def test_the_mean_line_is_the_mean_of_the_samples(tmp_path: Path) -> None:
    ((_, figure),) = like_for_like_figures(material_of(tmp_path, *compared(tmp_path)))
    mine = [line for line in figure.axes[0].lines if line.get_color() == style_of("rise").colour]
    (mean,) = [line for line in mine if line.get_linewidth() == 2]
    assert len([line for line in mine if line.get_alpha()]) == 3
    at_five = np.interp(np.log10(5), np.log10(mean.get_xdata()), mean.get_ydata())
    # Drawn through 80 points, so the kink at 5 is cut by less than a step's rise.
    assert at_five == pytest.approx(np.mean([0.9 - 0.01 * sample for sample in range(3)]), abs=0.02)
