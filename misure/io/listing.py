"""Folders of many files: what is there by one look, and what tells a file from what it was before."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

Stamp = tuple[int, int, int]
"""When a file was changed, its size and its number: another one once it was written anew."""


def listing(folder: Path, ending: str) -> dict[str, os.DirEntry[str]]:
    """Return the files of a folder with some ending, by their names without it; none where it cannot be read."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return {entry.name.removesuffix(ending): entry for entry in entries if entry.name.endswith(ending)}
    return {}


def stamp_of(file: Path | os.DirEntry[str] | None) -> Stamp | None:
    """Return what tells a file from what it was before; None where there is none, or none any more."""
    try:
        state = file.stat() if file else None
    except OSError:
        return None
    return (state.st_mtime_ns, state.st_size, state.st_ino) if state else None
