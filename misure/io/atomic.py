"""Writing files and folders whole or not at all, under names that are safe whatever they come from."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import psutil

from misure.errors import UnwritableError, brief

PARTIAL = ".part"
"""Ending of what is not written to its end, so that no reader's pattern matches what a kill leaves."""

DAMAGED = ".damaged"
"""Ending of what could not be read and was put aside."""

_OWNED = re.compile(r"\.([0-9a-f]{8})-(\d+)-(\w*)-[0-9a-f]*\.part")
"""What tells in a partial file's name who writes it: machine, process, when the process began, and a token."""

_OF_OLDER_VERSIONS = re.compile(r"\..+\.\d+(\.[0-9a-f]{32})?\.part(\.old)?|\.probe-\d+")

_ABANDONED_AFTER = 24 * 3600
"""Seconds without a change after which a file of a process that cannot be seen from here is taken to be abandoned."""

_PLAIN = re.compile(r"\w[\w.+ -]*(?<![. ])")
_LONGEST = 100
_DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(1, 10))}
"""Names that Windows keeps for itself, with any ending."""


def safe_name(text: str, longest: int = _LONGEST) -> str:
    """Return a text as the name of a file or folder, whatever it holds; different texts have different names.

    Args:
        text: Any, such as the name of a class in a record.
        longest: Bytes of a name at most, 49 or more.

    Returns:
        The text itself if it is a plain name: letters, digits and ``_.+-`` or spaces inside, not too long, and
        nothing that a system reads in its own way. Else what is plain of it, with 8 digits that tell it from others.
    """
    encoded = text.encode(errors="surrogatepass")
    plain = _PLAIN.fullmatch(text) and len(encoded) <= longest
    if plain and text.partition(".")[0].casefold() not in _DEVICES:
        return text
    kept = re.sub(r"[^A-Za-z0-9]+", "_", text)[:40].strip("_") or "name"
    return f"{kept}-{hashlib.sha256(encoded).hexdigest()[:8]}"


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
    partial = partial_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        advice = f"free space or choose another folder{hint}"
        raise UnwritableError(f"cannot write {path}: {brief(error)}; {advice}") from error
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


def partial_of(path: Path, token: str = "") -> Path:
    """Name what this process writes before it takes the place of ``path``; no process on any machine has the name.

    Args:
        path: What is written.
        token: Hexadecimal digits that tell threads apart, where several may write the same.
    """
    pid = os.getpid()
    return path.with_name(f"{_beginning(path)}{_machine()}-{pid}-{_began(pid)}-{token}{PARTIAL}")


def remove_abandoned(path: Path) -> None:
    """Remove what processes that no longer run left half-written of a file, or of a folder that is written likewise."""
    for left in path.parent.glob(f"{glob.escape(_beginning(path))}*{PARTIAL}*"):
        if _is_abandoned(left):
            _remove(left)


def remove_all_abandoned(folder: Path) -> None:
    """Remove what processes that no longer run left half-written in a folder, and three levels of folders in it."""
    for left in [path for depth in range(4) for path in folder.glob("*/" * depth + ".*")]:
        if (_OWNED.search(left.name) or _OF_OLDER_VERSIONS.fullmatch(left.name)) and _is_abandoned(left):
            _remove(left)


def _beginning(path: Path) -> str:
    """Return how the name of a partial file begins, which leaves room for its end where names are long."""
    fits = len(os.fsencode(path.name)) <= 2 * _LONGEST
    return f".{path.name if fits else safe_name(path.name)}."


def _is_abandoned(left: Path) -> bool:
    """Say whether nobody writes a partial file any more.

    Of a process that is not seen from here (on another machine, in another container, before a restart, of an older
    version) that is known by the age of the last change alone.
    """
    if (owner := _OWNED.search(left.name)) and owner[1] == _machine():
        return not _runs(int(owner[2]), owner[3])
    try:
        newest = max(path.lstat().st_mtime for path in (left, *left.rglob("*")))
    except OSError:
        return False
    return time.time() - newest > _ABANDONED_AFTER


@cache
def _machine() -> str:
    """8 digits that are equal for processes that see each other's numbers: of one start of one machine or container."""
    identity = [platform.node()]
    with contextlib.suppress(OSError):
        identity.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        identity.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()[:8]


def _began(pid: int) -> str:
    """Return when a process began, in the kernel's ticks; empty where that cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if fields[0] in {"Z", "X"} else fields[19]


def _runs(pid: int, began: str) -> bool:
    """Say whether the process of a number still runs, and is no later one that got the same number."""
    return psutil.pid_exists(pid) and (not began or _began(pid) in {began, ""})


def _remove(path: Path) -> None:
    """Remove a file or folder, as far as that is possible."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
