"""Image files of any kind as tensors: photographs (PNG, JPEG, TIFF) and scans (NIfTI, DICOM series)."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from misure.errors import MisureError
from misure.io.dicom import is_dicom, read_series
from misure.io.finding import find_images, image_name, is_nifti
from misure.io.masks import region_of, stored_numbers
from misure.io.pictures import is_picture, read_pages
from misure.io.reading import ImageFileError, reading
from misure.io.volume import Grid, Volume, affine_difference, whole_numbers
from misure.regions import resized
from misure.validation import Count, check_fields, path_of, plain

__all__ = [
    "ImageFileError",
    "InputFormat",
    "LoadedImage",
    "WindowError",
    "find_images",
    "image_name",
    "is_nifti",
    "read_image",
    "read_images",
    "read_mask",
    "read_volume",
    "scan_shape",
]

AXES = ("radiological", "ras")
_ADVICE = "copy or export it again"


class WindowError(ImageFileError):
    """A window of Hounsfield units is given for a scan that has none."""


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

    channels: Count | None = None
    dimensions: int = 2
    slice_index: int | None = None
    window: tuple[float, ...] | None = None
    axes: str = "radiological"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.dimensions not in (2, 3):
            raise MisureError(f"dimensions={self.dimensions} is neither 2 nor 3")
        if self.axes not in AXES:
            raise MisureError(f"axes={self.axes} is not known: choose {' or '.join(AXES)}")
        if self.window is not None and not (len(self.window) == 2 and self.window[0] < self.window[1]):
            raise MisureError(f"window={list(self.window)} is no two numbers, the lower one first, such as [-125, 275]")
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
    given = plain(window)
    bounds = tuple(given) if isinstance(given, list | tuple) else given
    wanted = InputFormat(channels, dimensions, slice_index, bounds, axes)
    return [read_image(path, wanted) for path in find_images(path_of("source", source))]


def read_image(path: str | Path, wanted: InputFormat) -> LoadedImage:
    """Read one image.

    Args:
        path: A PNG, JPEG, TIFF or NIfTI file, or the folder of a DICOM series.
        wanted: What the network takes.

    Raises:
        ImageFileError: If the file is missing, of another type, damaged, too large or does not fit the network.
    """
    path = Path(path)
    with reading(path, _ADVICE, ImageFileError):
        if _is_scan(path):
            return _read_scan(path, wanted)
        pixels, page = read_pages(path, lambda n_pages: wanted.chosen(n_pages, f"{path} has pages"))
        return _loaded(path, pixels, wanted, index=None if wanted.slice_index is None else page)


def read_mask(path: str | Path, wanted: InputFormat, image: LoadedImage | None = None) -> Tensor:
    """Read a mask by the numbers that are stored, not by their colours: everything but 0 is set.

    Args:
        path: A PNG, TIFF or NIfTI file: two numbers, one of them 0, or regions of whole numbers (instances, a
            palette). Of a picture with transparency, what is not transparent, if that says more than its colours.
        wanted: What the network takes: which slice, of a mask that has several, and how scans are laid out.
        image: What the mask is for.

    Returns:
        bool, H x W or D x H x W.

    Raises:
        ImageFileError: If it cannot be read, its numbers are no mask (such as a JPEG's), or it does not fit the image.
    """
    path, grid = Path(path), None
    single = replace(wanted, slice_index=None)  # a mask of one slice is that of the slice
    with reading(path, _ADVICE, ImageFileError):
        if _is_scan(path):
            volume = read_volume(path)
            voxels, grid, _ = _laid_out(volume, single if volume.voxels.shape[2] == 1 else wanted)
            values = whole_numbers(voxels, f"{path}: ")[None]
        else:
            values, _ = read_pages(
                path,
                lambda n: (single if n == 1 else wanted).chosen(n, f"{path} has pages"),
                partial(stored_numbers, path),
            )
        mask = region_of(values, path)
    if image is not None and mask.shape != tuple(image.pixels.shape[1:]):
        size, needed = (" x ".join(map(str, shape)) for shape in (mask.shape, image.pixels.shape[1:]))
        raise ImageFileError(f"region={path} is {size}, the image {needed}")
    if image is not None and image.grid and grid:
        shape = mask.shape if wanted.axes == "ras" else mask.shape[::-1]
        if difference := affine_difference(image.grid.affine, grid.affine, (*shape, 1)[:3]):
            raise ImageFileError(f"region={path}: {difference}")
    return torch.from_numpy(mask)


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file or the folder of a DICOM series.

    Raises:
        ImageFileError: If it is missing, damaged or too large, or a package is missing.
    """
    with reading(path, _ADVICE, ImageFileError), _packages():
        if path.is_dir():
            return read_series(path)
        from misure.io.nifti import read_nifti

        return read_nifti(path)


def scan_shape(path: Path) -> tuple[int, ...]:
    """Return how many voxels a NIfTI file has along each axis, by its header alone.

    Raises:
        ImageFileError: If it is missing or its header is damaged, or a package is missing.
    """
    with _packages():
        from misure.io.nifti import nifti_shape

        return nifti_shape(path)


@contextlib.contextmanager
def _packages() -> Iterator[None]:
    """Say in one line which package is missing."""
    try:
        yield
    except ImportError as error:
        for package in ("SimpleITK", "nibabel"):
            if importlib.util.find_spec(package) is None:
                raise ImageFileError(f"reading scans needs {package}: pip install 'misure[images]'") from error
        raise


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


def _is_scan(path: Path) -> bool:
    """Say whether a path is read as a scan.

    Raises:
        ImageFileError: If it is a single file of a series.
    """
    if is_nifti(path) or path.is_dir():
        return True
    if path.is_file() and not is_picture(path) and is_dicom(path):
        raise ImageFileError(f"{path} is one DICOM file: give the folder that holds its series, and nothing else")
    return False


def _laid_out(volume: Volume, wanted: InputFormat) -> tuple[np.ndarray, Grid, int | None]:
    """A volume, or one of its axial slices, as the network sees it; where it lies; and which slice it is."""
    voxels, affine, path = volume.voxels, volume.affine.copy(), volume.path
    if not np.isfinite(voxels).all():
        raise ImageFileError(f"{path} has voxels that are not finite: clean it first")
    index = wanted.chosen(voxels.shape[2], f"{path} has axial slices")
    if index is not None:
        voxels = voxels[:, :, index : index + 1]
        affine[:, 3] = volume.affine @ [0, 0, index, 1]
    grid = Grid(affine, volume.stored, wanted.axes)
    view = grid.from_voxels(voxels)
    if wanted.dimensions == 3 and view.ndim == 2:
        raise ImageFileError(f"{path} is a single slice, the network takes volumes")
    return view, grid, index


def _read_scan(path: Path, wanted: InputFormat) -> LoadedImage:
    """A volume, or one of its axial slices, windowed and laid out as the network sees it."""
    volume = read_volume(path)
    view, grid, index = _laid_out(volume, wanted)
    # without a window the range is the whole volume's, so that slices compare
    least, most = float(volume.voxels.min()), float(volume.voxels.max())
    low, high = wanted.window or (least, most)
    if low < 0 <= least and wanted.window and not path.is_dir():  # a series says itself that it is CT
        raise WindowError(
            f"{path} has no value below 0 (they are {least:g} to {most:g}), so window={[low, high]} of Hounsfield "
            "units is not for it: window=null takes its own range, or give one that begins at 0 or above"
        )
    scaled = (np.clip(view, low, high).astype(np.float32) - low) / np.float32((high - low) or 1)
    return _loaded(path, np.ascontiguousarray(scaled)[None], wanted, grid, index)


def _loaded(
    path: Path, pixels: np.ndarray, wanted: InputFormat, grid: Grid | None = None, index: int | None = None
) -> LoadedImage:
    channels = np.ascontiguousarray(in_channels(pixels, wanted.channels, path))
    return LoadedImage(image_name(path), torch.from_numpy(channels), path, grid, index)
