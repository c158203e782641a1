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
from misure.io.nifti import nifti_shape, read_nifti
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


def stored(version=1, order="<", voxels=None, **fields) -> bytes:
    """A single file in patient axes; fields are set in its header."""
    voxels = scan() if voxels is None else voxels
    header = nib.Nifti1Image(voxels, AFFINE, dtype=voxels.dtype).header.as_byteswapped(order)
    if version == 2:
        header = nib.Nifti2Header.from_header(header).as_byteswapped(order)
    header["vox_offset"] = len(header.binaryblock) + 4
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + bytes(4) + voxels.astype(voxels.dtype.newbyteorder(order)).tobytes(order="F")


@pytest.mark.parametrize("name", ["a.nii", "a.NII", "a.nii.gz", "a.NII.GZ", "a.Nii.Gz"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_are_read_by_their_content_whatever_the_ending(tmp_path, name, compressed, version, order):
    content = stored(version, order)
    (tmp_path / name).write_bytes(gzip.compress(content) if compressed else content)
    volume = read_nifti(tmp_path / name)
    np.testing.assert_array_equal(volume.voxels, scan())
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-4)  # the first version holds float32
    assert nifti_shape(tmp_path / name) == scan().shape


COLOURS = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (stored(magic=b"ni1"), r"one of two files \(\.hdr and \.img\)"),
        (stored(2, magic=b"ni2"), r"one of two files \(\.hdr and \.img\)"),
        (stored(magic=b""), "an Analyze file, which does not say where left is"),
        (nib.Nifti1Image(COLOURS, AFFINE).to_bytes(), r"holds colours of shape \(2, 2, 2\)"),
        (stored(voxels=scan().astype(np.complex64)), "holds complex64"),
        (stored(voxels=np.zeros((2, 2, 2, 9), np.uint8)), r"shape \(2, 2, 2, 9\), not one 3-D volume"),
        (stored(dim=[3, -7, 6, 5, 1, 1, 1, 1]), "cannot be read|not one 3-D volume"),
        (stored(dim=[3, 0, 6, 5, 1, 1, 1, 1]), "not one 3-D volume"),
        (stored(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]), "27000000 million voxels"),
        (stored(2, dim=[3, 2**40, 6, 5, 1, 1, 1, 1]), "million voxels"),
        (stored(dim=[3, 2000, 2000, 100, 1, 1, 1, 1], datatype=64, bitpix=64), "400 million voxels, 3200 MB"),
        (stored(srow_x=[np.nan, 0, 0, 0]), "no usable affine"),
        (stored(scl_slope=1, scl_inter=np.nan), "cannot be read"),
        (stored()[:-1], "cannot be read"),
        (b"\0\0\1\xc0 of another kind", "cannot be read"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, content, reason):
    for name, written in (("a.nii", content), ("a.nii.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(written)
        with pytest.raises(ImageFileError, match=rf"{name} .*{reason}"):
            read_nifti(tmp_path / name)


@pytest.mark.parametrize("slope", [(0, 0), (np.nan, 0), (np.nan, np.nan), (1, 0)])
def test_no_slope_is_no_scale(tmp_path, slope):
    (tmp_path / "a.nii").write_bytes(stored(scl_slope=slope[0], scl_inter=slope[1]))
    volume = read_nifti(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.voxels, scan())
    assert volume.voxels.dtype == np.int16


def test_an_offset_that_is_not_said_is_the_end_of_the_header(tmp_path):
    """nibabel would take the header's own bytes for voxels."""
    for version in (1, 2):
        (tmp_path / "a.nii").write_bytes(stored(version, vox_offset=0) + b"and more")
        np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii").voxels, scan())


def test_doubts_about_left_and_right_are_told(tmp_path):
    image = nib.Nifti1Image(scan(), AFFINE)
    image.set_qform(np.diag([-1, 1, 1, 1]) @ AFFINE, 1)
    image.to_filename(tmp_path / "a.nii")
    with pytest.warns(UserWarning, match=r"a\.nii: its sform says RAS and its qform LAS: the sform is taken"):
        np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii").voxels, scan())
    (tmp_path / "b.nii").write_bytes(stored(sform_code=0, qform_code=0))
    with pytest.warns(UserWarning, match="does not say how it lies in the patient"):
        np.testing.assert_array_equal(read_nifti(tmp_path / "b.nii").voxels, scan()[::-1])


@pytest.mark.filterwarnings("ignore:.*(lies in the patient|its sform says)")
def test_no_flipped_byte_of_a_header_ends_in_another_error(tmp_path):
    content, path = stored(qform_code=1, quatern_b=0.5), tmp_path / "a.nii"
    outcomes = {"read": 0, "refused": 0}
    for place in range(352):
        for value in {0, 255, content[place] ^ 1, content[place] ^ 128}:
            path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            try:
                voxels = read_nifti(path).voxels
            except ImageFileError:
                outcomes["refused"] += 1
            else:
                outcomes["read"] += 1
                assert voxels.ndim == 3
    assert min(outcomes.values()) > 50
