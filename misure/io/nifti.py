"""CT volumes: reading, writing and comparing NIfTI files, always in patient axes (RAS)."""

from __future__ import annotations

import gzip
import itertools
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel.orientations
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from misure.errors import MisureError
from misure.io.atomic import replacing

# Most of nibabel's methods carry no types.
_Nifti: Any = nibabel.Nifti1Image
_axes: Any = nibabel.orientations

GRID_TOLERANCE = 0.1
"""How far apart two grids may lie and still count as the same, in voxels."""


class VolumeError(MisureError):
    """One volume cannot be used; the others of a data set can."""


@dataclass(frozen=True)
class Volume:
    """A scan or its labels in patient axes.

    Attributes:
        voxels: X x Y x Z, indices growing to the patient's right, front and head. Integers where the
            file holds integers, otherwise float32; Hounsfield units for a scan.
        affine: 4 x 4, from voxel indices to millimetres (RAS).
        path: The file or folder it was read from.
    """

    voxels: np.ndarray
    affine: np.ndarray
    path: Path

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a voxel along each axis, in millimetres."""
        return tuple(float(size) for size in np.linalg.norm(self.affine[:3, :3], axis=0))


def read_nifti(path: Path) -> Volume:
    """Read a ``.nii`` or ``.nii.gz`` file to its very end, so that a damaged one is noticed.

    Args:
        path: The file.

    Raises:
        VolumeError: If it is missing, truncated, damaged or not one 3-D volume of numbers.
    """
    try:
        image = _Nifti.from_bytes(_content(path))
        voxels = _numbers(image)
    except (ImageFileError, HeaderDataError, WrapStructError, OSError, ValueError) as error:
        raise VolumeError(f"{path} is not a complete NIfTI file ({' '.join(str(error).split())})") from error
    if voxels is None:
        raise VolumeError(
            f"{path} holds {image.get_data_dtype()} of shape {image.shape}, not one 3-D volume of numbers"
        )
    affine = image.affine
    if affine is None or not np.isfinite(affine).all() or not np.linalg.det(affine[:3, :3]):
        raise VolumeError(f"{path} has no usable affine: its position in the patient is unknown")
    return in_patient_axes(voxels, affine, path)


def in_patient_axes(voxels: np.ndarray, affine: np.ndarray, path: Path) -> Volume:
    """Flip and permute axes so that they grow to the patient's right, front and head.

    Args:
        voxels: Three axes in any order and direction.
        affine: 4 x 4, from its indices to millimetres (RAS).
        path: Where it was read.
    """
    orientation = _axes.io_orientation(affine)
    return Volume(
        _axes.apply_orientation(voxels, orientation), affine @ _axes.inv_ornt_aff(orientation, voxels.shape), path
    )


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write a ``.nii.gz`` file, whole or not at all; equal data gives equal bytes.

    Raises:
        MisureError: If the disk does not take it.
    """
    image = _Nifti(voxels, affine, dtype=voxels.dtype)
    image.header.set_xyzt_units("mm")
    with replacing(path) as partial:
        partial.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def grid_difference(image: Volume, label: Volume) -> str | None:
    """Say how two volumes in patient axes differ in shape or position, or None if they do not."""
    shape = image.voxels.shape
    if label.voxels.shape != shape:
        return f"image has {_times(shape)} voxels, label {_times(label.voxels.shape)}"
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, n - 1) for n in shape))])
    apart = np.linalg.norm(((image.affine - label.affine) @ corners.T)[:3], axis=0).max()
    if apart > GRID_TOLERANCE * min(image.spacing):
        return f"image and label have different affines: they lie up to {apart:.3g} mm apart"
    return None


def radiological(voxels: np.ndarray) -> np.ndarray:
    """Show a volume in patient axes the way radiologists look at it.

    Args:
        voxels: X x Y x Z to the patient's right, front and head.

    Returns:
        Z x H x W view: slices from feet to head, rows from front to back, columns from the
        patient's right to left.
    """
    return voxels.transpose(2, 1, 0)[:, ::-1, ::-1]


def _content(path: Path) -> bytes:
    """The bytes of a NIfTI file, with gzip's own checksum verified."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except EOFError as error:
        raise VolumeError(f"{path} is a truncated gzip file: copy or download it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise VolumeError(f"{path} is a damaged gzip file ({error}): copy or download it again") from error
    except OSError as error:
        raise VolumeError(f"{path} cannot be read: {error.strerror or error}") from error


def _numbers(image: Any) -> np.ndarray | None:
    """The values of a 3-D image in a small type; None for anything else."""
    stored = image.get_data_dtype()
    if stored.kind not in "iuf" or len(image.shape) < 3 or any(n != 1 for n in image.shape[3:]):
        return None
    scaled = stored.kind == "f" or image.dataobj.slope != 1 or image.dataobj.inter != 0
    voxels: np.ndarray = (
        image.get_fdata(dtype=np.float32, caching="unchanged") if scaled else np.asanyarray(image.dataobj)
    )
    return compact(voxels.reshape(image.shape[:3]))


def compact(values: np.ndarray) -> np.ndarray:
    """Integers as int16 where they fit, other numbers as float32."""
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    limits = np.iinfo(np.int16)
    fits = values.size == 0 or (values.min() >= limits.min and values.max() <= limits.max)
    return values.astype(np.int16, copy=False) if fits and values.dtype.itemsize > 1 else values


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
