"""A list in a small JSON file that several processes may change, kept whole."""

from __future__ import annotations

import fcntl
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from misure.errors import MisureError
from misure.io.atomic import write_atomically

Entries = list[dict[str, Any]]


def read(path: Path) -> Entries:
    """Return a file's entries; none where it is missing, and with a warning where it is damaged."""
    try:
        return [dict(entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        warnings.warn(f"{path} is damaged and begun anew ({error})", stacklevel=2)
        return []


def change(path: Path, edit: Callable[[Entries], Entries]) -> None:
    """Replace a file's entries by what ``edit`` makes of them, while no other process does.

    Raises:
        MisureError: If the place cannot be written; the file stays as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            text = json.dumps(edit(read(path)), indent=1) + "\n"
            write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise MisureError(f"cannot write {path}: {error.strerror}; free space or choose another folder") from error
