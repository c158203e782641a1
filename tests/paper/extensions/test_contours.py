"""Shares near contours: by hand, and against a search over all pairs of pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from paper_records import COCO, SUBSTITUTION, TRIANGLE, photo, run_of, unit

from misure.paper.extensions.contours import (
    ENOUGH_SAMPLES,
    contours_table,
    contours_tables,
    near_contour,
    shares_near_contour,
)
from misure.paper.extensions.readings import readings_of
from misure.paper.material import Material

SIDE = 224
READINGS = readings_of("table5_readings")


def _square() -> np.ndarray:
    """An object of 20 x 20 pixels, far from the border."""
    region = np.zeros((SIDE, SIDE), bool)
    region[100:120, 100:120] = True
    return region


def _maps(saliency: np.ndarray, **more: np.ndarray) -> dict[str, Any]:
    region = _square()
    return {"image": np.zeros((3, SIDE, SIDE)), "region": region, "saliency": saliency} | (
        {"sufficient_region": region} | more
    )


def _save(folder: Path, rows: list[dict[str, Any]], maps: dict[str, Any]) -> None:
    np.savez(folder / f"{rows[0]['unit']}.npz", allow_pickle=False, **maps)


@settings(max_examples=30, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))), st.integers(1, 3))
def test_near_contour_against_all_pairs_of_pixels(region: np.ndarray, width: int) -> None:
    expected = np.zeros_like(region)
    for (r, c), here in np.ndenumerate(region):
        around = region[max(0, r - width) : r + width + 1, max(0, c - width) : c + width + 1]
        expected[r, c] = bool((around != here).any())
    np.testing.assert_array_equal(near_contour(torch.from_numpy(region), width).numpy(), expected)


def test_shares_by_hand() -> None:
    outline, middle, outside = (np.zeros((SIDE, SIDE)) for _ in range(3))
    outline[100, 100:120] = 0.5
    middle[110, 110] = 0.5
    outside[98, 100:120] = 1.0
    # 3 pixels inside the contour of a 20 x 20 square: 20^2 - 14^2 of its pixels.
    ring = (20**2 - 14**2) / 20**2
    found = shares_near_contour(_maps(outline), 3)
    assert found == pytest.approx({"mask": 1, "mask_in_object": 1, "object": ring, "sufficient_region": ring})
    assert shares_near_contour(_maps(middle), 3)["mask"] == 0
    both = shares_near_contour(_maps(middle + outside), 3)
    assert both["mask"] == pytest.approx(20 / 20.5)
    assert both["mask_in_object"] == 0
    whole = shares_near_contour(_maps(outline, sufficient_region=np.ones((SIDE, SIDE), bool)), 5)
    assert whole["sufficient_region"] == pytest.approx((30**2 - 10**2) / SIDE**2)


def test_the_width_grows_with_the_image() -> None:
    maps = {name: np.kron(array, np.ones((2, 2))) for name, array in _maps(np.eye(SIDE)).items() if name != "image"}
    double, plain = shares_near_contour(maps, 3), shares_near_contour(_maps(np.eye(SIDE)), 3)
    assert double == pytest.approx(plain)


def _contour_run(folder: Path, saliency: np.ndarray, samples: int = ENOUGH_SAMPLES) -> Any:
    units = [photo("msr", s, "bus") for s in range(samples)]
    for rows in units:
        _save(folder, rows, _maps(saliency))
    return run_of(*units)


def _document(run: Any, folder: Path) -> str:
    (table,) = contours_tables(Material(run, "quick", folder, run.iloc[:0], [COCO]))
    return table.markdown()


@pytest.mark.parametrize(
    ("place", "of_region", "of_object"),
    [
        (np.s_[100, 100:120], "above", "above"),
        (np.s_[109:111, 109:111], "below", "below"),
        (np.s_[100:120, 100:120], "not clearly different from", "not clearly different from"),
    ],
)
def test_what_is_said_follows_the_intervals(tmp_path: Path, place: Any, of_region: str, of_object: str) -> None:
    saliency = np.zeros((SIDE, SIDE))
    saliency[place] = 0.7
    run = _contour_run(tmp_path, saliency)
    table = contours_table(run, [COCO], tmp_path)
    document = _document(run, tmp_path)
    assert f"is {of_region} that of the sufficient region; inside the object it is {of_object} that of" in document
    assert document.splitlines()[0].endswith(f"COCO-2017 network: {SUBSTITUTION}")
    assert table["width"].tolist() == [3, 5]
    assert set(table["n_samples"]) == {ENOUGH_SAMPLES}
    assert "too few saved maps to say (2;" in _document(run[:2], tmp_path)


def test_empty_masks_are_left_out_and_counted(tmp_path: Path) -> None:
    run = run_of(photo("msr", 0, "bus"), photo("msr", 1, "bus"))
    for name, saliency in zip(run["unit"], (np.zeros((SIDE, SIDE)), _square() * 1.0), strict=True):
        np.savez(tmp_path / f"{name}.npz", allow_pickle=False, **_maps(saliency))
    row = contours_table(run, [COCO], tmp_path).iloc[0]
    assert (row["n_samples"], row["n_empty_masks"], row["mask_n"]) == (2, 1, 1)
    assert row["mask_over_sufficient_region_mean"] == pytest.approx(0)


def test_other_readings_have_rows_where_their_maps_were_saved(tmp_path: Path) -> None:
    other = photo("msr", 0, "bus", dict(READINGS[3].parameters))
    without_maps = photo("msr", 0, "bus", dict(READINGS[1].parameters))
    _save(tmp_path, other, _maps(_square() * 1.0))
    table = contours_table(run_of(other, without_maps), [COCO], tmp_path)
    assert list(dict.fromkeys(table["reading"])) == [READINGS[0].title, READINGS[3].title]


def test_a_dataset_without_maps_has_its_rows() -> None:
    run = run_of(unit("msr", 0))
    assert contours_table(run, [TRIANGLE], Path("nowhere"))["n_samples"].tolist() == [0, 0]
