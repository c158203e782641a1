"""Shelves: the records of one method on one setup, each in a file of its own, seen without opening what was seen."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from misure.errors import MisureError
from misure.io.reading import check_size, reading
from misure.sweep.schema import check_record

LOOSE = ".jsonl"
"""Ending of a record in a file of its own."""

_MOST_BYTES = 50_000_000

Stamp = tuple[int, int, int]
"""When a file was changed, its size and its number: another one once it was written anew."""


class Found(NamedTuple):
    """What is known of a record without its numbers.

    Attributes:
        status: ``done``, ``skipped`` or ``failed``.
        reason: Why it was skipped or failed.
        profile: In which it was made.
        precision: Of the network's passes; None in records of versions that did not tell.
    """

    status: str
    reason: str
    profile: str
    precision: str | None

    @classmethod
    def of(cls, rows: list[dict[str, Any]]) -> Found:
        """Take what is known from a record's first line."""
        first = rows[0]
        return cls(first["status"], first.get("reason") or "", first["profile"], first.get("precision"))


@dataclass(eq=False)
class Shelf:
    """The records of one method on one setup.

    Attributes:
        folder: Holds a file per record, named by its unit.
    """

    folder: Path
    _seen: dict[str, tuple[Stamp, Found]] = field(default_factory=dict, init=False, repr=False)

    def path(self, unit: str) -> Path:
        """Where a unit's record lies."""
        return self.folder / f"{unit}{LOOSE}"

    def find(self, units: Iterable[str]) -> dict[str, Found]:
        """Look for records by one listing of the folder; what was read before and is unchanged is not opened again.

        Returns:
            What is there and whole, by unit.
        """
        listed = listing(self.folder, LOOSE)
        found = {unit: self._look(unit, listed[unit]) for unit in units if unit in listed}
        return {unit: known for unit, known in found.items() if known}

    def find_one(self, unit: str) -> Found | None:
        """Look for a record where another process may just have written it."""
        stamp = stamp_of(self.path(unit))
        return self._look(unit, stamp) if stamp else None

    def _look(self, unit: str, stamp: Stamp) -> Found | None:
        if unit not in self._seen or self._seen[unit][0] != stamp:
            try:
                self._seen[unit] = stamp, Found.of(read_record(self.path(unit)))
            except MisureError:
                return None
        return self._seen[unit][1]


def listing(folder: Path, ending: str) -> dict[str, Stamp]:
    """Return the files of a folder with some ending, by their names without it; none where it cannot be read."""
    found = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(ending):
                with contextlib.suppress(OSError):  # removed since, or a link to nothing
                    found[entry.name.removesuffix(ending)] = _stamp(entry.stat())
    return found


def stamp_of(path: Path) -> Stamp | None:
    """Return what tells a file from what it was before; None where there is none."""
    try:
        return _stamp(path.stat())
    except OSError:
        return None


def _stamp(stat: os.stat_result) -> Stamp:
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def read_record(path: Path) -> list[dict[str, Any]]:
    """Read a record in a file of its own.

    Raises:
        MisureError: Unless it is whole and as the schema says.
    """
    with reading(path, "it counts as absent, so that a run makes it anew"):
        if not path.is_file():  # reading a pipe would never end
            raise ValueError("it is no file")
        check_size(path, path.stat().st_size, _MOST_BYTES)
        lines = path.read_text(encoding="utf-8").split("\n")
        rows = [_DECODER.decode(line) for line in lines if line]
        check_record(path.stem, rows)
    return rows


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
