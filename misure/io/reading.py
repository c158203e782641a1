"""Reading files that may be damaged: whatever a reader raises becomes one line that names the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from misure.errors import MisureError, brief


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
