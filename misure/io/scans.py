"""Scans: NIfTI files and DICOM series, windowed, as volumes or single axial slices."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from misure.io.loaded import Grid, ImageFileError, LoadedImage, Reading, in_channels
from misure.io.pictures import check_file

if TYPE_CHECKING:
    from misure.io.nifti import Volume

NIFTI = (".nii", ".nii.gz")
MOST_BYTES = 2 * 1024**3
MOST_VOXELS = 512 * 512 * 2048
"""Larger scans are refused before they are unpacked."""

_HEADER = 4096
_WIDEST = 8  # bytes of a voxel
_CHUNK = 1 << 22
_DICOM_SLICES = (".dcm", ".ima")
_DICOM_PREAMBLE = 128


def is_scan(path: Path) -> bool:
    """Say whether a path is a NIfTI file or a folder, which is taken for a DICOM series."""
    return is_nifti(path) or path.is_dir()


def is_nifti(path: Path) -> bool:
    """Say whether a file has the ending of NIfTI."""
    return path.name.lower().endswith(NIFTI)


def is_series(folder: Path) -> bool:
    """Say whether a folder holds a DICOM file."""
    return any(path.is_file() and _is_dicom(path) for path in sorted(folder.iterdir()))


def read_scan(path: Path, name: str, reading: Reading) -> LoadedImage:
    """Read a NIfTI file (2-D or 3-D) or a DICOM series.

    Args:
        path: The file, or the folder of the series.
        name: What it is called.
        reading: What the network takes.

    Raises:
        ImageFileError: If it is missing, damaged, too large or does not fit the network.
        MisureError: If a package is missing.
    """
    volume, stored = _read_series(path) if path.is_dir() else _read_nifti(path)
    if not np.isfinite(volume.voxels).all():
        raise ImageFileError(f"{path} has voxels that are not finite: clean it first")
    index = reading.chosen(volume.voxels.shape[2], f"{path} has axial slices")
    voxels, affine = volume.voxels, volume.affine.copy()
    if index is not None:
        voxels = voxels[:, :, index : index + 1]
        affine[:, 3] = volume.affine @ [0, 0, index, 1]
    grid = Grid(affine, stored, reading.axes)
    seen = grid.from_voxels(_windowed(voxels, volume, reading))
    if reading.dimensions == 3 and seen.ndim == 2:
        raise ImageFileError(f"{path} is a single slice, the network takes volumes")
    pixels = in_channels(np.ascontiguousarray(seen)[None], reading.channels, path)
    return LoadedImage(name, torch.from_numpy(np.ascontiguousarray(pixels)), path, grid, index)


def _windowed(voxels: np.ndarray, volume: Volume, reading: Reading) -> np.ndarray:
    """Bring values to [0, 1], float32; the range is the whole volume's, so that slices compare."""
    window = reading.window or (float(volume.voxels.min()), float(volume.voxels.max()))
    low, high = window
    scaled: np.ndarray = (np.clip(voxels, low, high).astype(np.float32) - low) / np.float32((high - low) or 1)
    return scaled


def _read_series(folder: Path) -> tuple[Volume, np.ndarray]:
    with _ct_packages("pydicom"):
        from misure.io.dicom import read_series
        from misure.io.nifti import VolumeError
    files = [path for path in folder.iterdir() if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    if size > MOST_BYTES:
        raise ImageFileError(f"{folder} has {size / 1e6:.0f} MB, more than the {MOST_BYTES / 1e6:.0f} MB that are read")
    if not any(map(_is_dicom, files)):
        raise ImageFileError(f"{folder} holds no DICOM series")
    try:
        volume = read_series(folder)
    except VolumeError as error:
        raise ImageFileError(str(error)) from error
    return volume, volume.affine


def _read_nifti(path: Path) -> tuple[Volume, np.ndarray]:
    check_file(path, MOST_BYTES)
    with _ct_packages("nibabel"):
        import nibabel
        from nibabel.filebasedimages import ImageFileError as NotNifti
        from nibabel.spatialimages import HeaderDataError
        from nibabel.wrapstruct import WrapStructError

        from misure.io.nifti import VolumeError, in_patient_axes, read_nifti
    try:
        header: Any = nibabel.Nifti1Image.from_filename(path)
        _check_voxels(path, math.prod(header.shape))
        if len(header.shape) != 2:
            return read_nifti(path), header.affine
        voxels = header.get_fdata(dtype=np.float32)[..., None]
        if not np.isfinite(header.affine).all() or not np.linalg.det(header.affine[:3, :3]):
            raise ImageFileError(f"{path} has no usable affine: its position in the patient is unknown")
        return in_patient_axes(voxels, header.affine, path), header.affine
    except VolumeError as error:
        raise ImageFileError(str(error)) from error
    except (NotNifti, HeaderDataError, WrapStructError, OSError, EOFError, ValueError, zlib.error) as error:
        raise ImageFileError(f"{path} is not a complete NIfTI file ({' '.join(str(error).split())})") from error


def _check_voxels(path: Path, n_voxels: int) -> None:
    """Raise an ImageFileError for a scan that is too large, also one that hides more than its header says."""
    if n_voxels > MOST_VOXELS:
        raise ImageFileError(f"{path} has {n_voxels / 1e6:.0f} million voxels: crop it first")
    if path.suffix.lower() != ".gz":
        return
    unpacked = 0
    with gzip.open(path) as stream:
        while part := stream.read(_CHUNK):
            unpacked += len(part)
            if unpacked > n_voxels * _WIDEST + _HEADER + _CHUNK:
                raise ImageFileError(f"{path} unpacks to more than its header says: it is damaged")


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() in _DICOM_SLICES:
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(_DICOM_PREAMBLE + 4)[_DICOM_PREAMBLE:] == b"DICM"
    except OSError:
        return False


@contextlib.contextmanager
def _ct_packages(package: str) -> Iterator[None]:
    """Name the extra where a package is missing."""
    try:
        yield
    except ImportError as error:
        if importlib.util.find_spec(package) is not None:
            raise
        raise ImageFileError(f"reading scans needs {package}: pip install 'misure[images]'") from error
