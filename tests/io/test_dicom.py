"""DICOM series are the volumes that their slices say; series that are no volume are named."""

from __future__ import annotations

import numpy as np
import pytest
from ct_files import scan, write_nifti, write_series
from pydicom.uid import generate_uid

from misure.io.dicom import read_series
from misure.io.nifti import read_nifti
from misure.io.reading import ImageFileError
from misure.io.volume import grid_difference


def test_a_series_is_the_same_volume_as_its_nifti(tmp_path):
    nifti = read_nifti(write_nifti(tmp_path / "a.nii.gz", scan()))
    series = read_series(write_series(tmp_path / "series", scan()))
    np.testing.assert_array_equal(series.voxels, nifti.voxels)
    np.testing.assert_allclose(series.affine, nifti.affine, atol=1e-4)  # the NIfTI file holds float32
    np.testing.assert_array_equal(series.stored, series.affine)
    assert series.voxels.dtype == np.int16
    assert grid_difference(series, nifti) is None


def test_a_tilted_gantry_moves_slices_along_a_line(tmp_path):
    positions = [[-8.0, 292.5 + 0.5 * k, 50 + 3.0 * k] for k in range(5)]
    series = read_series(write_series(tmp_path / "series", scan(), ImagePositionPatient=positions))
    np.testing.assert_allclose(np.abs(series.affine[:3, 2]), [0, 0.5, 3], atol=1e-9)


def test_what_is_left_out_is_named(tmp_path):
    folder = write_series(tmp_path / "series", scan())
    (folder / "notes.txt").write_text("scanned on a Monday, a note longer than a DICOM preamble " * 4)
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM and an index of the files")
    (folder / "more").mkdir()
    with pytest.warns(UserWarning, match=r"left out, as they are no DICOM slices: DICOMDIR, more/, notes\.txt$"):
        np.testing.assert_array_equal(read_series(folder).voxels, scan())


@pytest.mark.parametrize("slopes", [0.5, [1, 0.5, 2, 0.5, 1]])
def test_each_slice_is_rescaled_by_its_own_numbers(tmp_path, slopes):
    folder = write_series(tmp_path / "series", scan(), RescaleSlope=slopes, RescaleIntercept=-3)
    np.testing.assert_array_equal(read_series(folder).voxels, (scan() + 1024.0) * slopes - 3)


SERIES_FAULTS = {
    "two series": ({"SeriesInstanceUID": [f"1.2.{k // 2}" for k in range(5)]}, r"1\.2\.0 \(2 files\), 1\.2\.1 \(2 f"),
    "many series": ({"SeriesInstanceUID": [generate_uid() for _ in range(5)]}, "holds 5 DICOM series"),
    "a gap": ({"heights": [0, 3, 6, 12, 15]}, r"1 slices are missing, first after 6.00 mm"),
    "twice": ({"heights": [0, 3, 3, 6, 9]}, r"two slices lie at the same place \(3.00 mm\)"),
    "all at once": ({"heights": [0, 0, 0, 0, 0]}, "two slices lie at the same place"),
    "unequal": ({"heights": [0, 3, 6, 10, 15]}, "3.00 to 5.00 mm apart, not equally spaced"),
    "a localizer": (
        {"ImageOrientationPatient": [[1, 0, 0, 0, 1, 0]] * 4 + [[1, 0, 0, 0, 0, -1]]},
        "slices differ in orientation",
    ),
    "spacings": ({"PixelSpacing": [[2, 2]] * 4 + [[3, 3]]}, "slices differ in orientation, size or spacing"),
    "no position": ({"ImagePositionPatient": [None, *[[0, 0, z] for z in range(4)]]}, "without position: remove"),
    "no place": ({"ImageOrientationPatient": None, "PixelSpacing": None}, "without orientation and pixel spacing"),
    "MR": ({"Modality": "MR"}, "Modality is MR, not CT"),
    "frames": ({"NumberOfFrames": 3}, "NumberOfFrames is 3"),
    "inverted": ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1"),
}


@pytest.mark.parametrize("fault", SERIES_FAULTS)
def test_series_that_are_no_volume(tmp_path, fault):
    fields, message = SERIES_FAULTS[fault]
    with pytest.raises(ImageFileError, match=message):
        read_series(write_series(tmp_path / "series", scan(), **fields))


@pytest.mark.parametrize("left", [10, 64 * 64 * 2 - 100])
def test_pixels_that_are_not_there_are_not_made_up(tmp_path, left):
    """GDCM fills a slice whose pixel data is too short with whatever its memory holds."""
    voxels = scan((64, 64, 2)) // 8
    folder = write_series(tmp_path / "series", voxels, PixelData=[bytes(64 * 64 * 2), bytes(left)])
    with pytest.raises(ImageFileError, match="cannot be decoded: it has fewer pixels than 64 x 64"):
        read_series(folder)


@pytest.mark.parametrize("left", [-30, 400, 140])
def test_a_truncated_slice_is_named(tmp_path, left):
    folder = write_series(tmp_path / "series", scan())
    last = max(folder.iterdir())
    last.write_bytes(last.read_bytes()[:left])
    with pytest.raises(ImageFileError, match=f"{last.name} cannot be read .*if it is no slice"):
        read_series(folder)


def test_one_slice_is_no_series(tmp_path):
    folder = write_series(tmp_path / "series", scan())
    for path in sorted(folder.iterdir())[1:]:
        path.unlink()
    with pytest.raises(ImageFileError, match="holds 1 DICOM slices"):
        read_series(folder)


def test_hidden_files_are_named_and_a_missing_modality_is_taken_as_ct(tmp_path):
    folder = write_series(tmp_path / "series", scan(), Modality=None)
    (folder / "._IM000.dcm").write_bytes(bytes.fromhex("00051607") + bytes(200))
    with pytest.warns(UserWarning, match=r"left out, as they are no DICOM slices: \._IM000\.dcm$"):
        assert read_series(folder).voxels.shape == scan().shape
