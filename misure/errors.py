"""What users are told: the one exception that is meant for them, and messages in lines."""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence

_FOLDERS = re.compile(r"(?<![\w:/.~])(?:~?/|[A-Za-z]:\\)(?:[^\s/\\\"',;:()]+[/\\])+(?=[^\s/\\])")

_ORIGIN = re.compile(r"^.*ITK ERROR: (?:\w+\(0x[0-9a-f]+\): )?")
"""Source file and memory address before the reasons of SimpleITK."""


_CHATTY_LOGGERS = ("pytorch_lightning", "fontTools", "matplotlib", "httpx")
"""Packages that report tips, devices and font tables at the level of information."""


class MisureError(Exception):
    """What is wrong, where, and what to do, in one line.

    Command-line entry points print the message without a traceback and exit non-zero;
    set ``HYDRA_FULL_ERROR=1`` to see the traceback as well.
    """


class AbsentError(MisureError):
    """Data or weights are not here, and nothing may take their place: what to do is all there is to say."""


class UnwritableError(MisureError):
    """Nothing can be kept at a place, so whatever else was meant for it would be lost as well."""


class FailedItems:
    """Items of a long run that failed, each with its reason; the others go on.

    Attributes:
        lines: Reasons by the items' names.
    """

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}

    @contextlib.contextmanager
    def tolerated(self, name: str, *, alone: bool = False) -> Iterator[None]:
        """Tell of whatever goes wrong in the block on stderr, in one line, and go on.

        Args:
            name: What the user calls the item.
            alone: Whether there is no other one to go on with.

        Raises:
            UnwritableError: As it is: no further item could be kept.
            MisureError: Whatever went wrong, if the item is alone.
        """
        try:
            yield
        except UnwritableError:
            raise
        except Exception as error:
            if alone:
                raise error if isinstance(error, MisureError) else MisureError(told(error)) from error
            self.lines[name] = told(error)
            print(f"misure: {name}: {self.lines[name]}", file=sys.stderr, flush=True)

    def check(self, n_items: int, what: str) -> None:
        """Raise a MisureError that counts and names the items that failed, if there are any."""
        if self.lines:
            raise MisureError(f"{len(self.lines)} of {n_items} {what}, see above: {some(list(self.lines))}")


def told(error: BaseException) -> str:
    """Return any error as one line: a MisureError's own, and what others say with their type before it."""
    return str(error) if isinstance(error, MisureError) else f"{type(error).__name__}: {brief(error)}"


def brief(error: BaseException, most: int = 200) -> str:
    """Return what an error says in one line of at most ``most`` characters, or its type where it says nothing."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return _ORIGIN.sub("", " ".join(str(reason).split()))[:most] or type(error).__name__


def without_folders(text: str) -> str:
    """Return a text without the folders of absolute paths, which say nothing that another machine could use."""
    return _FOLDERS.sub("", text)


def some(names: Sequence[str], most: int = 3) -> str:
    """Return the first ``most`` of some names or reasons, and how many more there are."""
    more = f"; and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(names[:most]) + more


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
    simple = {_simple(candidate): candidate for candidate in candidates}
    close = difflib.get_close_matches(_simple(name), simple, n=most, cutoff=0.4)
    if close:
        return f"; close names: {', '.join(simple[found] for found in close)}"
    return f"; known names: {', '.join(candidates[:12])}" if candidates else ""


def _simple(name: str) -> str:
    """Return a name as others may write it: in small letters, its words joined by underscores."""
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")


def set_up_messages() -> None:
    """Let this process's warnings be lines, and others' information be silent, as in every command and worker."""
    warnings.formatwarning = _warning_line
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may have what a terminal has not
    for chatty in _CHATTY_LOGGERS:
        logging.getLogger(chatty).setLevel(logging.ERROR)


def _warning_line(message: Warning | str, category: type[Warning], *_: object, **__: object) -> str:
    return f"{category.__name__}: {message}\n"
