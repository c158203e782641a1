"""Files are written whole or not at all, and what a kill left is removed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from misure.errors import MisureError
from misure.io.atomic import remove_abandoned, replacing, write_atomically


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


def test_only_leftovers_of_ended_processes_are_removed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    left, alive, other = (
        tmp_path / name for name in (f".a[1].{ended.pid}.part", ".a[1].1.part", f".b.{ended.pid}.part")
    )
    for file in (left, alive, other):
        file.write_text("half")
    folder = tmp_path / f".a[1].{ended.pid}.part.old"
    folder.mkdir()
    remove_abandoned(tmp_path / "a[1]")
    assert {*tmp_path.iterdir()} == {alive, other}
