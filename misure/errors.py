"""The one exception a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MisureError(Exception):
    """What is wrong, where, and what to do, in one line.

    Command-line entry points print the message without a traceback and exit non-zero;
    set ``HYDRA_FULL_ERROR=1`` to see the traceback as well.
    """


class AbsentError(MisureError):
    """Data or weights are not here, and nothing may take their place: what to do is all there is to say."""


def did_you_mean(name: str, known: Iterable[str], *, most: int = 3) -> str:
    """Return ``"; close names: a, b"`` for a misspelt name.

    Args:
        name: What was asked for.
        known: The names that exist.
        most: How many suggestions at most.

    Returns:
        The ending of an error message; the known names themselves where none is close.
    """
    candidates = list(known)
    close = difflib.get_close_matches(name, candidates, n=most, cutoff=0.4)
    if close:
        return f"; close names: {', '.join(close)}"
    return f"; known names: {', '.join(candidates[:12])}" if candidates else ""
