"""A compacted file: many records as JSON lines under gzip, some hundreds at a time, so that damage stays local."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

from misure.errors import MisureError, brief
from misure.io.atomic import write_atomically
from misure.io.listing import Stamp, stamp_of
from misure.io.reading import check_size, reading
from misure.sweep.schema import all_fit, check_record, decoded

Records = dict[str, list[dict[str, Any]]]
"""The lines of records, by unit."""

_MOST_PACKED, _MOST_UNPACKED = 500_000_000, 2_000_000_000
_TOGETHER = 500
"""Records in one member of the gzip file, each of which has its own checksum."""

_MEMBER = b"\x1f\x8b\x08"
"""Bytes that a member begins with."""


def read_compacted(path: Path) -> tuple[Records, dict[str, str]]:
    """Read a compacted file as far as it is whole.

    Args:
        path: The file; where there is none, there are no records.

    Returns:
        Records, and what is wrong with others by their unit; with the file itself under an empty one.
    """
    records, damaged, whole = Records(), dict[str, str](), True
    try:
        with reading(path, "its records count as absent, so that a run makes them anew"):
            if not path.exists():
                return records, damaged
            if not path.is_file():  # reading a pipe would never end
                raise ValueError("it is no file")
            check_size(path, path.stat().st_size, _MOST_PACKED)
            for member in _members(path.read_bytes()):
                whole = whole and member is not None
                records |= _checked(path, member or {}, damaged)
    except MisureError as error:
        return Records(), {"": str(error)}
    if not whole:
        damaged[""] = f"{path} is damaged, {len(records)} records of it could be read: a run makes the others anew"
    return records, damaged


def _checked(path: Path, records: Records, damaged: dict[str, str]) -> Records:
    """Return the records that are as the schema says; what is wrong with others is noted."""
    values_fit = all_fit(chain.from_iterable(records.values()))
    for unit, rows in records.items():
        try:
            check_record(unit, rows, values_fit=values_fit)
        except (ValueError, TypeError) as error:
            damaged[unit] = f"{path}: the record of {unit} is none ({brief(error)}): a run makes it anew"
    return {unit: rows for unit, rows in records.items() if unit not in damaged}


def _members(packed: bytes) -> Iterator[Records | None]:
    """Yield the records of the members of a gzip file, and None for anything else in it."""
    for text in _unpacked(packed):
        try:
            rows = [decoded(line) for line in (b"{}" if text is None else text).decode().split("\n") if line]
            yield {unit: [*own] for unit, own in groupby(rows, key=lambda row: str(row["unit"]))}
        except (ValueError, TypeError, KeyError, RecursionError):
            yield None


def _unpacked(packed: bytes) -> Iterator[bytes | None]:
    """Yield what the members of a gzip file hold where their checksums say that they are whole, else None."""
    start, room = 0, _MOST_UNPACKED
    if not packed:
        yield None
    while 0 <= start < len(packed):
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        text = None
        with contextlib.suppress(zlib.error):
            text = member.decompress(memoryview(packed)[start:], room)
            room -= len(text)
        if room <= 0:
            raise ValueError(f"it unpacks to more than the {_MOST_UNPACKED / 1e9:g} GB that are read")
        yield text if member.eof else None
        start = len(packed) - len(member.unused_data) if member.eof else packed.find(_MEMBER, start + 1)


def write_compacted(
    path: Path, records: Mapping[str, list[dict[str, Any]]], before: Stamp | None, *, hint: str = ""
) -> None:
    """Write records into one file, whole or not at all, and read it back before it takes its place.

    Args:
        path: The file.
        records: All that it holds from then on.
        before: The file that it takes the place of, as it was when its records were read.
        hint: Added to an error's advice.

    Raises:
        MisureError: If the place cannot be written, what was written is not read as it was, or another process wrote
            the file meanwhile, where locks do not work.
    """
    rest = iter(records.values())
    texts = []
    while some := [*islice(rest, _TOGETHER)]:
        texts.append("".join(json.dumps(row, allow_nan=False) + "\n" for row in chain.from_iterable(some)).encode())

    def write(partial: Path) -> None:
        partial.write_bytes(b"".join(gzip.compress(text, compresslevel=6, mtime=0) for text in texts))
        if sum(map(len, texts)) >= _MOST_UNPACKED or [*_unpacked(partial.read_bytes())] != texts:
            raise OSError("it would not be read as it is written")
        if stamp_of(path) != before:
            raise OSError("another process has written it meanwhile")

    write_atomically(path, write, hint=hint)
