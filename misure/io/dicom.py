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

ROUNDING_TOLERANCE = 0.25
"""The same where positions are written with so few decimals that rounding moves them; also a bound of that."""

_ENDINGS = (".dcm", ".ima")
_PREAMBLE = 128
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")
"""Groups of tags that a file without preamble begins with."""

_UNSAID = "unknown"
_LITTER = ("dicomdir", "thumbs.db", "desktop.ini", "lockfile", "version")
_COMPANIONS = (
    ".bmp", ".db", ".dll", ".docx", ".exe", ".gif", ".gz", ".jpeg", ".jpg", ".nii", ".nrrd", ".pdf", ".png", ".tif",
    ".tiff", ".xlsx", ".zip",
)  # fmt: skip
"""Endings of files beside a series that are no text and no slices either."""

_TEXT = bytes({*b"\t\n\r\f", *range(0x20, 0x7F), *range(0x80, 0x100)})
_RIGHT_ANGLE = 0.05  # what one decimal leaves of a direction
_MODALITY, _SERIES, _BITS, _COLOURS = "0008|0060", "0020|000e", "0028|0100", "0028|0004"
_PLACE = {"position": ("0020|0032", 3), "orientation": ("0020|0037", 6), "pixel spacing": ("0028|0030", 2)}
_RESCALE = {"RescaleSlope": "0028|1053", "RescaleIntercept": "0028|1052"}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_PIXELS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
"""Tags of pixel data in files of either byte order; a preview before the image has one too."""

