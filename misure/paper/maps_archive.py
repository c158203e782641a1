"""The maps that ship, as one compressed file: what the maps of one sample have in common takes its room once."""

from __future__ import annotations

import contextlib
import lzma
import re
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, cast

from misure.io.atomic import replacing
from misure.io.reading import check_size, reading
from misure.paper.reference import GET_ANEW

ARCHIVE = "maps.tar.xz"
_MEMBER = re.compile(r"(?P<unit>[0-9a-f]+)(\.numbers)?\.npz")
_MOST_BYTES = 4_000_000_000
_AT_ONCE = 2**20
_LOOKS_BACK = 64 * 2**20
"""Bytes in which what repeats is found again: hundreds of maps. A reader needs as much memory, a writer ten times."""


def write_archive(path: Path, files: Sequence[Path]) -> int:
    """Write files of maps into one archive, equal bytes for equal files, and return its size in bytes."""
    n_bytes = sum(file.stat().st_size for file in files)
    looks_back = min(max(n_bytes, 4096), _LOOKS_BACK)  # 4096 is xz's least
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": looks_back}]
    with lzma.open(path, "wb", filters=filters) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for file in files:
            member = tarfile.TarInfo(file.name)
            member.size = file.stat().st_size
            with file.open("rb") as content:
                archive.addfile(member, content)
    return path.stat().st_size


def extract_archive(path: Path, into: Path, is_wanted: Callable[[str], bool] = lambda _: True) -> None:
    """Put files of maps into a folder where they are not there yet.

    Args:
        path: From :func:`write_archive`.
        into: Made when there are any.
        is_wanted: Says of a unit whether its maps are put there.

    Raises:
        MisureError: If the archive is missing, damaged or holds something else, or the folder cannot be written.
    """
    with contextlib.ExitStack() as opened:
        with reading(path, GET_ANEW):
            packed = opened.enter_context(lzma.open(path))
            archive = opened.enter_context(tarfile.open(fileobj=packed, mode="r:"))
            members = _checked(path, archive)
            while packed.read(_AT_ONCE):  # to the checksum at its end, before anything is put anywhere
                pass
        for unit, member in members:
            if is_wanted(unit) and not (into / member.name).exists():
                with reading(path, GET_ANEW), cast("IO[bytes]", archive.extractfile(member)) as stream:
                    content = stream.read()
                with replacing(into / member.name) as partial:
                    partial.write_bytes(content)


def _checked(path: Path, archive: tarfile.TarFile) -> list[tuple[str, tarfile.TarInfo]]:
    """Return the members of an archive with their units, unless there is one that is no file of maps."""
    members = []
    for member in archive:
        found = _MEMBER.fullmatch(member.name)
        if found is None or member.type != tarfile.REGTYPE:
            raise ValueError(f"{member.name!r} is no file of maps")
        members.append((found["unit"], member))
    check_size(path, sum(member.size for _, member in members), _MOST_BYTES)
    return members
