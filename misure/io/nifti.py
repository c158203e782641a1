"""NIfTI files: reading to the very end in patient axes, and writing whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import nibabel
import numpy as np
from nibabel.imageglobals import LoggingOutputSuppressor

from misure.io.atomic import replacing
from misure.io.reading import ImageFileError, check_file, reading
from misure.io.volume import MOST_BYTES, Volume, compact, in_patient_axes

_Nifti: Any = nibabel.Nifti1Image  # most of its methods carry no types
_SIZES: dict[int, Any] = {348: nibabel.Nifti1Image, 540: nibabel.Nifti2Image}
"""Both versions of the format, by the number that their headers begin with: the header's size."""

MOST_VOXELS = 512 * 512 * 2048
"""Larger scans are refused before they are unpacked."""

_GZIP = b"\x1f\x8b"
_PAIRS = (b"ni1\0", b"ni2\0")
_ADVICE = "it is not a complete NIfTI file, copy or export it again"
_EXTENSIONS = 1 << 24  # bytes that may lie between header and voxels


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI file of either version to its very end, so that a damaged one is noticed.

    Args:
        path: A volume, or a single slice of two axes, compressed or not, whatever its ending.

    Raises:
        ImageFileError: If it is missing, truncated, damaged, too large or not one volume of numbers.
    """
    check_file(path, MOST_BYTES)
    with _read(path) as stream, np.errstate(over="ignore", invalid="ignore"):
        image = _unpacked(stream, path)
        voxels = _numbers(image)
        affine = image.affine
        if voxels is None:
            kind = image.get_data_dtype()
            kind = "colours" if kind.kind == "V" else kind
            raise ImageFileError(f"{path} holds {kind} of shape {image.shape}, not one 3-D volume of numbers")
        if affine is None or not np.isfinite(affine).all() or not abs(np.linalg.det(affine[:3, :3])) > 0:
            raise ImageFileError(f"{path} has no usable affine: its position in the patient is unknown")
        volume = in_patient_axes(voxels, affine, path)
        doubt = _doubt(image)
    if doubt:
        warnings.warn(f"{path}: {doubt}", stacklevel=3)
    return volume


def nifti_shape(path: Path) -> tuple[int, ...]:
    """Return how many voxels a file has along each axis, by its header alone.

    Raises:
        ImageFileError: If it is missing or its header is damaged.
    """
    check_file(path, MOST_BYTES)
    with _read(path) as stream:
        shape: tuple[int, ...] = _header(stream, path)[1].get_data_shape()
    return shape


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write a ``.nii.gz`` file, whole or not at all; equal data gives equal bytes.

    Raises:
        MisureError: If the disk does not take it.
    """
    image = _Nifti(voxels, affine, dtype=voxels.dtype)
    image.header.set_xyzt_units("mm")
    with replacing(path) as partial:
        partial.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


@contextlib.contextmanager
def _read(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, compressed or not, as its first two bytes say; nibabel's log keeps silent, the error says it all."""
    with reading(path, _ADVICE, ImageFileError), LoggingOutputSuppressor():
        with path.open("rb") as stream:
            compressed = stream.read(2) == _GZIP
        with cast("IO[bytes]", gzip.open(path) if compressed else path.open("rb")) as stream:
            yield stream


def _header(stream: IO[bytes], path: Path) -> tuple[bytes, Any]:
    """Read the header: its bytes, and what they say."""
    start = stream.read(4)
    size = next((n for n in _SIZES if start in {n.to_bytes(4, order) for order in ("little", "big")}), None)
    if size is None:
        raise ValueError("it does not begin with the size of a header")
    start += stream.read(size - 4)
    magic = start[344:] if size == 348 else start[4:8]
    if magic in _PAIRS:
        raise ImageFileError(f"{path} is one of two files (.hdr and .img): convert them to one .nii.gz")
    if not magic.strip(b"\0"):
        raise ImageFileError(f"{path} is an Analyze file, which does not say where left is: convert it to NIfTI")
    return start, _SIZES[size].header_class(start)


def _unpacked(stream: IO[bytes], path: Path) -> Any:
    """Unpack an image to its end, where gzip's checksum is verified, but not beyond what its header says."""
    start, header = _header(stream, path)
    n_voxels = math.prod(header.get_data_shape())
    n_bytes = n_voxels * header.get_data_dtype().itemsize
    if n_voxels > MOST_VOXELS or n_bytes > MOST_BYTES:
        raise ImageFileError(f"{path} has {n_voxels / 1e6:.0f} million voxels, {n_bytes / 1e6:.0f} MB: crop it first")
    most = n_bytes + _EXTENSIONS
    if not header["vox_offset"]:  # unsaid; nibabel would take the header for voxels
        header["vox_offset"] = len(start) + 4
    content = header.binaryblock + stream.read(most)
    if len(content) >= most:
        raise ImageFileError(f"{path} unpacks to more than its header says: it is damaged")
    return _SIZES[len(start)].from_bytes(content)


def _numbers(image: Any) -> np.ndarray | None:
    """The values of a volume or slice in a small type, X x Y x Z; None for anything else."""
    stored, shape = image.get_data_dtype(), image.shape
    if stored.kind not in "iuf" or len(shape) < 2 or any(n != 1 for n in shape[3:]) or not all(shape):
        return None
    scaled = stored.kind == "f" or image.dataobj.slope != 1 or image.dataobj.inter != 0
    voxels: np.ndarray = (
        image.get_fdata(dtype=np.float32, caching="unchanged") if scaled else np.asanyarray(image.dataobj)
    )
    return compact(voxels.reshape((*shape, 1)[:3]))


def _doubt(image: Any) -> str | None:
    """Say why it is not sure which of a file's axes goes where; None if it is sure."""
    header = image.header
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if not sform and not qform:
        return "it does not say how it lies in the patient; its first axis is taken as going to the left"
    if sform and qform:
        try:
            other = header.get_qform()
        except (ValueError, nibabel.spatialimages.HeaderDataError):  # damaged, and not taken anyway
            return None
        axes: Any = nibabel.orientations
        if np.isfinite(other).all() and (axes.io_orientation(other) != axes.io_orientation(image.affine)).any():
            first, second = ("".join(map(str, axes.aff2axcodes(form))) for form in (image.affine, other))
            return f"its sform says {first} and its qform {second}: the sform is taken"
    return None
