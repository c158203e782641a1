"""A DICOM series of axial CT slices as one volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from misure.io.nifti import Volume, VolumeError, compact, in_patient_axes

SPACING_TOLERANCE = 0.02
"""How far a slice may lie from its place in a row of equally spaced slices, in slice distances."""

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_UNREADABLE = (OSError, EOFError, ValueError, AttributeError, KeyError, RuntimeError)
"""What pydicom and its decoders raise for files that are cut short, lack a field or cannot be decoded."""


def read_series(folder: Path) -> Volume:
    """Read the one CT series of a folder, slices in the order of their position.

    Args:
        folder: Holds the slices as single files of any name; files that are not DICOM images are passed over.

    Returns:
        The volume in Hounsfield units and patient axes.

    Raises:
        VolumeError: If there is no series or more than one, or slices are damaged, missing, doubled or
            not equally spaced.
    """
    slices = _slices(folder)
    orientation = np.array([s.ImageOrientationPatient for s in slices], dtype=float)
    positions = np.array([s.ImagePositionPatient for s in slices], dtype=float)
    if np.abs(orientation - orientation[0]).max() > 1e-3 or len({(s.Rows, s.Columns) for s in slices}) > 1:
        raise VolumeError(f"{folder}: slices differ in orientation or size, such as a localizer among them: remove it")
    along, down = orientation[0, :3], orientation[0, 3:]
    heights = positions @ np.cross(along, down)
    order = np.argsort(heights)
    step = _step(positions[order], heights[order], folder)
    spacing = [float(size) for size in slices[0].PixelSpacing]
    lps = np.stack([along * spacing[1], down * spacing[0], step], axis=1)
    affine = np.eye(4)
    affine[:3, :3] = _LPS_TO_RAS @ lps
    affine[:3, 3] = _LPS_TO_RAS @ positions[order[0]]
    stack = compact(np.stack([_hounsfield(slices[i], folder) for i in order]))
    return in_patient_axes(stack.transpose(2, 1, 0), affine, folder)


def _slices(folder: Path) -> list[pydicom.FileDataset]:
    """The headers of the folder's only series, checked to be single CT slices."""
    slices = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            if "ImagePositionPatient" in header:
                slices.append(header)
        except InvalidDicomError:
            continue
        except _UNREADABLE as error:
            raise VolumeError(f"{path} cannot be read as DICOM ({error}): copy or export it again") from error
    if len(slices) < 2:
        raise VolumeError(f"{folder} holds {len(slices)} DICOM slices: a CT series of at least two is needed")
    series = sorted({str(s.get("SeriesInstanceUID")) for s in slices})
    if len(series) > 1:
        raise VolumeError(f"{folder} holds {len(series)} DICOM series: put each into a folder of its own")
    for name, known in (("Modality", "CT"), ("NumberOfFrames", 1)):
        other = {s.get(name, known) for s in slices} - {known}
        if other:
            raise VolumeError(
                f"{folder}: {name} is {other.pop()}, not {known}: convert it to NIfTI, for example with dcm2niix"
            )
    return slices


def _step(positions: np.ndarray, heights: np.ndarray, folder: Path) -> np.ndarray:
    """The vector from one slice to the next, in millimetres.

    Raises:
        VolumeError: If the slices are not equally spaced along a line.
    """
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    if gaps.min() <= SPACING_TOLERANCE * usual or usual == 0:
        raise VolumeError(f"{folder}: two slices lie at the same place ({heights[gaps.argmin()]:.2f} mm): remove one")
    multiples = gaps / usual
    if np.abs(multiples - multiples.round()).max() <= SPACING_TOLERANCE and multiples.max() > 1.5:
        missing = int(multiples.round().sum()) - len(gaps)
        raise VolumeError(
            f"{folder}: {missing} slices are missing, first after {heights[multiples.argmax()]:.2f} mm: export it again"
        )
    step: np.ndarray = (positions[-1] - positions[0]) / len(gaps)
    expected = positions[0] + np.arange(len(positions))[:, None] * step
    if np.linalg.norm(positions - expected, axis=1).max() > SPACING_TOLERANCE * usual:
        raise VolumeError(
            f"{folder}: slices are {gaps.min():.2f} to {gaps.max():.2f} mm apart, not equally spaced: resample it first"
        )
    return step


def _hounsfield(header: pydicom.FileDataset, folder: Path) -> np.ndarray:
    """One slice, rows x columns, read only now so that a series is in memory once."""
    try:
        data = pydicom.dcmread(str(header.filename))
        slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
        values = data.pixel_array
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise VolumeError(f"{folder / Path(str(header.filename)).name} cannot be decoded ({reason})") from error
    if slope.is_integer() and intercept.is_integer():
        return compact(values.astype(np.int32) * int(slope) + int(intercept))
    return (values * slope + intercept).astype(np.float32)
