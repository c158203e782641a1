"""Reading files that may be damaged: whatever a reader raises becomes one line that names the file."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from misure.errors import MisureError, brief


class ImageFileError(MisureError):
    """One image cannot be used; others can."""


@contextlib.contextmanager
def reading(path: Path | str, advice: str, error: type[MisureError] = MisureError) -> Iterator[None]:
    """Turn what a reader raises for a damaged, garbled or foreign file into a MisureError.

    Archives, pickles, images and JSON raise nearly every built-in exception and several of their libraries' own when
    they are cut short or garbled, so any exception in the block counts: put nothing into it but the reading.

    Args:
        path: What is read.
        advice: What to do about it.
        error: The kind of error.

    Raises:
        MisureError: Of the given kind: the file, the reason and the advice; a MisureError from inside passes.
    """
    try:
        yield
    except MisureError:
        raise
    except Exception as reason:
        raise error(f"{path} cannot be read ({brief(reason)}): {advice}") from reason


def user_path(text: str | Path) -> Path:
    """Return the path that is meant: of that very name, of its other Unicode form, or below a home folder (``~``)."""
    path = Path(text)
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # too long, a NUL character, nobody's home
        if path.is_symlink() or path.exists():
            return path
        path = path.expanduser()
        found = Path(path.anchor)
        for part in path.parts[bool(path.anchor) :]:
            same = [part] if (found / part).exists() or not found.is_dir() else os.listdir(found)  # noqa: PTH208
            found /= next((name for name in same if _composed(name) == _composed(part)), part)
        return found
    return path


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def check_file(path: Path, most_bytes: int) -> None:
    """Raise an ImageFileError unless a path is a file of at most ``most_bytes``, and not an empty one."""
    if not path.is_file():
        dangling = path.is_symlink() and not path.exists()
        raise ImageFileError(f"{path} {'is a link to nothing' if dangling else 'does not exist, or is no file'}")
    size = path.stat().st_size
    if not size:
        raise ImageFileError(f"{path} is empty: copy it again")
    check_size(path, size, most_bytes)


def check_size(path: Path, n_bytes: int, most: int) -> None:
    """Raise an ImageFileError if a file or folder has more than ``most`` bytes."""
    if n_bytes > most:
        raise ImageFileError(f"{path} has {n_bytes / 1e6:.0f} MB, more than the {most / 1e6:.0f} MB that are read")
