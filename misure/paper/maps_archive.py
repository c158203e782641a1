"""The maps that ship, as one compressed file: what the maps of one sample have in common takes its room once."""

from __future__ import annotations

import lzma
import re
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from misure.io.atomic import replacing
from misure.io.reading import check_size, reading

ARCHIVE = "maps.tar.xz"
_MEMBER = re.compile(r"(?P<unit>[0-9a-f]+)(\.numbers)?\.npz")
_MOST_BYTES = 4_000_000_000
_AT_ONCE = 2**20
_LOOKS_BACK = 64 * 2**20
"""Bytes in which what repeats is found again: of hundreds of maps, and what a reader needs of memory."""


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
        path: From :func:`write_archive`; where there is none, there are no maps.
        into: Made when there are any.
        is_wanted: Says of a unit whether its maps are put there.

    Raises:
        MisureError: If the archive is damaged or holds something else, or the folder cannot be written.
    """
    if not path.exists():
        return
    with reading(path, "get it anew, by git checkout or pip install"), lzma.open(path) as packed:
        n_bytes = 0
        while part := packed.read(_AT_ONCE):  # to the checksum at its end, before anything is put anywhere
            n_bytes += len(part)
            check_size(path, n_bytes, _MOST_BYTES)
        packed.seek(0)
        with tarfile.open(fileobj=packed) as archive:
            for member in archive:
                found, content = _MEMBER.fullmatch(member.name), archive.extractfile(member)
                if found is None or content is None or not member.isreg():
                    raise ValueError(f"{member.name!r} is no file of maps")
                if is_wanted(found["unit"]) and not (into / member.name).exists():
                    with replacing(into / member.name) as partial, partial.open("wb") as file:
                        shutil.copyfileobj(content, file)
