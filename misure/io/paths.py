"""Which images a file, a folder or a glob means."""

from __future__ import annotations

import glob
from pathlib import Path

from misure.errors import did_you_mean
from misure.io.loaded import ImageFileError
from misure.io.pictures import PICTURES, is_picture
from misure.io.scans import NIFTI, is_nifti, is_series

ENDINGS = (*PICTURES, *NIFTI)


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
        found = [path] if is_series(path) else _in_folder(path)
    elif path.exists():
        return [path]
    elif glob.has_magic(str(path)):
        found = sorted(match for match in map(Path, glob.glob(str(path), recursive=True)) if _is_image(match))  # noqa: PTH207
    else:
        raise ImageFileError(f"there is no image {path}{_others(path)}")
    if not found:
        raise ImageFileError(f"{path}: no image there; endings that are read: {', '.join(ENDINGS)}, or a DICOM series")
    return found


def image_name(path: Path) -> str:
    """The name of an image without its ending."""
    ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), "")
    return path.name[: len(path.name) - len(ending)] or path.name


def _in_folder(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and _is_image(path))


def _is_image(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return not hidden and (is_picture(path) or is_nifti(path) or (path.is_dir() and is_series(path)))


def _others(path: Path) -> str:
    if not path.parent.is_dir():
        return f": there is no folder {path.parent}"
    names = [other.name for other in sorted(path.parent.iterdir()) if _is_image(other)]
    return did_you_mean(path.name, names)
