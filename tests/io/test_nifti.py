"""CT volumes come out in patient axes whatever the file's axes; damaged files and series are named."""

from __future__ import annotations

import errno
import gzip
import itertools
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from ct_files import AFFINE, SPACING, labels, scan, write_nifti, write_series
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from misure.errors import MisureError
from misure.io import nifti as ct
from misure.io.dicom import read_series
from misure.io.nifti import Volume, VolumeError, grid_difference, radiological, read_nifti

AXES = ["".join(axes) for order in itertools.permutations(("LR", "AP", "IS")) for axes in itertools.product(*order)]


@pytest.mark.parametrize("axes", AXES)
def test_any_axis_order_gives_the_same_volume(tmp_path, axes):
    volume = read_nifti(write_nifti(tmp_path / "a.nii.gz", scan(), axes=axes))
    np.testing.assert_array_equal(volume.voxels, scan())
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-4)  # the file holds float32
    assert volume.voxels.dtype == np.int16
    assert volume.spacing == pytest.approx(SPACING)


def test_radiological_view():
    right, front, head = 0, 1, 2
    for axis, (place, first) in {right: ((2, 0), True), front: ((1, 0), True), head: ((0, -1), False)}.items():
        voxels = np.zeros((4, 5, 6))
        voxels[tuple(slice(None) if i != axis else -1 for i in range(3))] = 1  # the end the axis grows to
        shown = radiological(voxels)
        assert shown.shape == (6, 5, 4)
        assert (shown.take(place[1], axis=place[0]) == 1).all(), axis
        assert (shown.take(-1 if first else 0, axis=place[0]) == 0).all(), axis


def test_scaled_and_wide_numbers(tmp_path):
    stored = scan().astype(np.int16)
    path = write_nifti(tmp_path / "scaled.nii.gz", stored)
    image = nib.Nifti1Image(stored * 2.0 - 10.0, AFFINE)
    image.header.set_data_dtype(np.int16)
    image.to_filename(path)  # nibabel chooses slope and intercept
    assert read_nifti(path).voxels.dtype == np.float32
    # int16 steps over a range of about 3000 HU are 0.05
    np.testing.assert_allclose(read_nifti(path).voxels, stored * 2.0 - 10.0, atol=0.1)
    wide = write_nifti(tmp_path / "wide.nii", scan().astype(np.int32))
    assert read_nifti(wide).voxels.dtype == np.int16
    np.testing.assert_array_equal(read_nifti(wide).voxels, scan())
    write_nifti(tmp_path / "wide.nii", scan().astype(np.int32) + 40000)
    np.testing.assert_array_equal(read_nifti(wide).voxels, scan().astype(np.int32) + 40000)


def test_a_trailing_axis_of_one_is_no_harm(tmp_path):
    volume = read_nifti(write_nifti(tmp_path / "a.nii.gz", scan()[..., None], axes="RAS"))
    np.testing.assert_array_equal(volume.voxels, scan())


@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_truncated_gzip_is_named_wherever_it_was_cut(tmp_path_factory, cut):
    path = write_nifti(tmp_path_factory.mktemp("cut") / "img0001.nii.gz", scan())
    content = path.read_bytes()
    path.write_bytes(content[: max(2, int(cut * len(content)))])  # 2 bytes name the format
    with pytest.raises(VolumeError, match=r"img0001.nii.gz is a truncated gzip file"):
        read_nifti(path)


def test_other_damage_is_named(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", scan())
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # of the checksum
    path.write_bytes(content)
    with pytest.raises(VolumeError, match="damaged gzip"):
        read_nifti(path)
    path.write_bytes(b"")
    with pytest.raises(VolumeError, match="not a complete NIfTI"):
        read_nifti(path)
    path.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(VolumeError, match="not a complete NIfTI"):
        read_nifti(path)
    whole = write_nifti(tmp_path / "b.nii", scan())
    whole.write_bytes(whole.read_bytes()[:-10])
    with pytest.raises(VolumeError, match="not a complete NIfTI"):
        read_nifti(whole)
    with pytest.raises(VolumeError, match=r"missing\.nii cannot be read"):
        read_nifti(tmp_path / "missing.nii")


def test_what_is_no_volume_is_named(tmp_path):
    series = write_nifti(tmp_path / "time.nii.gz", np.zeros((3, 4, 5, 2), np.int16))
    with pytest.raises(VolumeError, match=r"shape \(3, 4, 5, 2\), not one 3-D volume"):
        read_nifti(series)
    for row in ([0, 0, 0, 0], [np.nan, 0, 0, 0]):
        image = nib.Nifti1Image(scan(), AFFINE)
        image.header["srow_x"] = row
        path = tmp_path / "flat.nii"
        path.write_bytes(image.header.binaryblock + b"\0" * 4 + scan().tobytes(order="F"))
        with pytest.raises(VolumeError, match="no usable affine"):
            read_nifti(path)


def test_written_files_are_equal_and_read_back(tmp_path):
    for name in ("a.nii.gz", "sub/b.nii.gz"):
        ct.write_nifti(tmp_path / name, scan(), AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "sub" / "b.nii.gz").read_bytes()
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii.gz").voxels, scan())
    image = nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), scan())


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    ct.write_nifti(tmp_path / "a.nii.gz", scan(), AFFINE)
    before = (tmp_path / "a.nii.gz").read_bytes()

    def full(self, data):
        with self.open("wb") as stream:
            stream.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MisureError, match=r"cannot write .*a\.nii\.gz: No space left on device"):
        ct.write_nifti(tmp_path / "a.nii.gz", scan(seed=1), AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]


