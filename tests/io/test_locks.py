"""One process at a time holds a lock, whatever its number, and a killed one gives it back."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from misure.errors import MisureError
from misure.io import locks
from misure.io.locks import Lock, alone

HOLDER = """
import os, sys, time
from pathlib import Path
os.getpid = lambda: 1  # as in a container
from misure.io.locks import Lock
held = Lock(Path(sys.argv[1]))
assert held.take()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "toy.lock"


@pytest.fixture
def holder(path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_another_process_of_the_same_number_is_kept_out_until_it_is_killed(path, holder, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert not Lock(path).take()
    events = []

    def kill() -> None:
        events.append("waits")
        holder.send_signal(signal.SIGKILL)

    started = time.monotonic()
    with alone(path, busy=kill):
        events.append("goes on")
    assert events == ["waits", "goes on"]
    assert time.monotonic() - started < 30
    assert list(path.parent.iterdir()) == []


def test_a_lock_is_held_once_and_leaves_no_file(path):
    first, second = Lock(path), Lock(path)
    assert first.take()
    assert not second.take()
    first.release()
    first.release()
    assert second.take()
    with pytest.raises(RuntimeError, match="inside"), alone(path.with_name("other.lock"), busy=pytest.fail):
        raise RuntimeError("inside")
    second.release()
    assert list(path.parent.iterdir()) == []


def test_a_file_that_its_holder_removed_is_not_taken_for_the_lock(path, monkeypatch):
    """Between opening and locking, the holder removes the file and another process makes a new one."""
    first, second = Lock(path), Lock(path)
    lock, calls = locks.fcntl.flock, []

    def overtaken(file, how):
        calls.append(file)
        if len(calls) == 1:
            path.unlink()
        lock(file, how)

    monkeypatch.setattr(locks.fcntl, "flock", overtaken)
    assert first.take()
    assert len(calls) == 2
    assert not second.take()
    first.release()


def test_a_place_without_locks_is_named_and_one_that_cannot_be_written_is_an_error(path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="has no locks: let one process at a time use it"):
        assert Lock(path).take()
    path.parent.joinpath("file").write_text("")
    with pytest.raises(MisureError, match="cannot write"):
        Lock(path.parent / "file" / "toy.lock").take()
