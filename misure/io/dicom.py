"""A DICOM series of axial CT slices as one volume, read with GDCM (SimpleITK)."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from misure.io.reading import ImageFileError, check_size, reading
from misure.io.volume import MOST_BYTES, Volume, compact, in_patient_axes

SPACING_TOLERANCE = 0.02
"""How far a slice may lie from its place in a row of equally spaced slices, in slice distances."""

_ENDINGS = (".dcm", ".ima")
_PREAMBLE = 128
_UNSAID = "unknown"
_INDEX = "DICOMDIR"
_MODALITY, _SERIES, _BITS, _COLOURS = "0008|0060", "0020|000e", "0028|0100", "0028|0004"
_PLACE = {"0020|0032": "position", "0020|0037": "orientation", "0028|0030": "pixel spacing"}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_PIXELS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
"""Tags of pixel data in files of either byte order; a preview before the image has one too."""

_UNCOMPRESSED = {b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2"}


@dataclass(frozen=True)
class SliceHeader:
    """What a file says about its slice.

    Attributes:
        path: The file.
        series: UID of the series.
        modality: Such as CT.
        shape: Columns, rows and frames.
        place: Direction of columns and of rows, and the two distances of pixels in millimetres (8).
        position: Of the first pixel in millimetres (LPS).
    """

    path: Path
    series: str
    modality: str
    shape: tuple[int, ...]
    place: np.ndarray
    position: np.ndarray


def is_dicom(path: Path) -> bool:
    """Say whether a file has the name or the beginning of a DICOM file."""
    if path.suffix.lower() in _ENDINGS:
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
    except OSError:
        return False


def read_series(folder: Path) -> Volume:
    """Read the one CT series of a folder, slices in the order of their position.

    Args:
        folder: Holds the slices as single files of any name. Hidden files, those with neither DICOM's name nor its
            beginning, and a DICOMDIR are left out with a warning that names them.

    Returns:
        The volume in Hounsfield units and patient axes.

    Raises:
        ImageFileError: If there is no series or more than one, it is too large, slices are damaged, missing, doubled
            or not equally spaced, or a DICOM file is no slice.
    """
    check_size(folder, sum(file.stat().st_size for file in folder.iterdir() if file.is_file()), MOST_BYTES)
    slices = _slices(folder)
    first, positions = slices[0], np.array([header.position for header in slices])
    if any(np.abs(header.place - first.place).max() > 1e-3 or header.shape != first.shape for header in slices):
        raise ImageFileError(
            f"{folder}: slices differ in orientation, size or spacing, such as a localizer among them: remove it"
        )
    along, down, spacing = np.split(first.place, [3, 6])
    heights = positions @ np.cross(along, down)
    order = np.argsort(heights)
    affine = np.eye(4)
    step = _step(positions[order], heights[order], folder)
    affine[:3, :3] = _LPS_TO_RAS @ np.stack([along * spacing[0], down * spacing[1], step], axis=1)
    affine[:3, 3] = _LPS_TO_RAS @ positions[order[0]]
    stack = compact(np.stack([_hounsfield(slices[number].path) for number in order]))
    volume = in_patient_axes(stack.transpose(2, 1, 0), affine, folder)
    return replace(volume, stored=volume.affine)


def _slices(folder: Path) -> list[SliceHeader]:
    """The headers of the folder's only series, checked to be single CT slices."""
    slices, others = list[SliceHeader](), list[str]()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        if path.name.startswith(".") or path.name.upper() == _INDEX or not is_dicom(path):
            others.append(path.name)
        else:
            slices.append(_header(path))
    if len(slices) < 2:
        raise ImageFileError(f"{folder} holds {len(slices)} DICOM slices: a CT series of at least two is needed")
    series = Counter(header.series for header in slices)
    if len(series) > 1:
        counts = ", ".join(f"{uid} ({count} files)" for uid, count in sorted(series.items()))
        raise ImageFileError(f"{folder} holds {len(series)} DICOM series: put each into a folder of its own: {counts}")
    for header in slices:
        for name, value, needed in (("Modality", header.modality, "CT"), ("NumberOfFrames", header.shape[2], 1)):
            if value not in {needed, _UNSAID}:
                raise ImageFileError(
                    f"{header.path}: {name} is {value}, not {needed}: convert it to NIfTI, for example with dcm2niix"
                )
    if others:
        warnings.warn(f"{folder}: left out, as they are no DICOM slices: {', '.join(others)}", stacklevel=4)
    return slices


