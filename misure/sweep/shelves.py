"""Shelves: the records of one method on one setup, each in a file of its own or many in a compacted one beside them."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from misure.errors import MisureError
from misure.io.atomic import DAMAGED, partial_of, write_atomically
from misure.io.listing import Stamp, listing, stamp_of
from misure.io.reading import check_size, reading
from misure.sweep.compaction import Records, read_compacted, write_compacted
from misure.sweep.schema import check_record, decoded

LOOSE, COMPACTED = ".jsonl", ".jsonl.gz"
"""Endings of a record in a file of its own, named by its unit, and of a shelf's compacted file, named as its folder."""

WITHOUT_MAPS = "without_maps"
"""A record's column: true where its maps were left out when it was packed, so that a run does not make it anew."""

_MOST_BYTES = 50_000_000


class Found(NamedTuple):
    """What is known of a record without its numbers.

    Attributes:
        status: ``done``, ``skipped`` or ``failed``; empty where it is damaged.
        reason: Why it was skipped or failed.
        profile: In which it was made.
        created: When it was made.
        precision: Of the network's passes; None in records of versions that did not tell.
        without_maps: Whether its maps were left out where it was packed.
    """

    status: str = ""
    reason: str = ""
    profile: str = ""
    created: str = ""
    precision: str | None = None
    without_maps: bool = False

    @classmethod
    def of(cls, rows: list[dict[str, Any]]) -> Found:
        """Take what is known from a record's first line."""
        first = rows[0]
        told = first["status"], first.get("reason") or "", first["profile"], first["created"]
        return cls(*told, first.get("precision"), bool(first.get(WITHOUT_MAPS)))


@dataclass(eq=False)
class Shelf:
    """The records of one method on one setup.

    Files are looked for before the compacted one, into which they move before they are removed: whoever looks while
    records are compacted finds each of them. A file counts before a compacted record of the same unit.

    Attributes:
        folder: Holds a file per record.
    """

    folder: Path
    _loose: dict[str, tuple[Stamp, Found]] = field(default_factory=dict, init=False, repr=False)
    _kept: tuple[Stamp | None, dict[str, Found]] = field(default=(None, {}), init=False, repr=False)

    @property
    def compacted(self) -> Path:
        """Where records are that were compacted."""
        return self.folder.with_name(self.folder.name + COMPACTED)

    def path(self, unit: str) -> Path:
        """Where a unit's record is written."""
        return self.folder / f"{unit}{LOOSE}"

    def find(self, units: Iterable[str]) -> dict[str, Found]:
        """Look for records by one listing of the folder; what was read before and is unchanged is not opened again."""
        units, files = [*units], listing(self.folder, LOOSE)
        loose = {unit: self._look(unit, stamp_of(files[unit])) for unit in units if unit in files}
        kept = self._look_at_compacted()
        return {unit: found for unit in units if (found := loose.get(unit) or kept.get(unit))}

    def find_one(self, unit: str) -> Found | None:
        """Look for a record where another process may just have written it."""
        return self._look(unit, stamp_of(self.path(unit))) or self._look_at_compacted().get(unit)

    def _look(self, unit: str, stamp: Stamp | None) -> Found | None:
        """Return what a record in a file of its own says; None where there is none, or none any more."""
        if stamp and self._loose.get(unit, (None,))[0] != stamp:
            try:
                self._loose[unit] = stamp, Found.of(read_record(self.path(unit)))
            except MisureError:
                return Found() if os.path.lexists(self.path(unit)) else None
        return self._loose[unit][1] if stamp else None

    def _look_at_compacted(self) -> dict[str, Found]:
        stamp = stamp_of(self.compacted)
        if stamp != self._kept[0]:
            self._kept = stamp, {unit: Found.of(rows) for unit, rows in read_compacted(self.compacted)[0].items()}
        return self._kept[1]

    def read(self) -> tuple[Records, dict[Path, str]]:
        """Read all records, in the order of their units, and say what is wrong with others by their files."""
        damaged = dict[Path, str]()
        records = self._read_loose(listing(self.folder, LOOSE), damaged)
        kept, wrong = read_compacted(self.compacted)
        damaged |= {self.path(unit) if unit else self.compacted: reason for unit, reason in wrong.items()}
        records = {unit: rows for unit, rows in kept.items() if self.path(unit) not in damaged} | records
        return dict(sorted(records.items())), damaged

    def _read_loose(self, units: Iterable[str], damaged: dict[Path, str] | None = None) -> Records:
        records = Records()
        for unit in units:
            path = self.path(unit)
            try:
                records[unit] = read_record(path)
            except MisureError as error:
                if damaged is not None and os.path.lexists(path):  # else it was compacted since
                    damaged[path] = str(error)
        return records

    def count(self) -> int:
        """Return how many records there are, whole or damaged."""
        return len({*listing(self.folder, LOOSE), *self._look_at_compacted()})

    def compact(self, worth: int, *, hint: str = "") -> int:
        """Move records that nobody makes again into the compacted file; one process at a time may do that.

        Args:
            worth: Fewer stay as they are.
            hint: Added to an error's advice.

        Returns:
            How many were moved.

        Raises:
            MisureError: If they cannot be written; all are where they were.
        """
        files = listing(self.folder, LOOSE)
        stamps = {unit: stamp_of(file) for unit, file in files.items() if len(files) >= worth}
        complete = {unit: rows for unit, rows in self._read_loose(stamps).items() if rows[0]["status"] != "failed"}
        if len(complete) < worth or not complete:
            return 0
        self._put(complete, hint)
        aside = partial_of(self.compacted)
        return sum(_remove(self.path(unit), stamps[unit], aside) for unit in complete)

    def add(self, records: Records, *, hint: str = "") -> int:
        """Put records that were made elsewhere into the compacted file, as far as it and the folder have none of them.

        Returns:
            How many were put there.

        Raises:
            MisureError: If they cannot be written.
        """
        there = self.find(records)
        new = {unit: rows for unit, rows in records.items() if not there.get(unit, Found()).status}
        if new:
            self._put(new, hint)
        return len(new)

    def _put(self, records: Records, hint: str) -> None:
        """Write the compacted file anew, with further records; what was damaged is put aside."""
        before = stamp_of(self.compacted)
        kept, damaged = read_compacted(self.compacted)
        if damaged:
            aside = self.compacted.with_name(self.compacted.name + DAMAGED)
            write_atomically(aside, lambda partial: shutil.copyfile(self.compacted, partial), hint=hint)
        write_compacted(self.compacted, dict(sorted((kept | records).items())), before, hint=hint)


def _remove(path: Path, stamp: Stamp | None, aside: Path) -> bool:
    """Remove a file by another name, so that it goes back if it turns out to be written anew."""
    with contextlib.suppress(OSError):
        path.rename(aside)
        if stamp_of(aside) == stamp:
            aside.unlink()
            return True
        aside.rename(path)
    return False


def read_record(path: Path) -> list[dict[str, Any]]:
    """Read a record in a file of its own.

    Raises:
        MisureError: Unless it is whole and as the schema says.
    """
    with reading(path, "it counts as absent, so that a run makes it anew"):
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # reading a pipe would never end
            raise ValueError("it is no file")
        check_size(path, state.st_size, _MOST_BYTES)
        rows = [decoded(line) for line in path.read_bytes().decode().split("\n") if line]
        check_record(path.stem, rows)
    return rows
