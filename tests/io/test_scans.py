"""Scans as a network sees them, and maps back on the grid of their file."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest
from ct_files import AFFINE, scan, write_nifti, write_series
from hypothesis import given
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from misure.io import nifti as nifti_module
from misure.io.images import ImageFileError, read_images
from misure.io.volume import Grid
from misure.io.volume import radiological

AXES = ["RAS", "LAS", "LPI", "SRA", "PIR"]
WINDOW = (-125.0, 275.0)


@pytest.mark.parametrize("axes", AXES)
def test_a_scan_is_seen_as_radiologists_see_it_whatever_its_axes(tmp_path, axes):
    voxels = scan()
    path = write_nifti(tmp_path / "a.nii.gz", voxels, axes=axes)
    expected = (np.clip(voxels, *WINDOW).astype(np.float32) - WINDOW[0]) / 400
    (volume,) = read_images(path, channels=1, dimensions=3, window=WINDOW)
    np.testing.assert_array_equal(volume.pixels[0].numpy(), radiological(expected))
    (single,) = read_images(path, channels=3, slice_index=2, window=WINDOW)
    np.testing.assert_array_equal(single.pixels.numpy(), np.stack([radiological(expected)[2]] * 3))
    np.testing.assert_array_equal(single.affine, nib.load(path).affine)
    (ras,) = read_images(path, channels=1, slice_index=2, window=WINDOW, axes="ras")
    np.testing.assert_array_equal(ras.pixels[0].numpy(), expected[:, :, 2])


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("layout", ["radiological", "ras"])
def test_a_map_goes_back_to_the_voxels_it_came_from(tmp_path, axes, layout):
    """The file itself is the oracle: a map equal to the scan must be written as the scan was."""
    voxels = scan().astype(np.float32)
    path = write_nifti(tmp_path / "a.nii.gz", voxels, axes=axes)
    stored = nib.load(path)
    (volume,) = read_images(path, channels=1, dimensions=3, axes=layout, window=(0.0, 1.0))
    grid = volume.grid
    back, affine = grid.to_file(np.ascontiguousarray(grid.from_voxels(voxels)))
    np.testing.assert_array_equal(back, stored.get_fdata(dtype=np.float32))
    np.testing.assert_allclose(affine, stored.affine, atol=1e-9)

    (single,) = read_images(path, channels=1, slice_index=3, axes=layout)
    back, affine = single.grid.to_file(np.ascontiguousarray(single.grid.from_voxels(voxels[:, :, 3:4])))
    axis = axes.index("S") if "S" in axes else axes.index("I")
    place = 3 if "S" in axes else stored.shape[axis] - 1 - 3
    np.testing.assert_array_equal(back, np.take(stored.get_fdata(dtype=np.float32), [place], axis))
    origin = np.array([0, 0, 0, 1])
    origin[axis] = place
    np.testing.assert_allclose(affine @ [0, 0, 0, 1], stored.affine @ origin, atol=1e-9)


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


def test_without_a_window_the_scan_s_own_range_is_taken(tmp_path):
    path = write_nifti(tmp_path / "a.nii", scan())
    pixels = read_images(path, channels=1, dimensions=3)[0].pixels
    assert (float(pixels.min()), float(pixels.max())) == (0.0, 1.0)


def test_a_flat_nifti_is_one_slice(tmp_path):
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    nib.Nifti1Image(values, np.diag([-1.0, -1.0, 1.0, 1.0])).to_filename(tmp_path / "a.nii")
    (image,) = read_images(tmp_path / "a.nii", channels=1, window=(0.0, 19.0))
    # stored to the left and the back, so rows and columns are the stored axes exchanged
    np.testing.assert_allclose(image.pixels[0].numpy(), values.T / 19, rtol=1e-6)


def test_a_dicom_series_is_the_scan(tmp_path):
    voxels = scan()
    folder = write_series(tmp_path / "series", voxels)
    (image,) = read_images(folder, channels=1, slice_index=1, window=WINDOW)
    expected = (np.clip(voxels, *WINDOW).astype(np.float32) - WINDOW[0]) / 400
    np.testing.assert_array_equal(image.pixels[0].numpy(), radiological(expected)[1])
    np.testing.assert_allclose(image.affine, AFFINE)


def test_a_scan_that_unpacks_to_more_than_it_says_is_refused(tmp_path, monkeypatch):
    path = write_nifti(tmp_path / "a.nii.gz", scan())
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(1_000_000)))
    monkeypatch.setattr(nifti_module, "_EXTENSIONS", 1024)
    with pytest.raises(ImageFileError, match="more than its header says"):
        read_images(path, channels=1, dimensions=3)
    monkeypatch.setattr(nifti_module, "MOST_VOXELS", 100)
    with pytest.raises(ImageFileError, match="crop it first"):
        read_images(path, channels=1, dimensions=3)
