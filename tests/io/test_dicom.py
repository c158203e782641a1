"""DICOM series are the volumes that their slices say; series that are no volume are named."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from ct_files import scan, write_nifti, write_series
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)

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
    "inverted": ({"PhotometricInterpretation": "MONOCHROME1"}, "stored as MONOCHROME1"),
    "a palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "stored as PALETTE COLOR|cannot be read"),
    "damaged": ({"PhotometricInterpretation": "M"}, "stored as M, not"),
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


UNSAID = {
    "ImageOrientationPatient": "without orientation",
    "ImagePositionPatient": "without position",
    "PixelSpacing": "without pixel spacing",
    "RescaleSlope": "do not say RescaleSlope, so their Hounsfield units are unknown",
    "RescaleIntercept": "do not say RescaleIntercept, so their Hounsfield units are unknown",
    "Rows": "cannot be read",
    "SeriesInstanceUID": "holds 2 DICOM series",
    "Modality": None,
    "InstanceNumber": None,
}


@pytest.mark.parametrize("one", [False, True], ids=["all", "one"])
@pytest.mark.parametrize("value", ["missing", "empty"])
@pytest.mark.parametrize("tag", UNSAID)
def test_what_a_header_leaves_unsaid_is_not_made_up(tmp_path, tag, value, one):
    """GDCM takes a spacing of 1 mm, axial slices or an intercept of 0 where a tag is empty."""
    folder, message = write_series(tmp_path / "series", scan(), InstanceNumber=7), UNSAID[tag]
    for path in sorted(folder.iterdir())[: 1 if one else None]:
        data = pydicom.dcmread(path)
        delattr(data, tag)
        if value == "empty":
            setattr(data, tag, None)
        data.save_as(path)
    if message is None or (tag == "SeriesInstanceUID" and not one):
        np.testing.assert_array_equal(read_series(folder).voxels, scan())
        return
    with pytest.raises(ImageFileError, match=message):
        read_series(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ImageOrientationPatient": [[1, 0, 0, 1, 0, 0]] * 5}, "is no right angle"),
        ({"ImageOrientationPatient": [[1, 0, 0, 0.3, 0.95, 0]] * 5}, "is no right angle"),
        ({"ImageOrientationPatient": [[0] * 6] * 5}, "is no right angle"),
        ({"PixelSpacing": [[0, 0]] * 5}, "pixel spacing is not above 0"),
        ({"PixelSpacing": [[-1, 1]] * 5}, "pixel spacing is not above 0"),
        ({"RescaleSlope": 0}, "do not say RescaleSlope"),
        (
            {"RescaleSlope": None, "RescaleIntercept": None},
            "5 of 5 slices do not say RescaleIntercept and RescaleSlope",
        ),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path, fields, message):
    with pytest.raises(ImageFileError, match=message):
        read_series(write_series(tmp_path / "series", scan(), **fields))


def test_numbers_below_zero_without_a_scale_are_hounsfield_units(tmp_path):
    unsaid = {"RescaleSlope": None, "RescaleIntercept": None, "PixelRepresentation": 1}
    folder = write_series(tmp_path / "series", scan(), intercept=0, **unsaid)
    np.testing.assert_array_equal(read_series(folder).voxels, scan())


def without_preamble(path, data):
    path.write_bytes(path.read_bytes()[132:])


def without_meta(path, data):
    content = path.read_bytes()
    path.write_bytes(content[content.index(b"\x08\x00\x16\x00") :])


def implicit_without_meta(path, data):
    data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    pydicom.dcmwrite(path, data, implicit_vr=True, little_endian=True)
    without_meta(path, data)


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("change", [without_preamble, without_meta, implicit_without_meta])
def test_a_slice_without_preamble_is_a_slice(tmp_path, change, n):
    folder = write_series(tmp_path / "series", scan())
    for path in sorted(folder.iterdir())[:n]:
        change(path, pydicom.dcmread(path))
    np.testing.assert_array_equal(read_series(folder).voxels, scan())


def big_endian(path, data):
    data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    pydicom.dcmwrite(path, data, implicit_vr=False, little_endian=False)


def deflated(path, data):
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(path)


def run_lengths(path, data):
    data.compress(RLELossless)
    data.save_as(path)


def jpeg_2000(path, data, kept=None):
    stream = io.BytesIO()
    Image.fromarray(data.pixel_array).save(stream, "JPEG2000", irreversible=False)
    codes = stream.getvalue()
    data.PixelData = encapsulate([codes[codes.index(b"\xff\x4f\xff\x51") :][:kept]])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.save_as(path)


@pytest.mark.parametrize("stored", [big_endian, deflated, run_lengths, jpeg_2000])
def test_pixels_in_any_transfer_syntax(tmp_path, stored):
    voxels = scan((16, 16, 3))
    folder = write_series(tmp_path / "series", voxels)
    for path in folder.iterdir():
        stored(path, pydicom.dcmread(path))
    np.testing.assert_array_equal(read_series(folder).voxels, voxels)


def test_a_compressed_slice_that_was_cut_is_named(tmp_path):
    folder = write_series(tmp_path / "series", scan((16, 16, 3)))
    for path in sorted(folder.iterdir()):
        jpeg_2000(path, pydicom.dcmread(path), 200 if path == max(folder.iterdir()) else None)
    with pytest.raises(ImageFileError, match=f"{max(folder.iterdir()).name} cannot be read"):
        read_series(folder)


@pytest.mark.parametrize(
    ("content", "what"), [(bytes(3000), "neither DICOM nor text"), (b"", "empty"), (b"\x89\x01" * 99, "neither DICOM")]
)
def test_a_damaged_end_slice_is_not_taken_for_something_else(tmp_path, content, what):
    """Without it the others are still equally spaced."""
    folder = write_series(tmp_path / "series", scan())
    end = max(folder.iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    end.write_bytes(content)
    with pytest.raises(ImageFileError, match=rf"{end.name} is {what}.* as a damaged slice is"):
        read_series(folder)


def test_a_link_to_nothing_is_not_left_out(tmp_path):
    folder = write_series(tmp_path / "series", scan())
    (folder / "more.dcm").symlink_to("nowhere")
    with pytest.raises(ImageFileError, match=r"more\.dcm is a link to nothing"):
        read_series(folder)


@pytest.mark.parametrize(("step", "decimals"), [(0.625, 1), (1.25, 1), (0.7, 1), (2.5, 0), (0.3333, 2)])
def test_positions_rounded_in_the_header_are_equally_spaced(tmp_path, step, decimals):
    voxels = scan((4, 4, 40))
    heights = [round(12.3 + step * k, decimals) for k in range(40)]
    series = read_series(write_series(tmp_path / "series", voxels, heights=[f"{z:.{decimals}f}" for z in heights]))
    np.testing.assert_array_equal(series.voxels, voxels)
    assert series.spacing[2] == pytest.approx(step, rel=0.01)


@pytest.mark.parametrize(
    ("heights", "message"),
    [
        (["0.0", "0.6", "1.3", "2.5", "3.1"], "1 slices are missing, first after 1.30 mm"),
        (["0", "5", "10", "16", "20"], "not equally spaced"),  # no line lies within half a millimetre of all
        (["0", "1", "1", "2", "3"], "two slices lie at the same place"),
    ],
)
def test_rounding_does_not_hide_what_is_missing(tmp_path, heights, message):
    with pytest.raises(ImageFileError, match=message):
        read_series(write_series(tmp_path / "series", scan(), heights=heights))


@pytest.mark.parametrize("decimals", [1, 2, 4])
def test_directions_rounded_in_the_header(tmp_path, decimals):
    along, across = np.cos(0.3), np.sin(0.3)
    rounded = [round(value, decimals) for value in (along, across, 0, -across, along, 0)]
    series = read_series(write_series(tmp_path / "series", scan(), ImageOrientationPatient=[rounded] * 5))
    np.testing.assert_array_equal(series.voxels, scan())
    np.testing.assert_allclose(series.affine[0, 0], 2 * along, atol=0.01)


def test_frames_in_one_file_are_named(tmp_path):
    folder = write_series(tmp_path / "series", scan((7, 6, 1)), NumberOfFrames=3)
    with pytest.raises(ImageFileError, match="NumberOfFrames is 3"):
        read_series(folder)


def test_a_colour_image_is_named(tmp_path):
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "BitsAllocated": 8}
    pixels = [bytes(7 * 6 * 3)] * 2
    folder = write_series(tmp_path / "series", scan((7, 6, 2)), BitsStored=8, HighBit=7, PixelData=pixels, **colour)
    with pytest.raises(ImageFileError, match="stored as RGB, not MONOCHROME2"):
        read_series(folder)
