"""The archive of maps that ships: what goes in comes out, and nothing else ever does."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

import numpy as np
import pytest

from misure.errors import MisureError
from misure.paper.maps_archive import ARCHIVE, extract_archive, write_archive

SIZE = 20_000


def made(folder: Path, n: int = 3) -> list[Path]:
    """Files of equal random bytes, as the images of one sample are."""
    folder.mkdir()
    content = np.random.default_rng(0).bytes(SIZE)
    files = [folder / f"{number:04x}{'' if number % 2 else '.numbers'}.npz" for number in range(n)]
    for file in files:
        file.write_bytes(content)
    return files


def test_what_goes_in_comes_out_but_what_is_there_stays(tmp_path: Path) -> None:
    files = made(tmp_path / "files")
    write_archive(tmp_path / ARCHIVE, files)
    (into := tmp_path / "into").mkdir()
    (into / files[1].name).write_bytes(b"own")
    extract_archive(tmp_path / ARCHIVE, into, lambda unit: unit != "0002")
    assert {path.name: path.read_bytes() for path in into.iterdir()} == {
        files[0].name: files[0].read_bytes(),
        files[1].name: b"own",
    }


def test_equal_files_make_equal_archives_and_what_repeats_takes_its_room_once(tmp_path: Path) -> None:
    first, second = made(tmp_path / "first", 10), made(tmp_path / "second", 10)
    sizes = [write_archive(tmp_path / f"{n}.tar.xz", files) for n, files in enumerate((first, second, first[:1]))]
    assert (tmp_path / "0.tar.xz").read_bytes() == (tmp_path / "1.tar.xz").read_bytes()
    assert SIZE < sizes[2] <= sizes[0] < 1.1 * SIZE


def test_a_missing_archive_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MisureError, match=f"{ARCHIVE} cannot be read"):
        extract_archive(tmp_path / ARCHIVE, tmp_path / "into")
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("name", ["../00ff.npz", "/tmp/00ff.npz", "a/00ff.npz", "00ff.txt", "00ff.npz.py", "00FF.npz"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE])
def test_an_archive_of_something_else_is_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    with tarfile.open(tmp_path / ARCHIVE, "w:xz") as archive:
        archive.addfile(tarfile.TarInfo("00aa.npz"))
        member = tarfile.TarInfo(name if kind == tarfile.REGTYPE else "00ff.npz")
        member.type, member.linkname = kind, "/etc/hostname"
        member.size = 3 if kind == tarfile.REGTYPE else 0
        archive.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(MisureError, match=ARCHIVE):
        extract_archive(tmp_path / ARCHIVE, tmp_path / "inside" / "into")
    assert {path.name for path in tmp_path.iterdir()} == {ARCHIVE}


def test_what_is_packed_twice_is_refused_for_its_size_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "inner.tar.gz").touch()
    with tarfile.open(tmp_path / "inner.tar.gz", "w:gz") as inner:
        inner.addfile(tarfile.TarInfo("00ff.npz"))
    (tmp_path / ARCHIVE).write_bytes(lzma.compress((tmp_path / "inner.tar.gz").read_bytes()))
    with pytest.raises(MisureError, match=f"{ARCHIVE} cannot be read"):
        extract_archive(tmp_path / ARCHIVE, tmp_path / "into")


def test_what_cannot_be_written_is_not_said_to_be_damaged(tmp_path: Path) -> None:
    write_archive(tmp_path / ARCHIVE, made(tmp_path / "files"))
    (tmp_path / "into").write_text("a file where the folder goes")
    with pytest.raises(MisureError, match="cannot write"):
        extract_archive(tmp_path / ARCHIVE, tmp_path / "into")


@pytest.mark.parametrize("kept", [0, 10, 500, -1])
def test_a_damaged_archive_is_one_line(tmp_path: Path, kept: int) -> None:
    write_archive(tmp_path / ARCHIVE, made(tmp_path / "files"))
    (tmp_path / ARCHIVE).write_bytes((tmp_path / ARCHIVE).read_bytes()[:kept])
    with pytest.raises(MisureError, match=f"{ARCHIVE} cannot be read") as raised:
        extract_archive(tmp_path / ARCHIVE, tmp_path / "into")
    assert "\n" not in str(raised.value)
    assert not [*tmp_path.glob("into/*.part")]


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    write_archive(tmp_path / ARCHIVE, made(tmp_path / "files"))
    content = bytearray((tmp_path / ARCHIVE).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / ARCHIVE).write_bytes(content)
    with pytest.raises(MisureError, match="cannot be read"):
        extract_archive(tmp_path / ARCHIVE, tmp_path / "into")


def test_the_archive_is_one_that_xz_opens(tmp_path: Path) -> None:
    files = made(tmp_path / "files")
    write_archive(tmp_path / ARCHIVE, files)
    assert lzma.decompress((tmp_path / ARCHIVE).read_bytes(), lzma.FORMAT_XZ).count(files[0].read_bytes()) == len(files)
