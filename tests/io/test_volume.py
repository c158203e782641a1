"""Volumes in patient axes: the radiologists' view and back, and how two grids differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ct_files import AFFINE, labels, scan
from hypothesis import given
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from misure.io.reading import ImageFileError
from misure.io.volume import Grid, Volume, from_radiological, grid_difference, radiological, whole_numbers


def test_radiological_view():
    right, front, head = 0, 1, 2
    for axis, (place, first) in {right: ((2, 0), True), front: ((1, 0), True), head: ((0, -1), False)}.items():
        voxels = np.zeros((4, 5, 6))
        voxels[tuple(slice(None) if i != axis else -1 for i in range(3))] = 1  # the end the axis grows to
        shown = radiological(voxels)
        assert shown.shape == (6, 5, 4)
        assert (shown.take(place[1], axis=place[0]) == 1).all(), axis
        assert (shown.take(-1 if first else 0, axis=place[0]) == 0).all(), axis
        np.testing.assert_array_equal(from_radiological(shown), voxels)


IMAGE = Volume(scan(), AFFINE, AFFINE, Path("a"))


def changed(row: int, column: int, value: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[row, column] = value
    return affine


@pytest.mark.parametrize(
    ("label", "difference"),
    [
        ({"voxels": labels()}, None),
        ({"voxels": labels((7, 6, 4))}, "image has 7 x 6 x 5 voxels, label 7 x 6 x 4"),
        ({"affine": changed(2, 3, AFFINE[2, 3] + 3)}, "different affines: they lie up to 3 mm apart"),
        ({"affine": changed(0, 0, AFFINE[0, 0] * 1.1)}, "up to 1.2 mm apart"),  # 6 voxels of 2 mm away
        ({"affine": changed(2, 3, AFFINE[2, 3] + 1e-4)}, None),
    ],
)
def test_grids(label, difference):
    told = grid_difference(IMAGE, replace(IMAGE, **label))
    assert told is None if difference is None else difference in str(told)


@given(st.permutations(["RL", "AP", "SI"]), st.tuples(*[st.integers(0, 1)] * 3), st.tuples(*[st.integers(2, 5)] * 3))
def test_maps_of_any_orientation_keep_their_place(pairs, flips, shape):
    axes = "".join(pair[flip] for pair, flip in zip(pairs, flips, strict=True))
    stored = AFFINE @ inv_ornt_aff(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes)), shape)
    grid = Grid(AFFINE, stored, "radiological")
    values = np.random.default_rng(0).normal(size=shape)
    back, affine = grid.to_file(grid.from_voxels(values))
    place = np.array([1, 0, 1, 1])
    world = AFFINE @ place
    there = np.rint(np.linalg.inv(affine) @ world).astype(int)[:3]
    assert back[tuple(there)] == values[1, 0, 1]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float16, np.float32, np.float64])
def test_whole_numbers(dtype):
    ids = np.arange(118).astype(dtype)
    np.testing.assert_array_equal(whole_numbers(ids), np.arange(118))
    if ids.dtype.kind == "f":
        np.testing.assert_array_equal(whole_numbers((ids * dtype(1.00005)).astype(dtype)), np.arange(118))
        with pytest.raises(
            ImageFileError, match=r"^a: unknown label value 0\.5, inf, nan \(4 voxels\): labels are whole"
        ):
            whole_numbers(np.array([1, 0.5, np.nan, np.inf, 0.5], dtype), "a: ")
