"""NIfTI volumes come out in patient axes whatever the file's axes; damaged files are named."""

from __future__ import annotations

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest
from ct_files import AFFINE, SPACING, scan, write_nifti
from hypothesis import given
from hypothesis import strategies as st

from misure.io import nifti as ct
from misure.io.nifti import read_nifti
from misure.io.reading import ImageFileError

AXES = ["".join(axes) for order in itertools.permutations(("LR", "AP", "IS")) for axes in itertools.product(*order)]


@pytest.mark.parametrize("axes", AXES)
def test_any_axis_order_gives_the_same_volume(tmp_path, axes):
    volume = read_nifti(write_nifti(tmp_path / "a.nii.gz", scan(), axes=axes))
    np.testing.assert_array_equal(volume.voxels, scan())
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-4)  # the file holds float32
    assert volume.voxels.dtype == np.int16
    assert volume.spacing == pytest.approx(SPACING)


def test_scaled_and_wide_numbers(tmp_path):
    stored = scan().astype(np.int16)
    path = write_nifti(tmp_path / "scaled.nii.gz", stored)
    image = nib.Nifti1Image(stored * 2.0 - 10.0, AFFINE)
    image.header.set_data_dtype(np.int16)
    image.to_filename(path)  # nibabel chooses slope and intercept
    assert read_nifti(path).voxels.dtype == np.float32
    # int16 steps over a range of about 3000 HU are 0.05
    np.testing.assert_allclose(read_nifti(path).voxels, stored * 2.0 - 10.0, atol=0.1)
    trailing = write_nifti(tmp_path / "trailing.nii.gz", scan()[..., None], axes="RAS")
    np.testing.assert_array_equal(read_nifti(trailing).voxels, scan())
    wide = write_nifti(tmp_path / "wide.nii", scan().astype(np.int32))
    assert read_nifti(wide).voxels.dtype == np.int16
    np.testing.assert_array_equal(read_nifti(wide).voxels, scan())
    write_nifti(tmp_path / "wide.nii", scan().astype(np.int32) + 40000)
    np.testing.assert_array_equal(read_nifti(wide).voxels, scan().astype(np.int32) + 40000)


@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_truncated_gzip_is_named_wherever_it_was_cut(tmp_path_factory, cut):
    path = write_nifti(tmp_path_factory.mktemp("cut") / "img0001.nii.gz", scan())
    content = path.read_bytes()
    path.write_bytes(content[: max(2, int(cut * len(content)))])  # 2 bytes name the format
    with pytest.raises(ImageFileError, match=r"img0001.nii.gz cannot be read \(Compressed file ended before"):
        read_nifti(path)


def flipped_checksum(content: bytes) -> bytes:
    return content[:-6] + bytes([content[-6] ^ 1]) + content[-5:]


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("a.nii.gz", flipped_checksum, "CRC check failed"),
        ("a.nii.gz", lambda _: gzip.compress(b"something else"), "size"),
        ("b.nii", lambda content: content[:-10], "Expected"),
    ],
)
def test_other_damage_is_named(tmp_path, name, damage, reason):
    path = write_nifti(tmp_path / name, scan())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ImageFileError, match=f"{name} cannot be read .*{reason}.*not a complete NIfTI"):
        read_nifti(path)


def test_a_scan_that_unpacks_to_more_than_it_says_is_refused(tmp_path, monkeypatch):
    path = write_nifti(tmp_path / "a.nii.gz", scan())
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(1_000_000)))
    monkeypatch.setattr(ct, "_EXTENSIONS", 1024)
    with pytest.raises(ImageFileError, match="more than its header says"):
        read_nifti(path)
    monkeypatch.setattr(ct, "MOST_VOXELS", 100)
    with pytest.raises(ImageFileError, match="crop it first"):
        read_nifti(path)


def test_what_is_no_volume_is_named(tmp_path):
    series = write_nifti(tmp_path / "time.nii.gz", np.zeros((3, 4, 5, 2), np.int16))
    with pytest.raises(ImageFileError, match=r"shape \(3, 4, 5, 2\), not one 3-D volume"):
        read_nifti(series)
    for row in ([0, 0, 0, 0], [np.nan, 0, 0, 0]):
        image = nib.Nifti1Image(scan(), AFFINE)
        image.header["srow_x"] = row
        path = tmp_path / "flat.nii"
        path.write_bytes(image.header.binaryblock + b"\0" * 4 + scan().tobytes(order="F"))
        with pytest.raises(ImageFileError, match="no usable affine"):
            read_nifti(path)


def test_written_files_are_equal_and_read_back(tmp_path):
    for name in ("a.nii.gz", "sub/b.nii.gz"):
        ct.write_nifti(tmp_path / name, scan(), AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "sub" / "b.nii.gz").read_bytes()
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii.gz").voxels, scan())
