"""Image files of any kind as tensors: photographs (PNG, JPEG, TIFF), scans (NIfTI, DICOM series), folders and globs."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from misure.errors import did_you_mean
from misure.io.loaded import ImageFileError, InputFormat, LoadedImage
from misure.io.pictures import PICTURES, is_picture, read_picture
from misure.io.scans import NIFTI, is_nifti, is_scan, is_series, read_scan

__all__ = ["ImageFileError", "InputFormat", "LoadedImage", "find_images", "image_name", "read_image", "read_images"]

ENDINGS = (*PICTURES, *NIFTI)


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
    reader = read_scan if is_scan(path) else read_picture
    return reader(path, image_name(path), wanted)


def find_images(source: str | Path) -> list[Path]:
    """List the images of a source, in the order of their names.

    Args:
        source: An image file, the folder of a DICOM series, a folder of images (not of folders) or a glob.

    Returns:
        Files, and folders of DICOM series.

    Raises:
        ImageFileError: If there is none.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        files = (file for file in path.iterdir() if file.is_file() and _is_image(file))
        images = [path] if is_series(path) else sorted(files)
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


def _is_image(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return not hidden and (is_picture(path) or is_nifti(path) or (path.is_dir() and is_series(path)))


def _others(path: Path) -> str:
    if not path.parent.is_dir():
        return f": there is no folder {path.parent}"
    return did_you_mean(path.name, [other.name for other in sorted(path.parent.iterdir()) if _is_image(other)])