def _reader(path: Path) -> Any:
    """A reader that has read a file's header.

    Raises:
        ImageFileError: If it cannot be read.
    """
    import SimpleITK

    reader = cast("Any", SimpleITK).ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    with reading(path, "copy or export it again, or remove it if it is no slice", ImageFileError):
        reader.ReadImageInformation()
    return reader


def _header(path: Path) -> SliceHeader:
    reader = _reader(path)
    missing = [name for tag, name in _PLACE.items() if not reader.HasMetaDataKey(tag)]
    if missing and reader.GetSize()[2] == 1:
        raise ImageFileError(f"{path} is a DICOM image without {' and '.join(missing)}: remove it if it is no slice")
    modality, series = (
        reader.GetMetaData(tag).strip() if reader.HasMetaDataKey(tag) else _UNSAID for tag in (_MODALITY, _SERIES)
    )
    directions = np.array(reader.GetDirection()).reshape(3, 3).T[:2]
    place = np.concatenate([directions.ravel(), reader.GetSpacing()[:2]])
    return SliceHeader(path, series, modality, reader.GetSize(), place, np.array(reader.GetOrigin()))


def _step(positions: np.ndarray, heights: np.ndarray, folder: Path) -> np.ndarray:
    """The vector from one slice to the next, in millimetres.

    Raises:
        ImageFileError: If the slices are not equally spaced along a line.
    """
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    if gaps.min() <= SPACING_TOLERANCE * usual or usual == 0:
        raise ImageFileError(
            f"{folder}: two slices lie at the same place ({heights[gaps.argmin()]:.2f} mm): remove one"
        )
    multiples = gaps / usual
    if np.abs(multiples - multiples.round()).max() <= SPACING_TOLERANCE and multiples.max() > 1.5:
        missing = int(multiples.round().sum()) - len(gaps)
        raise ImageFileError(
            f"{folder}: {missing} slices are missing, first after {heights[multiples.argmax()]:.2f} mm: export it again"
        )
    step: np.ndarray = (positions[-1] - positions[0]) / len(gaps)
    expected = positions[0] + np.arange(len(positions))[:, None] * step
    if np.linalg.norm(positions - expected, axis=1).max() > SPACING_TOLERANCE * usual:
        raise ImageFileError(
            f"{folder}: slices are {gaps.min():.2f} to {gaps.max():.2f} mm apart, not equally spaced: resample it first"
        )
    return step


def _hounsfield(path: Path) -> np.ndarray:
    """One slice, rows x columns, read only now so that a series is in memory once."""
    import SimpleITK

    reader = _reader(path)
    columns, rows, _ = reader.GetSize()
    if reader.HasMetaDataKey(_COLOURS) and reader.GetMetaData(_COLOURS).strip() == "MONOCHROME1":  # GDCM inverts it
        raise ImageFileError(f"{path} is stored inverted (MONOCHROME1): convert it to NIfTI, for example with dcm2niix")
    n_bytes = rows * columns * int(reader.GetMetaData(_BITS)) // 8
    if _transfer_syntax(path) in _UNCOMPRESSED and not _has_pixels(path, n_bytes):  # GDCM would make up the rest
        raise ImageFileError(f"{path} cannot be decoded: it has fewer pixels than {rows} x {columns}; export it again")
    with reading(path, "export it again", ImageFileError):
        image = reader.Execute()
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise ImageFileError(f"{path} is a colour image, not a CT slice: remove it")
    return compact(SimpleITK.GetArrayFromImage(image)[0])


def _has_pixels(path: Path, n_bytes: int) -> bool:
    """Say whether an uncompressed file has an element of so many bytes of pixels, and all of them."""
    content = path.read_bytes()
    for tag in _PIXELS:
        start = content.find(tag)
        while start >= 0:
            order: Literal["little", "big"] = "little" if tag == _PIXELS[0] else "big"
            length_at = start + (8 if content[start + 4 : start + 6] in {b"OW", b"OB"} else 4)
            length = int.from_bytes(content[length_at : length_at + 4], order)
            if n_bytes <= length <= len(content) - length_at - 4:
                return True
            start = content.find(tag, start + 1)
    return False


def _transfer_syntax(path: Path) -> bytes:
    """The UID that says how pixels are stored, from the part of the header whose form is the same in all files."""
    with path.open("rb") as stream:
        start = stream.read(4096)
    _, tag, rest = start.partition(b"\x02\x00\x10\x00UI")
    return rest[2 : 2 + int.from_bytes(rest[:2], "little")].rstrip(b"\0") if tag else b""
