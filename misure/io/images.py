"""Image files of any kind as tensors: photographs (PNG, JPEG, TIFF), scans (NIfTI, DICOM series), folders and globs."""

from __future__ import annotations

import glob
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from misure.errors import MisureError, did_you_mean
from misure.io.dicom import is_dicom, read_series
from misure.io.pictures import PICTURES, is_picture, read_pages
from misure.io.reading import ImageFileError, user_path
from misure.io.volume import Grid, Volume
from misure.regions import resized

__all__ = ["ImageFileError", "InputFormat", "LoadedImage", "find_images", "image_name", "read_image", "read_images"]

AXES = ("radiological", "ras")
NIFTI = (".nii", ".nii.gz")
ENDINGS = (*PICTURES, *NIFTI)


@dataclass(frozen=True)
class InputFormat:
    """What a network takes.

    Attributes:
        channels: Image channels: colours become grey and grey ones are repeated; None keeps what the file has.
        dimensions: 2 for pictures and slices, 3 for volumes.
        slice_index: Of a scan, the axial slice counted from the feet; of a TIFF, the page; both begin with 0.
        window: Values of a scan that become 0 and 1 (Hounsfield units for CT); None takes the scan's own range.
        axes: Of a scan: ``radiological`` (slices from feet to head, rows from front to back, columns from the
            patient's right to left) or ``ras`` (to the patient's right, front and head, as MONAI has them).
    """

    channels: int | None = None
    dimensions: int = 2
    slice_index: int | None = None
    window: tuple[float, float] | None = None
    axes: str = "radiological"

    def __post_init__(self) -> None:
        if self.dimensions not in (2, 3):
            raise MisureError(f"dimensions={self.dimensions} is neither 2 nor 3")
        if self.axes not in AXES:
            raise MisureError(f"axes={self.axes} is not known: choose {' or '.join(AXES)}")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise MisureError(f"window={list(self.window)} is empty: give its lower end first, such as [-125, 275]")
        if self.slice_index is not None and self.dimensions == 3:
            raise MisureError("slice=... is for networks that take single slices; this one takes whole volumes")

    def chosen(self, n_slices: int, what: str) -> int | None:
        """Return which slice is meant, or None for the whole volume.

        Args:
            n_slices: How many there are.
            what: The file and what its slices are, for the error.

        Raises:
            ImageFileError: If a network for slices is given several, or the slice does not exist.
        """
        if self.dimensions == 3:
            return None
        index = 0 if self.slice_index is None and n_slices == 1 else self.slice_index
        if index is None:
            raise ImageFileError(
                f"{what} 0 to {n_slices - 1} and the network takes one at a time: choose it with slice=<number>"
            )
        if not 0 <= index < n_slices:
            raise ImageFileError(f"{what} 0 to {n_slices - 1}: there is no slice={index}")
        return index


@dataclass(frozen=True)
class LoadedImage:
    """One image as it is in its file.

    Attributes:
        name: The file's name without its ending.
        pixels: float32, C x H x W or C x D x H x W, in [0, 1].
        path: The file or folder.
        grid: Where a scan lies in the patient; None for a photograph.
        slice_index: The slice or page that was taken, if one was.
    """

    name: str
    pixels: Tensor
    path: Path
    grid: Grid | None = None
    slice_index: int | None = None

    @property
    def affine(self) -> np.ndarray | None:
        """The 4 x 4 affine of the file a scan came from, in millimetres (RAS)."""
        return None if self.grid is None else self.grid.stored

    def restored(self, values: Tensor) -> Tensor:
        """Resize a map (spatial axes only) to the image's own size, linearly."""
        size = self.pixels.shape[1:]
        return values if values.shape == size else resized(values.float(), size)


def read_images(
    source: str | Path,
    *,
    channels: int | None = None,
    dimensions: int = 2,
    slice_index: int | None = None,
    window: Sequence[float] | None = None,
    axes: str = "radiological",
) -> list[LoadedImage]:
    """Read the images of a file, a folder or a glob; see :class:`InputFormat` for the arguments.

    Raises:
        ImageFileError: If there is none, or one of them cannot be used.
    """
    bounds = None if window is None else (window[0], window[1])
    wanted = InputFormat(channels, dimensions, slice_index, bounds, axes)
    return [read_image(path, wanted) for path in find_images(source)]


