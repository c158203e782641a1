"""Methods at equal ratio, insertion and deletion: tables by hand, and what the figures show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.figure import Figure
from paper_records import frame, organ, save_map, unit

from misure.errors import MisureError
from misure.evaluation.curves import area, dice_at
from misure.explainers import EXPLAINERS
from misure.paper.extensions.equal_ratio import ALWAYS, RATIOS, like_for_like_tables, methods_of
from misure.paper.extensions.insertion_deletion import insertion_deletion_figures, insertion_deletion_tables, swept_area
from misure.paper.figures.equal_ratio import label_lines, like_for_like_figures
from misure.paper.material import Material
from misure.paper.published import PAIRS
from misure.paper.query import latest_run
from misure.plotting import style_of

TRIANGLE, UNET, TRANSUNET = PAIRS[:3]


def curves(
    scores: list[float], room: float = 50.0, swept: tuple[list[float], list[float]] = ([0, 1], [0, 1])
) -> dict[str, Any]:
    """Curves of one unit: Dice explained at equal steps from 0.05 to the whole image, and one sweep for both kinds."""
    allowed = np.geomspace(0.05, room, len(scores))
    arrays_ = {"curve_allowed": allowed, "curve_dice": np.array(scores), "curve_ratio": allowed}
    fraction, dice = (np.array(side, float) for side in swept)
    arrays_ |= {"insertion_fraction": fraction, "deletion_fraction": fraction}
    return arrays_ | {"insertion_dice": dice, "deletion_dice": 1 - dice}


def save(folder: Path, name: str, more: dict[str, Any]) -> None:
    save_map(folder, name, np.ones((4, 4)))
    with np.load(folder / f"{name}.npz") as known:
        np.savez(folder / f"{name}.npz", allow_pickle=False, **known, **more)


def material_of(folder: Path, *units: list[dict[str, Any]], pairs: tuple[Any, ...] = (TRIANGLE,)) -> Material:
    return Material(latest_run(frame(*units), "quick"), "quick", folder, pd.DataFrame(), pairs)


def compared(folder: Path, n_samples: int = 3, make: Any = unit, **columns: Any) -> list[list[dict[str, Any]]]:
    """Records of every method with curves that differ by sample."""
    units = []
    for sample in range(n_samples):
        for place, name in enumerate(ALWAYS):
            ratio = {"perturbation_ratio": 0.4 + 0.1 * sample + place, "dice_explained": 0.9 - 0.1 * place}
            rows = make(name, sample, **(ratio | columns))
            height = 1 - 0.1 * place - 0.01 * sample
            save(folder, rows[0]["unit"], curves([0, 0.3 * height, height, 1]))
            units.append(rows)
    return units


def table(material: Material) -> pd.DataFrame:
    return next(like_for_like_tables(material))[1].set_index("explainer")


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
    assert swept_area({"insertion_dice": [0, 0.5, 1], "insertion_fraction": [0, 0.5, 1]}, "insertion") == 0.5
    # Unequal steps: two trapezoids of widths 0.9 and 0.1.
    unequal = {"deletion_dice": [1, 0.5, 0], "deletion_fraction": [0, 0.9, 1]}
    assert swept_area(unequal, "deletion") == pytest.approx(0.9 * 0.75 + 0.1 * 0.25)


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


def test_methods_are_compared_on_the_samples_that_all_have(tmp_path: Path) -> None:
    units = compared(tmp_path, 4)
    gone = next(rows[0]["unit"] for rows in units if (rows[0]["explainer"], rows[0]["sample"]) == ("rise", 1))
    (tmp_path / f"{gone}.npz").unlink()
    methods = methods_of(material_of(tmp_path, *units), TRIANGLE)
    assert {tuple(sorted(method.curves)) for method in methods} == {((0, 1), (2, 1), (3, 1))}
    assert all(set(method.rows["sample"]) == {0, 2, 3} for method in methods)


def test_a_method_with_few_curves_takes_no_samples_from_the_others(tmp_path: Path) -> None:
    units = compared(tmp_path, 4)
    for rows in units:
        if rows[0]["explainer"] == "rise" and rows[0]["sample"]:
            (tmp_path / f"{rows[0]['unit']}.npz").unlink()
    found = table(material_of(tmp_path, *units))
    assert found["n_samples"].to_dict() == dict.fromkeys(ALWAYS, 4) | {"rise": 1}
    assert np.isnan(found.loc["rise", "area_low"])


def test_a_ratio_that_an_image_has_no_room_for_leaves_it_out(tmp_path: Path) -> None:
    units = compared(tmp_path, 2)
    for rows in units:
        if rows[0]["sample"] == 0:
            save(tmp_path, rows[0]["unit"], curves([0, 0.5, 0.75, 1], room=4.0))
    material = material_of(tmp_path, *units)
    found = table(material)
    assert [found.loc["msr", f"dice_at_{ratio:g}_n"] for ratio in RATIOS] == [2, 2, 2, 1, 1]
    assert "(n = 1)" in next(like_for_like_tables(material))[2]


def test_records_without_curves_are_holes(tmp_path: Path) -> None:
    rows = unit("msr", 0)
    save_map(tmp_path, rows[0]["unit"], np.ones((4, 4)))
    material = material_of(tmp_path, rows, unit("rise", 0))
    found = table(material)
    assert set(found["n_samples"]) == {0}
    assert found.filter(like="_mean").isna().all(axis=None)
    for _, _, document in [*like_for_like_tables(material), *insertion_deletion_tables(material)][::2]:
        assert "no saved curves" in document
    for _, figure in [*like_for_like_figures(material), *insertion_deletion_figures(material)]:
        assert "no saved curves" in " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    units = compared(tmp_path, 1)
    path = tmp_path / f"{units[0][0]['unit']}.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(MisureError, match=f"cannot read .*{path.name}.*delete it"):
        methods_of(material_of(tmp_path, *units), TRIANGLE)


def test_disturbed_units_do_not_count(tmp_path: Path) -> None:
    disturbed = [unit("msr", 0, input_noise=1e-6), unit("msr", 1, intervention="other target")]
    for rows in disturbed:
        save(tmp_path, rows[0]["unit"], curves([0, 1]))
    assert set(table(material_of(tmp_path, *disturbed))["n_samples"]) == {0}


def test_msr_over_lambda_is_on_shared_samples(tmp_path: Path) -> None:
    units = [
        unit("msr", sample, {"lam": lam}, perturbation_ratio=ratio + sample, binary_dice_explained=0.5)
        for lam, ratio in ((0.001, 3.0), (0.01, 2.0), (0.1, 1.0))
        for sample in range(3 if lam == 0.01 else 2)
    ]
    (_, frame_, document) = list(like_for_like_tables(material_of(tmp_path, *units)))[1]
    assert frame_["lambda"].tolist() == [0.001, 0.01, 0.1]
    assert frame_["n_samples"].tolist() == [2, 2, 2]
    assert frame_["perturbation_ratio_mean"].tolist() == [3.5, 2.5, 1.5]
    assert frame_["binary_dice_explained_mean"].tolist() == [0.5] * 3
    assert "| Triangle | U-Net | 0.1 |" in document


def test_insertion_and_deletion_table(tmp_path: Path) -> None:
    units = [unit("msr", 0), unit("rise", 0)]
    save(tmp_path, units[0][0]["unit"], curves([0, 1], swept=([0, 0.1, 1], [0, 1, 1])))
    save(tmp_path, units[1][0]["unit"], curves([0, 1], swept=([0, 0.5, 1], [0, 0, 1])))
    ((name, found, document),) = insertion_deletion_tables(material_of(tmp_path, *units))
    found = found.set_index("explainer")
    assert name == "insertion_deletion"
    assert found.loc["msr", ["insertion_mean", "deletion_mean"]].tolist() == pytest.approx([0.95, 0.05])
    assert found.loc["rise", "difference_mean"] == pytest.approx(0.25 - 0.75)
    assert "| MSR | 0.950 [–] | 0.050 [–] | 0.900 [–] | 1 |" in document  # noqa: RUF001 - the table's dash


def test_stand_ins_are_marked(tmp_path: Path) -> None:
    material = material_of(tmp_path, *compared(tmp_path, make=_aorta), pairs=(UNET,))
    for _, _, document in [*like_for_like_tables(material), *insertion_deletion_tables(material)]:
        assert "stand-in" in document.splitlines()[0]
        assert "**stand-in: phantom CT (8 volumes)**" in document
    for _, figure in [*like_for_like_figures(material), *insertion_deletion_figures(material)]:
        assert "stand-in" in figure.get_supxlabel()


def _aorta(name: str, sample: int, **columns: Any) -> list[dict[str, Any]]:
    return organ(name, sample, "Aorta", **columns)


def words(figure: Figure) -> list[list[str]]:
    return [[text.get_text() for text in axes.texts] for axes in figure.axes]


def test_figures_have_a_panel_for_each_network_and_name_every_method(tmp_path: Path) -> None:
    units = [*compared(tmp_path, make=_aorta), *compared(tmp_path, make=_aorta, model="transunet")]
    material = material_of(tmp_path, *units, pairs=(UNET, TRANSUNET))
    ((name, figure),) = like_for_like_figures(material)
    titles = {method.title for method in methods_of(material, UNET)}
    assert (name, len(figure.axes)) == ("like_for_like_synapse", 2)
    assert [axes.get_title() for axes in figure.axes] == ["Synapse, U-Net, n = 3", "Synapse, TransUNet, n = 3"]
    for axes, texts in zip(figure.axes, words(figure), strict=True):
        assert titles <= set(texts)
        assert {"0.05", "0.1", "0.2", "0.4"} <= set(texts)  # the published thresholds
        assert axes.get_xscale() == "log"
        assert axes.get_xlabel() == "perturbation ratio (non-zero mask pixels / object pixels)"
    ((name, figure),) = insertion_deletion_figures(material)
    assert (name, len(figure.axes)) == ("insertion_deletion_synapse", 4)
    assert all(titles <= set(texts) for texts in words(figure))


def test_the_mean_line_is_the_mean_of_the_samples(tmp_path: Path) -> None:
    ((_, figure),) = like_for_like_figures(material_of(tmp_path, *compared(tmp_path)))
    mine = [line for line in figure.axes[0].lines if line.get_color() == style_of("rise").colour]
    (mean,) = [line for line in mine if line.get_linewidth() == 2]
    assert len([line for line in mine if line.get_alpha()]) == 3
    at_five = np.interp(np.log10(5), np.log10(mean.get_xdata()), mean.get_ydata())
    # Drawn through 80 points, so the kink at 5 is cut by less than a step's rise.
    assert at_five == pytest.approx(np.mean([0.9 - 0.01 * sample for sample in range(3)]), abs=0.02)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_labels_never_lie_on_each_other_and_stay_in_the_panel(heights: list[float]) -> None:
    axes = Figure().subplots()
    axes.set_ylim(0, 1)
    label_lines(axes, {str(i): ("black", height) for i, height in enumerate(heights)})
    places = sorted(text.get_position()[1] for text in axes.texts)
    assert places[0] >= 0
    assert places[-1] <= 1
    assert (np.diff(places) > 0.06).all()


def test_every_method_has_its_own_look() -> None:
    looks = {(style_of(name).colour, style_of(name).marker) for name in EXPLAINERS}
    assert len(looks) == len(EXPLAINERS)