def test_grids():
    image = Volume(scan(), AFFINE, Path("a"))
    assert grid_difference(image, replace(image, voxels=labels())) is None
    assert grid_difference(image, replace(image, voxels=labels((7, 6, 4)))) == (
        "image has 7 x 6 x 5 voxels, label 7 x 6 x 4"
    )
    shifted = AFFINE.copy()
    shifted[2, 3] += 3
    assert grid_difference(image, replace(image, affine=shifted)) == (
        "image and label have different affines: they lie up to 3 mm apart"
    )
    scaled = AFFINE.copy()
    scaled[0, 0] *= 1.1  # the far corner, 6 voxels of 2 mm away, moves by 1.2 mm
    assert "up to 1.2 mm apart" in str(grid_difference(image, replace(image, affine=scaled)))
    rounded = AFFINE + 1e-4
    rounded[3] = AFFINE[3]
    assert grid_difference(image, replace(image, affine=rounded)) is None


def test_a_dicom_series_is_the_same_volume_as_its_nifti(tmp_path):
    nifti = read_nifti(write_nifti(tmp_path / "a.nii.gz", scan()))
    series = read_series(write_series(tmp_path / "series", scan()))
    np.testing.assert_array_equal(series.voxels, nifti.voxels)
    np.testing.assert_allclose(series.affine, nifti.affine, atol=1e-4)  # the NIfTI file holds float32
    assert series.voxels.dtype == np.int16
    assert grid_difference(series, nifti) is None


def test_other_files_beside_a_series_are_passed_over(tmp_path):
    folder = write_series(tmp_path / "series", scan())
    (folder / "notes.txt").write_text("scanned on a Monday, a note longer than a DICOM preamble " * 4)
    (folder / "more").mkdir()
    np.testing.assert_array_equal(read_series(folder).voxels, scan())


def test_broken_rescaling_gives_floats(tmp_path):
    folder = write_series(tmp_path / "series", scan(), intercept=-1024, RescaleSlope=0.5, RescaleIntercept=-3)
    np.testing.assert_array_equal(read_series(folder).voxels, (scan() + 1024.0) * 0.5 - 3)


SERIES_FAULTS = {
    "two series": ({"SeriesInstanceUID": [generate_uid() for _ in range(5)]}, "holds 5 DICOM series"),
    "a gap": ({"heights": [0, 3, 6, 12, 15]}, r"1 slices are missing, first after 6.00 mm"),
    "twice": ({"heights": [0, 3, 3, 6, 9]}, r"two slices lie at the same place \(3.00 mm\)"),
    "all at once": ({"heights": [0, 0, 0, 0, 0]}, "two slices lie at the same place"),
    "unequal": ({"heights": [0, 3, 6, 10, 15]}, "3.00 to 5.00 mm apart, not equally spaced"),
    "a localizer": (
        {"ImageOrientationPatient": [[1, 0, 0, 0, 1, 0]] * 4 + [[1, 0, 0, 0, 0, -1]]},
        "slices differ in orientation",
    ),
    "MR": ({"Modality": "MR"}, "Modality is MR, not CT"),
    "frames": ({"NumberOfFrames": 3}, "NumberOfFrames is 3"),
    "no pixels": ({"PixelData": [b"\0" * 84] * 4 + [b"\0" * 10]}, "cannot be decoded"),
}


@pytest.mark.parametrize("fault", SERIES_FAULTS)
def test_series_that_are_no_volume(tmp_path, fault):
    fields, message = SERIES_FAULTS[fault]
    with pytest.raises(VolumeError, match=message):
        read_series(write_series(tmp_path / "series", scan(), **fields))


def test_truncated_and_missing_slices(tmp_path):
    folder = write_series(tmp_path / "series", scan())
    last = max(folder.iterdir())
    last.write_bytes(last.read_bytes()[:-30])
    with pytest.raises(VolumeError, match="cannot be decoded"):
        read_series(folder)
    last.write_bytes(last.read_bytes()[:400])
    with pytest.raises(VolumeError):
        read_series(folder)
    for path in sorted(folder.iterdir())[1:]:
        path.unlink()
    with pytest.raises(VolumeError, match="holds 1 DICOM slices"):
        read_series(folder)