def read_image(path: str | Path, wanted: InputFormat) -> LoadedImage:
    """Read one image.

    Args:
        path: A PNG, JPEG, TIFF or NIfTI file, or the folder of a DICOM series.
        wanted: What the network takes.

    Raises:
        ImageFileError: If the file is missing, of another type, damaged, too large or does not fit the network.
    """
    path = Path(path)
    if is_nifti(path) or path.is_dir():
        return _read_scan(path, wanted)
    pixels, page = read_pages(path, lambda n_pages: wanted.chosen(n_pages, f"{path} has pages"))
    return _loaded(path, pixels, wanted, index=None if wanted.slice_index is None else page)


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file or the folder of a DICOM series.

    Raises:
        ImageFileError: If it is missing, damaged or too large, or a package is missing.
    """
    try:
        if path.is_dir():
            return read_series(path)
        from misure.io.nifti import read_nifti

        return read_nifti(path)
    except ImportError as error:
        for package in ("SimpleITK", "nibabel"):
            if importlib.util.find_spec(package) is None:
                raise ImageFileError(f"reading scans needs {package}: pip install 'misure[images]'") from error
        raise


def find_images(source: str | Path) -> list[Path]:
    """List the images of a source, in the order of their names.

    Args:
        source: An image file, the folder of a DICOM series, a folder of images (not of folders) or a glob.

    Returns:
        Files, and folders of DICOM series.

    Raises:
        ImageFileError: If there is none.
    """
    path = user_path(source)
    if path.is_dir():
        files = (file for file in path.iterdir() if file.is_file() and _is_image(file))
        images = [path] if _is_series(path) else sorted(files)
    elif path.exists():
        return [path]
    elif glob.has_magic(str(path)):
        images = sorted(match for match in map(Path, glob.glob(str(path), recursive=True)) if _is_image(match))  # noqa: PTH207
    else:
        raise ImageFileError(f"there is no image {path}{_others(path)}")
    if not images:
        raise ImageFileError(f"{path}: no image there; endings that are read: {', '.join(ENDINGS)}, or a DICOM series")
    return images


def image_name(path: Path) -> str:
    """The name of an image without its ending."""
    ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), "")
    return path.name[: len(path.name) - len(ending)] or path.name


def is_nifti(path: Path) -> bool:
    """Say whether a file has the ending of NIfTI."""
    return path.name.lower().endswith(NIFTI)


def in_channels(pixels: np.ndarray, channels: int | None, path: Path) -> np.ndarray:
    """Bring C x spatial pixels to a number of channels: grey is repeated, colours are weighed as the eye does.

    Raises:
        ImageFileError: If the numbers of channels do not go together.
    """
    if channels is None or len(pixels) == channels:
        return pixels
    if len(pixels) == 1:
        return np.repeat(pixels, channels, axis=0)
    if channels == 1 and len(pixels) == 3:
        return np.tensordot(np.array([0.299, 0.587, 0.114], pixels.dtype), pixels, axes=1)[None]  # ITU-R 601
    raise ImageFileError(f"{path} has {len(pixels)} channels, the network takes {channels}")


def _read_scan(path: Path, wanted: InputFormat) -> LoadedImage:
    """A volume, or one of its axial slices, windowed and laid out as the network sees it."""
    volume = read_volume(path)
    if not np.isfinite(volume.voxels).all():
        raise ImageFileError(f"{path} has voxels that are not finite: clean it first")
    index = wanted.chosen(volume.voxels.shape[2], f"{path} has axial slices")
    voxels, affine = volume.voxels, volume.affine.copy()
    if index is not None:
        voxels = voxels[:, :, index : index + 1]
        affine[:, 3] = volume.affine @ [0, 0, index, 1]
    # without a window the range is the whole volume's, so that slices compare
    low, high = wanted.window or (float(volume.voxels.min()), float(volume.voxels.max()))
    scaled = (np.clip(voxels, low, high).astype(np.float32) - low) / np.float32((high - low) or 1)
    grid = Grid(affine, volume.stored, wanted.axes)
    pixels = grid.from_voxels(scaled)
    if wanted.dimensions == 3 and pixels.ndim == 2:
        raise ImageFileError(f"{path} is a single slice, the network takes volumes")
    return _loaded(path, np.ascontiguousarray(pixels)[None], wanted, grid, index)


def _loaded(
    path: Path, pixels: np.ndarray, wanted: InputFormat, grid: Grid | None = None, index: int | None = None
) -> LoadedImage:
    channels = np.ascontiguousarray(in_channels(pixels, wanted.channels, path))
    return LoadedImage(image_name(path), torch.from_numpy(channels), path, grid, index)


def _is_series(folder: Path) -> bool:
    return any(path.is_file() and is_dicom(path) for path in sorted(folder.iterdir()))


def _is_image(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return not hidden and (is_picture(path) or is_nifti(path) or (path.is_dir() and _is_series(path)))


def _others(path: Path) -> str:
    if not path.parent.is_dir():
        return f": there is no folder {path.parent}"
    return did_you_mean(path.name, [other.name for other in sorted(path.parent.iterdir()) if _is_image(other)])
