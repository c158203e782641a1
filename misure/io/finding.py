"""Images found by file, folder or glob; what is left out is named."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from misure.errors import MisureError, brief, did_you_mean, some
from misure.io.dicom import is_dicom
from misure.io.pictures import PICTURES, is_picture
from misure.io.reading import ImageFileError, reading, user_path

NIFTI = (".nii", ".nii.gz")
ENDINGS = (*PICTURES, *NIFTI)

MOST_ENTRIES = 100_000
"""Folders that are looked into, and files that a glob may match."""


def find_images(source: str | Path) -> list[Path]:
    """List the images of a source, in the order of their names.

    Args:
        source: An image file, the folder of a DICOM series, a folder of images (not of folders) or a glob. What exists
            under that very name is meant first, however many brackets or tildes it has.

    Returns:
        Files, and folders of DICOM series. What lies beside them and is no image is named in a warning.

    Raises:
        ImageFileError: If there is none, or the name cannot be looked up.
    """
    with reading(source, "check its name and permissions", ImageFileError):
        path = user_path(source)
        if path.is_dir():
            if _is_series(path):
                return [path]
            entries = sorted(path.iterdir())
            images = [entry for entry in entries if not entry.is_dir() and _is_image(entry)]
        elif os.path.lexists(path):
            return [path]
        elif glob.has_magic(str(path)):
            entries = _matches(path)
            images = [entry for entry in entries if _is_image(entry)]
        else:
            raise ImageFileError(f"there is no image {path}{_others(path)}")
    if not images:
        raise ImageFileError(f"{path}: no image there; endings that are read: {', '.join(ENDINGS)}, or a DICOM series")
    _name_others(path, entries, images)
    return images


def image_name(path: Path) -> str:
    """The name of an image without its ending."""
    ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), "")
    return path.name[: len(path.name) - len(ending)] or path.name


def is_nifti(path: Path) -> bool:
    """Say whether a file has the ending of NIfTI."""
    return path.name.lower().endswith(NIFTI)


def walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder under ``root`` with the names of its files, symbolic links followed, each folder once.

    Raises:
        MisureError: If a folder is there and fails to be read, other than one that this user may not read: what is in
            it must not count as gone.
    """
    seen: set[Path] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_refuse_unreadable):
        place = Path(folder)
        if place.resolve() in seen:
            subfolders.clear()
            continue
        seen.add(place.resolve())
        subfolders.sort(key=lambda name, place=place: ((place / name).is_symlink(), name))  # type: ignore[misc]
        yield place, names


def _refuse_unreadable(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)):
        raise MisureError(f"{error.filename} cannot be read ({brief(error)}): check its file system")


def _matches(pattern: Path) -> list[Path]:
    """Expand a glob; leading folders that exist are taken as they are.

    Raises:
        ImageFileError: If it matches too much.
    """
    folder, parts = Path(pattern.anchor), pattern.parts[bool(pattern.anchor) :]
    while parts[1:] and (inner := user_path(folder / parts[0])).is_dir():
        folder, parts = inner, parts[1:]
    matches = set(islice(_expanded(folder, parts), MOST_ENTRIES + 1))
    if len(matches) > MOST_ENTRIES:
        raise ImageFileError(f"{pattern} matches more than {MOST_ENTRIES} files: name fewer")
    return sorted(matches)


def _expanded(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    if "**" not in parts:
        yield from (folder / match for match in glob.iglob(str(Path(*parts)), root_dir=folder))  # noqa: PTH207
        return
    place = parts.index("**")
    for root in _expanded(folder, parts[:place]) if place else (folder,):
        for number, (inner, names) in enumerate(walk(root)):
            if number == MOST_ENTRIES:
                raise ImageFileError(f"{root} holds more than {MOST_ENTRIES} folders: name one of them")
            if any(part.startswith(".") for part in inner.relative_to(root).parts):
                continue
            if parts[place + 1 :]:
                yield from _expanded(inner, parts[place + 1 :])
            else:
                yield from (inner / name for name in ("", *names))


def _name_others(source: Path, entries: Iterable[Path], images: list[Path]) -> None:
    """Warn of what was there and is no image; folders of images and files of a series belong to them."""
    homes, taken = {parent for image in images for parent in image.parents}, set(images)
    others = [
        entry.name
        for entry in entries
        if entry not in taken and entry not in homes and entry.parent not in taken and not entry.name.startswith(".")
    ]
    if others:
        warnings.warn(f"{source}: {len(others)} left out, as they are no images: {some(others)}", stacklevel=3)


def _is_series(folder: Path) -> bool:
    return any(path.is_file() and is_dicom(path) for path in sorted(folder.iterdir()))


def _is_image(path: Path) -> bool:
    """Say whether a path is named as an image, also if it cannot be read, or is the folder of a series."""
    if path.name.startswith("."):
        return False
    return _is_series(path) if path.is_dir() else is_picture(path) or is_nifti(path)


def _others(path: Path) -> str:
    if not path.parent.is_dir():
        return f": there is no folder {path.parent}"
    return did_you_mean(path.name, [other.name for other in sorted(path.parent.iterdir()) if _is_image(other)])
