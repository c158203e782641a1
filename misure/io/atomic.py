"""Writing files and folders whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from misure.errors import MisureError, brief

PARTIAL = ".part"
"""Ending of what is not written to its end, so that no reader's pattern matches what a kill leaves."""


@contextlib.contextmanager
def replacing(path: Path, *, hint: str = "") -> Iterator[Path]:
    """Give a temporary name beside ``path`` that takes its place once everything is written.

    Args:
        path: Where the file goes, or a folder where there is none yet; the folder around it is made when missing.
        hint: Added to the error's advice.

    Yields:
        A path that ends in :data:`PARTIAL`.

    Raises:
        MisureError: If the place cannot be written; an older file stays as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise MisureError(f"cannot write {path}: {brief(error)}; free space or choose another folder{hint}") from error
    finally:
        _remove(partial)


def write_atomically(path: Path, write: Callable[[Path], object], *, hint: str = "") -> Path:
    """Let ``write`` fill a temporary file beside ``path``, flush it to disk and rename it.

    Args:
        path: As for :func:`replacing`.
        write: Called with the temporary path.
        hint: Added to the error's advice.

    Returns:
        ``path``.

    Raises:
        MisureError: If the place cannot be written; an older file stays as it was.
    """
    with replacing(path, hint=hint) as partial:
        write(partial)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
    return path


def remove_abandoned(path: Path) -> None:
    """Remove what processes that no longer run left half-written of a file, or of a folder that is written likewise."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}*"):
        process = left.name.removeprefix(f".{path.name}.").partition(".")[0]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            _remove(left)


def _remove(path: Path) -> None:
    """Remove a file or folder, as far as that is possible."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
