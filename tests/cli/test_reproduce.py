"""How a run begins: the folder can be written, and what ended processes left there is gone."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace

import pytest
from forked import forked

from misure.cli.reproduce import begin
from misure.errors import MisureError
from misure.io.atomic import partial_of
from misure.io.locks import Lock
from misure.sweep.records import RecordStore, Unit

UNIT = Unit("triangle", "f" * 16, "unet", "1234567890123456", "msr", {}, 7, 1)


def leave(outputs, connection=None) -> None:
    """Leave an unfinished record and a claim, as a process that is killed does."""
    store = RecordStore(outputs / "records")
    store.claim(UNIT).take()
    store.path(UNIT).parent.mkdir(parents=True)
    partial_of(store.path(UNIT)).write_text("half")
    os._exit(0)


def test_a_run_removes_what_ended_ones_left_and_nothing_of_a_living_one(tmp_path):
    store = RecordStore(tmp_path / "records")
    with forked(leave, tmp_path) as process:
        process.join()
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2
    mine = partial_of(tmp_path / "records" / "x.jsonl")
    mine.write_text("half")
    claim: Lock = store.claim(replace(UNIT, sample=8))
    assert claim.take()
    begin(tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {mine, claim.path}
    assert not store.claim(replace(UNIT, sample=8)).take()
    claim.release()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {mine}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")])
def test_a_folder_that_takes_nothing_is_one_line_and_stays_as_it_was(tmp_path, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(MisureError, match=rf"^cannot write .*: {error.strerror}; free space or set outputs=.*$"):
        begin(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_probe_leaves_no_name(tmp_path):
    begin(tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())
