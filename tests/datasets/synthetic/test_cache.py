"""Generating files once: kills, a second process, and what is in the way."""

from __future__ import annotations

import errno
import multiprocessing

import pytest
from forked import forked

from misure.datasets.synthetic.cache import generate_once
from misure.datasets.synthetic.phantom import PhantomSpec
from misure.datasets.synthetic.scenes import SceneSpec
from misure.errors import MisureError


def generate_halfway(home, connection) -> None:
    """Generate one of two files, say so, and go on when told to."""

    def write(folder):
        folder.mkdir(parents=True)
        (folder / "first").write_text("1")
        connection.send("halfway")
        connection.recv()
        (folder / "second").write_text("2")

    connection.send(generate_once(home, write))


def write_both(folder) -> None:
    folder.mkdir(parents=True)
    for name, content in (("first", "1"), ("second", "2")):
        (folder / name).write_text(content)


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def other_process(tmp_path):
    """A process that is halfway, and the connection to it."""
    here, there = multiprocessing.Pipe()
    with forked(generate_halfway, tmp_path / "home", there) as process:
        assert here.recv() == "halfway"
        yield process, here


def test_what_a_killed_process_leaves_is_not_used(tmp_path, other_process):
    process, _ = other_process
    process.kill()
    process.join()
    (left,) = tmp_path.glob("*.part")
    assert names(left) == {"first"}
    home = generate_once(tmp_path / "home", write_both)
    assert names(home) == {"first", "second"}
    assert list(tmp_path.iterdir()) == [home]
    assert generate_once(home, None) == home  # nothing is written again


def test_two_processes_generate_once(tmp_path, other_process):
    process, connection = other_process
    connection.send("go on")
    home = generate_once(tmp_path / "home", None)  # the other one writes it
    assert names(home) == {"first", "second"}
    assert connection.recv() == home
    process.join()
    assert process.exitcode == 0
    assert list(tmp_path.iterdir()) == [home]


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "taken").write_text("not a folder")
    with pytest.raises(MisureError, match=r"^cannot write .*home\.lock: (File exists|Not a directory); .*$"):
        generate_once(tmp_path / "taken" / "home", write_both)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    def full(folder):
        folder.mkdir()
        (folder / "first").write_text("1")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(MisureError, match=r"^cannot write .*home: No space left on device; free .*$"):
        generate_once(tmp_path / "home", full)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (SceneSpec, "train_images", 0),
        (SceneSpec, "val_images", 100_001),
        (SceneSpec, "size", 1025),
        (PhantomSpec, "train_volumes", 19),
        (PhantomSpec, "slices", 9),
        (PhantomSpec, "seed", -1),
    ],
)
def test_impossible_specifications_are_one_line(kind, field, value):
    with pytest.raises(MisureError, match=rf"^\w+\.{field}={value} is not a number from .*$"):
        kind(**{field: value})
