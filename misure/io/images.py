"""Image files of any kind as tensors: photographs (PNG, JPEG, TIFF), scans (NIfTI, DICOM series), folders and globs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from misure.io.loaded import ImageFileError, LoadedImage, Reading
from misure.io.paths import find_images, image_name
from misure.io.pictures import is_picture, read_picture
from misure.io.scans import is_scan, read_scan

__all__ = ["ImageFileError", "LoadedImage", "Reading", "find_images", "image_name", "read_image", "read_images"]


def read_image(path: str | Path, reading: Reading) -> LoadedImage:
    """Read one image.

    Args:
        path: A PNG, JPEG, TIFF or NIfTI file, or the folder of a DICOM series.
        reading: What the network takes.

    Raises:
        ImageFileError: If the file is missing, of another type, damaged, too large or does not fit the network.
    """
    path = Path(path)
    reader = read_scan if is_scan(path) else read_picture
    return reader(path, image_name(path), reading)


def read_images(
    source: str | Path,
    *,
    channels: int | None = None,
    dimensions: int = 2,
    slice_index: int | None = None,
    window: Sequence[float] | None = None,
    axes: str = "radiological",
) -> list[LoadedImage]:
    """Read the images of a file, a folder or a glob; see :class:`misure.io.images.Reading` for the arguments.

    Raises:
        ImageFileError: If there is none, or one of them cannot be used.
    """
    reading = Reading(channels, dimensions, slice_index, None if window is None else (window[0], window[1]), axes)
    return [read_image(path, reading) for path in find_images(source)]


def is_image(path: Path) -> bool:
    """Say whether a path has the name of an image file or is the folder of a DICOM series."""
    return is_picture(path) or is_scan(path)
