"""Files are written whole or not at all, and what a kill left is removed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from misure.errors import MisureError
from misure.io.atomic import (
    partial_of,
    remove_abandoned,
    remove_all_abandoned,
    replacing,
    safe_name,
    write_atomically,
)


def test_a_file_takes_its_place_whole(tmp_path):
    path = tmp_path / "folder" / "file"
    write_atomically(path, lambda partial: partial.write_text("old"))
    with replacing(path) as partial:
        partial.write_text("half")
        assert path.read_text() == "old"
    assert path.read_text() == "half"
    assert [file.name for file in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("raised", "expected"), [(OSError(28, "No space left on device"), MisureError), (KeyError("x"), KeyError)]
)
def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path, raised, expected):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(partial):
        partial.write_text("half")
        raise raised

    with pytest.raises(expected):
        write_atomically(path, fail)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


@pytest.fixture
def ended() -> int:
    """The number of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def of(path: Path, **changed: str) -> Path:
    """Name the unfinished file of another process: this one's, with another machine, number or beginning."""
    name = partial_of(path).name.removeprefix(f".{path.name}.").removesuffix(".part")
    owner = dict(zip(("machine", "pid", "began", "token"), name.split("-"), strict=True)) | changed
    return path.with_name(f".{path.name}.{'-'.join(owner.values())}.part")


def test_only_leftovers_of_ended_processes_are_removed(tmp_path, ended):
    path, other = tmp_path / "a[1]", of(tmp_path / "b", pid=str(ended))
    left = [of(path, pid=str(ended)), of(path, began="1"), of(path, pid=str(ended), token="0f")]
    old = left[0].with_name(f"{left[0].name}.old")
    kept = [partial_of(path), of(path, token="0f"), other, of(path, machine="01234567", pid="1"), tmp_path / ".a.part"]
    old.mkdir()
    for file in (*left, *kept):
        file.write_text("half")
    remove_abandoned(path)
    assert {*tmp_path.iterdir()} == {*kept}
    remove_all_abandoned(tmp_path)
    assert {*tmp_path.iterdir()} == {*kept} - {other}


@pytest.mark.parametrize("name", ["{machine}", ".probe-7", ".x.7.part", f".x.7.{'0' * 32}.part"])
def test_what_no_process_here_can_own_is_removed_when_it_is_old(tmp_path, name):
    """Of another machine or container, where all have process number 1, and of versions that noted that alone."""
    left = of(tmp_path / "x", machine="01234567", pid="1") if name == "{machine}" else tmp_path / name
    left.mkdir()
    (left / "inside").write_text("half")
    remove_all_abandoned(tmp_path)
    assert left.exists()
    for path in (left / "inside", left):
        os.utime(path, (0, 0))
    remove_all_abandoned(tmp_path)
    assert not left.exists()


def test_files_of_other_programs_stay_however_old(tmp_path):
    names = [".part", ".video.part", "x.7.part", ".x.old", ".probe-x"]
    for name in names:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    remove_all_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*names}


@pytest.mark.parametrize("name", ["n" * 250, "\N{GRINNING FACE}" * 60])
def test_the_longest_names_are_written_and_their_leftovers_found(tmp_path, name, ended):
    path = tmp_path / name
    assert write_atomically(path, lambda partial: partial.write_text("whole")).read_text() == "whole"
    partial = partial_of(path)
    left = partial.with_name(partial.name.replace(f"-{os.getpid()}-", f"-{ended}-"))
    left.write_text("half")
    remove_abandoned(path)
    assert [*tmp_path.iterdir()] == [path]


PLAIN = ["gall_bladder", "traffic light", "Stra\N{LATIN SMALL LETTER SHARP S}e", "unet-resnet34.v1+x", "1"]
ODD = [
    *("", ".", "..", "../../x", "/etc/x", "a/b", "a\\b", "C:\\x", "~", ".hidden", "-rf", " x", "x ", "x.", "a\0b"),
    *("a\nb", "con", "NUL.txt", "com1", "x" * 101, "x" * 5000, "\N{GRINNING FACE}" * 30, "<script>", "a:b", "\ud800"),
    *("\u202egnp.exe", "%2e%2e", "a\tb", "*", "$HOME", "a|b", '"'),
]


def test_any_text_becomes_one_name_inside_the_folder(tmp_path):
    assert [safe_name(name) for name in PLAIN] == PLAIN
    made = [safe_name(name) for name in ODD]
    assert len({*made, *PLAIN}) == len(ODD) + len(PLAIN)
    for name in made:
        (tmp_path / name).write_text("")
    assert {path.name for path in tmp_path.iterdir()} == {*made}
    assert all(re.fullmatch(r"[A-Za-z0-9_]{1,40}-[0-9a-f]{8}", name) for name in made)