_UNCOMPRESSED = {b"", b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2"}


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
        rounding: Half of the last decimal of its three numbers.
        unsaid: Which numbers that lead to Hounsfield units are missing.
    """

    path: Path
    series: str
    modality: str
    shape: tuple[int, ...]
    place: np.ndarray
    position: np.ndarray
    rounding: np.ndarray
    unsaid: tuple[str, ...]


def is_dicom(path: Path) -> bool:
    """Say whether a file has the name or the beginning of a DICOM file, with or without its preamble."""
    if path.suffix.lower() in _ENDINGS:
        return True
    try:
        start = _start(path)
    except OSError:
        return False
    return start[_PREAMBLE : _PREAMBLE + 4] == b"DICM" or (start[:2] in _FIRST_GROUPS and start[3:4] == b"\0")


def read_series(folder: Path) -> Volume:
    """Read the one CT series of a folder, slices in the order of their position.

    Args:
        folder: Holds the slices as single files of any name. Texts, pictures, hidden files, folders and a DICOMDIR are
            left out with a warning that names them; any other file that is not understood may be a damaged slice.

    Returns:
        The volume in Hounsfield units and patient axes.

    Raises:
        ImageFileError: If there is no series or more than one, it is too large, slices are damaged, missing, doubled
            or not equally spaced, a file is no slice, or its Hounsfield units are not known.
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
    rounding = np.min([header.rounding for header in slices], axis=0)
    step = _step(positions[order], heights[order], rounding, folder)
    affine[:3, :3] = _LPS_TO_RAS @ np.stack([along * spacing[0], down * spacing[1], step], axis=1)
    affine[:3, 3] = _LPS_TO_RAS @ positions[order[0]]
    stack = compact(np.stack([_hounsfield(slices[number].path) for number in order]))
    if unsaid := sorted({name for header in slices for name in header.unsaid}):
        whole = len(unsaid) == len(_RESCALE) and all(len(header.unsaid) == len(_RESCALE) for header in slices)
        if not whole or stack.min() >= 0:  # numbers below 0 are Hounsfield units already
            raise ImageFileError(
                f"{folder}: {sum(bool(header.unsaid) for header in slices)} of {len(slices)} slices do not say "
                f"{' and '.join(unsaid)}, so their Hounsfield units are unknown: export it again"
            )
    volume = in_patient_axes(stack.transpose(2, 1, 0), affine, folder)
    return replace(volume, stored=volume.affine)


def _slices(folder: Path) -> list[SliceHeader]:
    """The headers of the folder's only series, checked to be single CT slices."""
    entries = sorted(folder.iterdir())
    belonging = [path for path in entries if _may_be_slice(path)]
    slices = [_header(path) for path in belonging]
    if len(slices) < 2:
        raise ImageFileError(f"{folder} holds {len(slices)} DICOM slices: a CT series of at least two is needed")
    series = Counter(header.series for header in slices)
    if len(series) > 1:
        counts = ", ".join(f"{uid} ({count} files)" for uid, count in sorted(series.items()))
        raise ImageFileError(f"{folder} holds {len(series)} DICOM series: put each into a folder of its own: {counts}")
    if len(belonging) < len(entries):
        others = ", ".join(path.name + "/" * path.is_dir() for path in entries if path not in belonging)
        warnings.warn(f"{folder}: left out, as they are no DICOM slices: {others}", stacklevel=4)
    return slices


def _may_be_slice(path: Path) -> bool:
    """Say whether an entry of the folder belongs to the series.

    Raises:
        ImageFileError: If it is neither that nor anything known.
    """
    name = path.name.lower()
    if path.is_dir() or name.startswith(".") or name in _LITTER:
        return False
    if not path.is_file():
        raise ImageFileError(f"{path} is a link to nothing, or no file: copy it again, or remove it")
    if is_dicom(path):
        return True
    start = _start(path)
    if name.endswith(_COMPANIONS) or (start and not start.translate(None, _TEXT)):
        return False
    what = "is neither DICOM nor text" if start else "is empty"
    raise ImageFileError(f"{path} {what}, as a damaged slice is: copy or export it again, or remove it if it is none")


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(1024)


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
    modality, series = (_said(reader, tag) or _UNSAID for tag in (_MODALITY, _SERIES))
    for name, value, needed in (("Modality", modality, "CT"), ("NumberOfFrames", reader.GetSize()[2], 1)):
        if value not in {needed, _UNSAID}:
            raise ImageFileError(f"{path}: {name} is {value}, not {needed}: convert it to NIfTI, as dcm2niix does")
    said = {name: _numbers(_said(reader, tag), count) for name, (tag, count) in _PLACE.items()}
    if missing := [name for name, numbers in said.items() if numbers is None]:
        raise ImageFileError(f"{path} is a DICOM image without {' and '.join(missing)}: remove it if it is no slice")
    directions = np.array(reader.GetDirection()).reshape(3, 3).T[:2]
    spacing = np.array(reader.GetSpacing()[:2])
    written = cast("np.ndarray", said["orientation"]).reshape(2, 3)
    lengths = np.linalg.norm(written, axis=1, keepdims=True)  # GDCM puts its own where these are no right angle
    if lengths.min() == 0 or np.abs(written / lengths - directions).max() > _RIGHT_ANGLE:
        raise ImageFileError(f"{path}: its orientation {written.ravel().tolist()} is no right angle: export it again")
    if spacing.min() <= 0 or np.abs(spacing - cast("np.ndarray", said["pixel spacing"])[::-1]).max() > 1e-3:
        raise ImageFileError(f"{path}: its pixel spacing is not above 0: export it again")
    rescale = {name: _numbers(_said(reader, tag), 1) for name, tag in _RESCALE.items()}
    unsaid = tuple(
        name for name, number in rescale.items() if number is None or (name == "RescaleSlope" and not number)
    )
    place, position = np.concatenate([directions.ravel(), spacing]), np.array(reader.GetOrigin())
    rounding = _rounding(_said(reader, _PLACE["position"][0]))
    return SliceHeader(path, series, modality, reader.GetSize(), place, position, rounding, unsaid)


def _said(reader: Any, tag: str) -> str:
    """What a header says at a tag; empty where it says nothing."""
    return str(reader.GetMetaData(tag)).strip(" \0") if reader.HasMetaDataKey(tag) else ""


def _numbers(text: str, count: int) -> np.ndarray | None:
    """The numbers of a tag, or None where they are not so many finite ones."""
    try:
        numbers = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def _rounding(position: str) -> np.ndarray:
    """How far rounding may have moved each number of a position: half of its last decimal."""
    parts = [part.strip().lower().partition("e") for part in position.split("\\")]
    return np.array([0.5 * 10.0 ** (int(power or 0) - len(digits.partition(".")[2])) for digits, _, power in parts])


def _step(positions: np.ndarray, heights: np.ndarray, rounding: np.ndarray, folder: Path) -> np.ndarray:
    """The vector from one slice to the next, in millimetres.

    Args:
        positions: N x 3, in the order of their heights.
        heights: N, along the normal of the slices.
        rounding: How far decimals that were left out may have moved each of the three numbers.
        folder: For errors.

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
    jitter = min(ROUNDING_TOLERANCE, max(SPACING_TOLERANCE, 2 * float(np.linalg.norm(rounding)) / usual))
    if np.abs(multiples - multiples.round()).max() <= jitter and multiples.max() > 1.5:
        missing = int(multiples.round().sum()) - len(gaps)
        raise ImageFileError(
            f"{folder}: {missing} slices are missing, first after {heights[multiples.argmax()]:.2f} mm: export it again"
        )
    step: np.ndarray = (positions[-1] - positions[0]) / len(gaps)
    numbers = np.arange(len(positions))[:, None]
    if np.linalg.norm(positions - positions[0] - numbers * step, axis=1).max() <= SPACING_TOLERANCE * usual:
        return step
    centred = numbers - numbers.mean()  # rounding moves the ends as well: the line through all of them
    fitted: np.ndarray = (centred * positions).sum(0) / (centred**2).sum()
    apart = np.abs(positions - positions.mean(0) - centred * fitted)
    if (apart <= 1.2 * rounding + 1e-6).all() and np.linalg.norm(apart, axis=1).max() <= ROUNDING_TOLERANCE * usual:
        return fitted
    raise ImageFileError(
        f"{folder}: slices are {gaps.min():.2f} to {gaps.max():.2f} mm apart, not equally spaced: resample it first"
    )


def _hounsfield(path: Path) -> np.ndarray:
    """One slice, rows x columns, read only now so that a series is in memory once."""
    import SimpleITK

    reader = _reader(path)
    columns, rows, _ = reader.GetSize()
    if (colours := _said(reader, _COLOURS)) not in ("", "MONOCHROME2"):  # GDCM inverts MONOCHROME1
        raise ImageFileError(f"{path} is stored as {colours}, not MONOCHROME2: remove it, or convert it with dcm2niix")
    n_bytes = rows * columns * int(_said(reader, _BITS) or 16) // 8
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
