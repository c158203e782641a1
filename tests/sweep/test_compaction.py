"""Compacted records: nothing is lost on the way, whatever ends it, and damage costs what is damaged."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from forked import forked

from misure.io.atomic import remove_all_abandoned
from misure.io.locks import Lock
from misure.sweep import compaction, shelves
from misure.sweep.records import RecordStore, Unit

UNIT = Unit("triangle", "f" * 16, "unet", "1234567890123456", "msr", {"lr": 0.1, "thresholds": [0.2, 0.4]}, 0, 1)
UNITS = [replace(UNIT, sample=sample, explainer=name) for name in ("msr", "rise") for sample in range(5)]
ROW = {"created": "2026-11-28T10:00:00+00:00", "profile": "quick", "dataset_source": "toy", "stand_in": False}
ROW |= {"status": "done", "reason": None, "perturbation_ratio": 1.0, "param_pi": 0.1 + 0.2}


def write(store: RecordStore, unit: Unit, **changed: object) -> None:
    store.write(unit, [{**ROW, "threshold": t, "dice_explained": t / 3, **changed} for t in (0.2, 0.4)])


@pytest.fixture
def store(tmp_path) -> RecordStore:
    """Ten records of two methods, one of which failed."""
    made = RecordStore(tmp_path / "records")
    for unit in UNITS:
        write(made, unit, **({"status": "failed", "reason": "x"} if unit is UNITS[1] else {}))
    return made


def loose(store: RecordStore) -> set[str]:
    return {path.stem for path in store.folder.rglob("*.jsonl")}


def test_compacted_records_are_read_as_before(store):
    before, units = store.load(), [(unit, "") for unit in [*UNITS, replace(UNIT, sample=99)]]
    outcomes = store.outcomes(units)
    assert store.compact(worth=6) == 0
    assert store.compact(worth=5) == 5  # of the other method four are complete
    assert store.compact(worth=1) == 4
    assert loose(store) == {UNITS[1].id}  # which is made again
    for reader in (store, RecordStore(store.folder)):
        pd.testing.assert_frame_equal(reader.load(), before)
        assert reader.outcomes(units) == [reader.outcome(*unit) for unit in units] == outcomes
        assert reader.count() == 10
    write(store, UNITS[1])
    write(store, replace(UNIT, sample=99))
    write(store, UNITS[2], dice_explained=0.75)
    for _ in range(2):
        found = store.load()
        assert found["unit"].nunique() == 11
        assert set(found.loc[found["unit"] == UNITS[2].id, "dice_explained"]) == {0.75}
        assert {outcome.status for outcome in store.outcomes(units)} == {"done"}
        store.compact(worth=1)
    assert not loose(store)
    assert [path.name for path in store.path(UNIT).parents[1].glob("*")] != []
    assert not [path for path in store.folder.rglob("*") if path.suffix in {".part", ".damaged"}]


def test_a_record_that_changes_while_it_is_compacted_stays(store, monkeypatch):
    packed = shelves.write_compacted
    monkeypatch.setattr(
        shelves, "write_compacted", lambda *a, **k: (packed(*a, **k), write(store, UNITS[0], dice_explained=0.75))
    )
    assert store.compact(worth=5) == 5
    assert store.compact(worth=4) == 3
    assert loose(store) == {UNITS[0].id, UNITS[1].id}
    found = store.load()
    assert set(found.loc[found["unit"] == UNITS[0].id, "dice_explained"]) == {0.75}


def test_one_process_compacts_at_a_time(store):
    claims = store.claim(UNIT).path.parent
    with forked(RecordStore(store.folder).compact, 1) as process:
        process.join()
        assert process.exitcode == 0
    write(store, UNIT)
    other = Lock(claims / "compaction")
    assert other.take()
    assert store.compact(worth=1) == 0
    other.release()
    assert store.compact(worth=1) == 1


def test_another_who_compacts_where_locks_do_not_work_is_noticed(store, monkeypatch):
    dumps = json.dumps

    def meanwhile(*given, **named):
        monkeypatch.setattr(compaction.json, "dumps", dumps)
        write(store, replace(UNIT, sample=77))
        shelves.Shelf(store.path(UNIT).parent).compact(1)
        return dumps(*given, **named)

    monkeypatch.setattr(compaction.json, "dumps", meanwhile)
    with pytest.warns(UserWarning, match="another process"):
        store.compact(worth=4)
    assert store.load()["unit"].nunique() == 11


def compact_until(folder: Path, events: int) -> None:
    """Compact, and be killed before one of the calls that change what there is."""
    calls = itertools.count()

    def kill(event: str, _arguments: object) -> None:
        if event in {"os.rename", "os.remove", "os.mkdir"} and next(calls) == events:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    RecordStore(folder).compact(worth=1)


def test_a_compaction_that_is_killed_anywhere_loses_nothing(store, tmp_path):
    for unit in UNITS[3:-1]:
        store.path(unit).unlink()
    before, units = store.load(), [(unit, "") for unit in UNITS]
    outcomes = store.outcomes(units)
    for events in itertools.count():
        folder = shutil.copytree(store.folder, tmp_path / str(events))
        with forked(compact_until, folder, events) as process:
            process.join()
        killed = RecordStore(folder)
        pd.testing.assert_frame_equal(killed.load(), before)
        assert killed.outcomes(units) == outcomes
        remove_all_abandoned(folder)
        killed.compact(worth=1)
        pd.testing.assert_frame_equal(killed.load(), before)
        assert loose(killed) <= {UNITS[1].id}
        assert not [*folder.rglob("*.part")]
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert events > 7


@pytest.mark.parametrize(
    "read",
    [
        lambda store: {*store.load()["unit"]},
        lambda store: {unit.id for unit in UNITS if store.outcome(unit).status},
        lambda store: {
            u.id for u, outcome in zip(UNITS, store.outcomes([(u, "") for u in UNITS]), strict=True) if outcome.status
        },
    ],
)
def test_records_that_are_compacted_between_looking_and_reading_are_found(store, monkeypatch, read):
    one = shelves.read_record

    def compacted_first(path):
        monkeypatch.setattr(shelves, "read_record", one)
        RecordStore(store.folder).compact(worth=1)
        return one(path)

    monkeypatch.setattr(shelves, "read_record", compacted_first)
    assert read(store) == {unit.id for unit in UNITS}
    assert loose(store) == {UNITS[1].id}


def write_and_compact(folder: Path) -> None:
    store = RecordStore(folder)
    for sample in range(60):
        write(store, replace(UNIT, sample=sample))
        if sample % 4 == 3:
            store.compact(worth=1)


def test_who_reads_while_others_write_and_compact_misses_nothing(tmp_path):
    store, known, passes = RecordStore(tmp_path), set[str](), 0
    units = {unit.id: unit for unit in (replace(UNIT, sample=sample) for sample in range(60))}
    with forked(write_and_compact, tmp_path) as process:
        while process.is_alive():
            loaded = {*store.load().get("unit", ())}
            assert loaded >= known
            found = {
                unit.id
                for unit, outcome in zip(units.values(), store.outcomes([(u, "") for u in units.values()]), strict=True)
                if outcome.complete
            }
            assert found >= loaded
            assert all(store.outcome(units[unit]).complete for unit in [*found][:20])
            known, passes = found, passes + 1
    assert (process.exitcode, {*store.load()["unit"]}) == (0, {*units})
    assert passes > 2


def flipped(packed: bytes) -> bytes:
    return packed[:-60] + bytes([packed[-60] ^ 1]) + packed[-59:]


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda packed: packed[:-9], 4),
        (flipped, 4),
        (lambda packed: packed[1:], 3),
        (lambda packed: packed + b"x", 5),
        (lambda packed: packed + gzip.compress(b'{"unit": [5]}\n'), 5),
        (lambda packed: packed + gzip.compress(b"5\n"), 5),
        (lambda packed: b"", 0),
        (lambda packed: b"PK garbled", 0),
        (lambda packed: gzip.compress(gzip.decompress(packed).replace(b'"sample": 3', b'"sample": -3')), 4),
    ],
)
def test_what_is_damaged_is_named_and_made_anew_and_the_rest_is_read(store, monkeypatch, damage, left):
    monkeypatch.setattr(compaction, "_TOGETHER", 2)
    store.compact(worth=5)
    (path,) = store.folder.rglob("*.jsonl.gz")
    path.write_bytes(damage(path.read_bytes()))
    store = RecordStore(store.folder)
    with pytest.warns(UserWarning, match=r"rise\.jsonl\.gz"):
        found, damaged = store.load_and_tell()
    assert (found["explainer"].eq("rise").sum(), len(damaged)) == (2 * left, 1)
    absent = [unit for unit in UNITS if not store.outcome(unit).status]
    assert len(absent) == 5 - left
    for unit in [*absent, *(replace(UNITS[-1], sample=sample) for sample in range(10, 15))]:
        write(store, unit)
    store.compact(worth=5)
    assert store.load()["explainer"].eq("rise").sum() == 20  # without a warning
    assert path.with_name(f"{path.name}.damaged").exists()


def test_a_compacted_file_that_would_fill_the_memory_is_left_out(store, monkeypatch):
    store.compact(worth=5)
    monkeypatch.setattr(compaction, "_MOST_UNPACKED", 3000)
    with pytest.warns(UserWarning, match="unpacks to more"):
        assert store.load()["unit"].nunique() == 5
