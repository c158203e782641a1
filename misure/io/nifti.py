"""NIfTI files: reading to the very end in patient axes, and writing whole or not at all."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import IO, Any, cast

import nibabel
import numpy as np

from misure.io.atomic import replacing
from misure.io.reading import ImageFileError, check_file, reading
from misure.io.volume import MOST_BYTES, Volume, compact, in_patient_axes

_Nifti: Any = nibabel.Nifti1Image  # most of its methods carry no types

MOST_VOXELS = 512 * 512 * 2048
"""Larger scans are refused before they are unpacked."""

_HEADER = 348
_EXTENSIONS = 1 << 24  # bytes that may lie between header and voxels


def read_nifti(path: Path) -> Volume:
    """Read a ``.nii`` or ``.nii.gz`` file to its very end, so that a damaged one is noticed.

    Args:
        path: A volume, or a single slice of two axes.

    Raises:
        ImageFileError: If it is missing, truncated, damaged, too large or not one volume of numbers.
    """
    check_file(path, MOST_BYTES)
    with reading(path, "it is not a complete NIfTI file, copy or export it again", ImageFileError):
        image = _Nifti.from_bytes(_content(path))
        voxels = _numbers(image)
    if voxels is None:
        raise ImageFileError(
            f"{path} holds {image.get_data_dtype()} of shape {image.shape}, not one 3-D volume of numbers"
        )
    affine = image.affine
    if affine is None or not np.isfinite(affine).all() or not np.linalg.det(affine[:3, :3]):
        raise ImageFileError(f"{path} has no usable affine: its position in the patient is unknown")
    return in_patient_axes(voxels, affine, path)


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write a ``.nii.gz`` file, whole or not at all; equal data gives equal bytes.

    Raises:
        MisureError: If the disk does not take it.
    """
    image = _Nifti(voxels, affine, dtype=voxels.dtype)
    image.header.set_xyzt_units("mm")
    with replacing(path) as partial:
        partial.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _content(path: Path) -> bytes:
    """Unpack a file to its end, where gzip's checksum is verified, but not beyond what its header says."""
    with cast("IO[bytes]", gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")) as stream:
        start = stream.read(_HEADER)
        header = _Nifti.header_class(start)
        n_voxels = math.prod(header.get_data_shape())
        if n_voxels > MOST_VOXELS:
            raise ImageFileError(f"{path} has {n_voxels / 1e6:.0f} million voxels: crop it first")
        most = n_voxels * header.get_data_dtype().itemsize + _EXTENSIONS
        content = start + stream.read(most)
    if len(content) >= most:
        raise ImageFileError(f"{path} unpacks to more than its header says: it is damaged")
    return content


def _numbers(image: Any) -> np.ndarray | None:
    """The values of a volume or slice in a small type, X x Y x Z; None for anything else."""
    stored, shape = image.get_data_dtype(), image.shape
    if stored.kind not in "iuf" or len(shape) < 2 or any(n != 1 for n in shape[3:]):
        return None
    scaled = stored.kind == "f" or image.dataobj.slope != 1 or image.dataobj.inter != 0
    voxels: np.ndarray = (
        image.get_fdata(dtype=np.float32, caching="unchanged") if scaled else np.asanyarray(image.dataobj)
    )
    return compact(voxels.reshape((*shape, 1)[:3]))
