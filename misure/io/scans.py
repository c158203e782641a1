"""Scans: NIfTI files and DICOM series, windowed, as volumes or single axial slices."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from misure.io.dicom import is_dicom, read_series
from misure.io.loaded import Grid, ImageFileError, InputFormat, LoadedImage, in_channels
from misure.io.pictures import check_file
from misure.io.volume import Volume

NIFTI = (".nii", ".nii.gz")
MOST_BYTES = 2 * 1024**3


def is_scan(path: Path) -> bool:
    """Say whether a path is a NIfTI file or a folder, which is taken for a DICOM series."""
    return is_nifti(path) or path.is_dir()


def is_nifti(path: Path) -> bool:
    """Say whether a file has the ending of NIfTI."""
    return path.name.lower().endswith(NIFTI)


def is_series(folder: Path) -> bool:
    """Say whether a folder holds a DICOM file."""
    return any(path.is_file() and is_dicom(path) for path in sorted(folder.iterdir()))


def read_scan(path: Path, name: str, wanted: InputFormat) -> LoadedImage:
    """Read a NIfTI file (2-D or 3-D) or a DICOM series.

    Args:
        path: The file, or the folder of the series.
        name: What it is called.
        wanted: What the network takes.

    Raises:
        ImageFileError: If it is missing, damaged, too large or does not fit the network, or a package is missing.
    """
    volume = read_volume(path)
    if not np.isfinite(volume.voxels).all():
        raise ImageFileError(f"{path} has voxels that are not finite: clean it first")
    index = wanted.chosen(volume.voxels.shape[2], f"{path} has axial slices")
    voxels, affine = volume.voxels, volume.affine.copy()
    if index is not None:
        voxels = voxels[:, :, index : index + 1]
        affine[:, 3] = volume.affine @ [0, 0, index, 1]
    grid = Grid(affine, volume.stored, wanted.axes)
    seen = grid.from_voxels(_windowed(voxels, volume, wanted))
    if wanted.dimensions == 3 and seen.ndim == 2:
        raise ImageFileError(f"{path} is a single slice, the network takes volumes")
    pixels = in_channels(np.ascontiguousarray(seen)[None], wanted.channels, path)
    return LoadedImage(name, torch.from_numpy(np.ascontiguousarray(pixels)), path, grid, index)


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file or the folder of a DICOM series.

    Raises:
        ImageFileError: If it is missing, damaged or too large, or a package is missing.
    """
    if not path.is_dir():
        check_file(path, MOST_BYTES)
        with _ct_packages("nibabel"):
            from misure.io.nifti import read_nifti
        return read_nifti(path)
    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    if size > MOST_BYTES:
        raise ImageFileError(f"{path} has {size / 1e6:.0f} MB, more than the {MOST_BYTES / 1e6:.0f} MB that are read")
    if not is_series(path):
        raise ImageFileError(f"{path} holds no DICOM series")
    with _ct_packages("SimpleITK", "nibabel"):
        return read_series(path)


def _windowed(voxels: np.ndarray, volume: Volume, wanted: InputFormat) -> np.ndarray:
    """Bring values to [0, 1], float32; the range is the whole volume's, so that slices compare."""
    low, high = wanted.window or (float(volume.voxels.min()), float(volume.voxels.max()))
    scaled: np.ndarray = (np.clip(voxels, low, high).astype(np.float32) - low) / np.float32((high - low) or 1)
    return scaled


@contextlib.contextmanager
def _ct_packages(*packages: str) -> Iterator[None]:
    """Name the extra where a package is missing."""
    try:
        yield
    except ImportError as error:
        for package in packages:
            if importlib.util.find_spec(package) is None:
                raise ImageFileError(f"reading scans needs {package}: pip install 'misure[images]'") from error
        raise
