"""Records: one identity per explanation, whole or not there at all."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from pipeline import PROJECT, run_script

from misure.errors import MisureError
from misure.explainers import MSR
from misure.io.installed import CONFIG_FOLDER
from misure.sweep import records as module
from misure.sweep import shelves
from misure.sweep.experiment import Experiment
from misure.sweep.records import _ADDED_PARAMETERS, RecordStore, Unit
from misure.sweep.sampling import Sample

UNIT = Unit("triangle", "f" * 16, "unet", "1234567890123456", "msr", {"lr": 0.1, "thresholds": [0.2, 0.4]}, 7, 1)
SHARED = {"created": "2026-11-28T10:00:00+00:00", "profile": "quick", "dataset_source": "toy", "stand_in": False}
SHARED |= {"status": "done", "reason": None, "perturbation_ratio": 1.0}
ROWS = [{"threshold": t, "dice_explained": 0.1 + t, **SHARED} for t in (0.2, 0.4)]


def test_the_identity_depends_on_every_attribute():
    changed = [
        replace(UNIT, dataset="synapse"),
        replace(UNIT, dataset_fingerprint="e" * 16),
        replace(UNIT, model="other"),
        replace(UNIT, weights="0" * 16),
        replace(UNIT, explainer="rise"),
        replace(UNIT, parameters={"lr": 0.1, "thresholds": [0.2]}),
        replace(UNIT, parameters={"lr": 0.01, "thresholds": [0.2, 0.4]}),
        replace(UNIT, parameters={**UNIT.parameters, "seed": 0}),
        replace(UNIT, sample=8),
        replace(UNIT, class_id=2),
        replace(UNIT, input_noise=1e-6),
        replace(UNIT, intervention="weights randomised: 0.5"),
        replace(UNIT, precision="bf16"),
        replace(UNIT, precision="tf32"),
    ]
    varied = {f.name for unit in changed for f in fields(Unit) if getattr(unit, f.name) != getattr(UNIT, f.name)}
    assert varied == {f.name for f in fields(Unit)}
    assert len({UNIT.id, *(unit.id for unit in changed)}) == len(changed) + 1


def test_float32_records_of_older_versions_keep_their_identity():
    """The name that version 0.1.0 of 24 November 2026 gave to this unit, when units had no precision."""
    assert UNIT.id == "c1c6038cbab509aafd24"
    assert replace(UNIT, parameters=dict(reversed(UNIT.parameters.items()))).id == UNIT.id


@pytest.mark.parametrize("name", _ADDED_PARAMETERS)
def test_a_parameter_that_came_later_counts_where_it_is_not_what_was_done_before(name):
    made = {
        value: replace(UNIT, parameters={**UNIT.parameters, name: value}) for value in (_ADDED_PARAMETERS[name], -1)
    }
    assert [unit.id == UNIT.id for unit in made.values()] == [True, False]
    assert MSR.published().parameters.get(name, _ADDED_PARAMETERS[name]) == _ADDED_PARAMETERS[name]


def test_a_record_made_in_another_precision_does_not_count(tmp_path):
    store = RecordStore(tmp_path / "records")
    older = [
        {**row, "precision": "bf16"} for row in ROWS
    ]  # of a version whose identities did not tell precisions apart
    store.write(UNIT, older)
    assert not store.outcome(UNIT).complete
    assert not store.outcome(replace(UNIT, precision="bf16")).complete
    store.write(UNIT, [{**row, "precision": "32"} for row in ROWS])
    assert store.outcome(UNIT).complete


def test_what_is_written_is_read(tmp_path):
    store = RecordStore(tmp_path / "records")
    assert store.load().empty
    assert not store.outcome(UNIT).complete
    store.write(UNIT, ROWS, {"saliency": np.eye(3, dtype=np.float16)})
    assert store.outcome(UNIT).complete
    assert not store.outcome(replace(UNIT, sample=8)).complete
    found = store.load()
    assert found["threshold"].tolist() == [0.2, 0.4]
    assert set(found["unit"]) == {UNIT.id}
    assert set(found["param_lr"]) == {0.1}
    assert set(found["param_thresholds"]) == {"[0.2, 0.4]"}
    assert found["reason"].isna().all()
    with np.load(store.maps_folder / f"{UNIT.id}.npz", allow_pickle=False) as maps:
        assert maps.files == ["saliency"]
        assert np.array_equal(maps["saliency"], np.eye(3))
    assert not [path for path in store.folder.rglob("*") if "part" in path.name]


def test_the_one_line_of_the_docstring_reads_the_same(tmp_path, monkeypatch):
    store = RecordStore(tmp_path / "outputs" / "records")
    for sample in range(4):
        store.write(replace(UNIT, sample=sample), ROWS)
        store.compact(worth=3)
    assert [path.suffix for path in sorted(store.folder.rglob("*.json*"))] == [".jsonl", ".gz"]
    (store.path(UNIT).parent / f".{UNIT.id}.jsonl.part").write_text("{")
    line = next(text.strip() for text in module.__doc__.splitlines() if "read_json" in text)
    monkeypatch.chdir(tmp_path)
    scope = {"pd": pd, "Path": Path}
    exec(line, scope)
    by_line = scope["records"].fillna({"reason": "none"}).sort_values(["sample", "threshold"], ignore_index=True)
    loaded = store.load().fillna({"reason": "none"}).sort_values(["sample", "threshold"], ignore_index=True)
    pd.testing.assert_frame_equal(by_line, loaded, check_dtype=False)
    assert set(by_line["weights"]) == {"1234567890123456"}


BEFORE = (PROJECT / "tests" / "data" / "records_before_the_move.jsonl").read_text().splitlines()
"""Records of a smoke run of 28 November 2026, made before modules moved and configurations were merged."""

SETTINGS = {
    "e3744cab70ea58d9c19e": "explainer=msr",
    "71066f01bb16414347f6": "explainer=msr lr=0.001 lambda=0.1",
    "80e6278613d54d0468c7": "explainer=msr mask_size=56",
    "95391e51a12cbb2a967d": (
        "explainer=msr explainer.lr_schedule=linear explainer.tv_weight=0.0001 input_noise=1.0e-6"
    ),
    "055afa3ad2a7a43e7bdd": "explainer=rise explainer.style=bilinear",
    "6911bf786e9641d0c6d6": "explainer=seg_grad_cam intervention=other_target",
    "d0cfd4151e6b39127dad": "explainer=sufficient_region intervention=randomised_0.5",
    "03bd381a627979f5ecb0": "explainer=prediction",
}
"""What each was made with, by unit."""


@pytest.mark.parametrize("unit", SETTINGS)
def test_records_made_before_are_found_and_read(tmp_path, unit):
    rows = [row for row in map(json.loads, BEFORE) if row["unit"] == unit]
    with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
        experiment = Experiment.of(compose("run", ["profile=smoke", "dataset=triangle", *SETTINGS[unit].split()]))
    sample = Sample(rows[0]["sample"], rows[0]["class_id"], rows[0]["draw"])
    made = experiment.unit(sample, rows[0]["dataset_fingerprint"], rows[0]["weights"])
    assert made.id == unit
    store = RecordStore(tmp_path)
    store.path(made).parent.mkdir(parents=True)
    store.path(made).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert store.outcome(made)[:3] == (rows[0]["status"], rows[0]["reason"] or "", "smoke")
    assert store.outcome(made).complete
    read = store.load()
    assert len(read) == len(rows)
    assert set(read["unit"]) == {unit}
    came_later = {f"param_{name}" for name in _ADDED_PARAMETERS}
    columns = {name: value for name, value in made.columns().items() if name not in came_later}
    assert read.iloc[0][list(columns)].to_dict() == columns


def test_all_records_made_before_are_among_them():
    rows = [json.loads(line) for line in BEFORE]
    assert {row["unit"] for row in rows} == set(SETTINGS)
    assert {row["status"] for row in rows} == {"done", "skipped"}


@pytest.mark.parametrize("damage", [lambda text: text[:-10], lambda _: "\0\0\0", lambda _: "", lambda _: "5\n"])
def test_a_damaged_record_is_named_and_left_out(tmp_path, damage):
    store = RecordStore(tmp_path)
    other = replace(UNIT, sample=8)
    store.write(UNIT, ROWS)
    store.write(other, ROWS)
    path = store.path(UNIT)
    path.write_text(damage(path.read_text()))
    with pytest.warns(UserWarning, match=UNIT.id):
        found = store.load()
    assert set(found["unit"]) == {other.id}


def test_a_pipe_among_records_is_named_and_not_waited_for(tmp_path):
    store = RecordStore(tmp_path)
    store.path(UNIT).parent.mkdir(parents=True)
    os.mkfifo(store.path(UNIT))
    with pytest.warns(UserWarning, match=UNIT.id):
        assert store.load().empty


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MisureError, match=r"cannot write .*outputs=<another folder>"):
        RecordStore(tmp_path / "file" / "records").write(UNIT, ROWS)
    assert RecordStore(tmp_path / "file" / "records").load().empty


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_everything_may_be_read_by_whom_the_umask_lets(tmp_path, mask):
    store, before = RecordStore(tmp_path / "a" / "records"), os.umask(mask)
    try:
        store.write(UNIT, ROWS, {"saliency": np.eye(3)})
        store.serve("quick", [UNIT])
        assert store.compact(worth=1) == 1
        store.write(replace(UNIT, sample=8), ROWS)
        claim = store.claim(UNIT)
        claim.take()
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert {*modes.values()} == {0o666 & ~mask}
    assert len(modes) == 5
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_dir()} == {0o777 & ~mask}
    claim.release()


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    store = RecordStore(tmp_path)
    store.write(UNIT, ROWS)
    before = store.path(UNIT).read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for unit in (UNIT, replace(UNIT, sample=8)):
        with pytest.raises(MisureError, match="No space left on device"):
            store.write(unit, ROWS, {"saliency": np.zeros(3)})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [store.path(UNIT)]
    assert store.path(UNIT).read_bytes() == before


def test_values_json_does_not_have_are_refused(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        RecordStore(tmp_path).write(UNIT, [ROWS[0] | {"dice_explained": float("nan")}])
    assert RecordStore(tmp_path).load().empty


def test_all_outcomes_at_once_are_those_one_by_one_and_nothing_is_opened_twice(tmp_path, monkeypatch):
    store = RecordStore(tmp_path)
    units = [replace(UNIT, sample=sample, explainer=name) for sample in range(8) for name in ("msr", "rise")]
    statuses = ("done", "skipped", "failed", "done")
    for number, unit in enumerate(units[:-4]):
        row = {"status": statuses[number % 4], "profile": "quick" if number < 8 else "paper", "precision": "32"}
        store.write(unit, [kept | row for kept in ROWS], {"saliency": np.eye(3)} if number % 2 else None)
    store.write(units[5], [row | {"precision": "bf16"} for row in ROWS])
    store.path(units[6]).write_text("{")
    store.maps_path(units[7]).write_bytes(b"PK")
    asked = [(unit, needs_maps) for unit in units for needs_maps in (False, True)]
    expected = [RecordStore(tmp_path).outcome(*one) for one in asked]
    assert len({*expected}) == 7
    opened = []
    read, is_zipfile = shelves.read_record, module.zipfile.is_zipfile
    monkeypatch.setattr(shelves, "read_record", lambda path: opened.append(path.name) or read(path))
    monkeypatch.setattr(module.zipfile, "is_zipfile", lambda path: opened.append(path.name) or is_zipfile(path))
    assert store.outcomes(asked) == expected
    assert len(opened) == len({*opened}) + 1  # what is damaged is looked at again
    opened.clear()
    assert store.outcomes(asked) == expected
    assert {*opened} == {store.path(units[6]).name}
    for unit in units[:7]:
        store.write(unit, [row | {"status": "skipped"} for row in ROWS])
        assert store.outcome(unit)[:3] == ("skipped", "", "quick")
    assert [o.status for o in store.outcomes([(unit, False) for unit in units[:7]])] == ["skipped"] * 7


PREAMBLE = """
import itertools, json, os, signal
from dataclasses import replace
from pathlib import Path
from misure.sweep.records import _ADDED_PARAMETERS, RecordStore, Unit

store = RecordStore(Path("records"))
unit = Unit("triangle", "f", "unet", "w", "msr", {"lr": 0.1}, 0, 1)
shared = {"created": "2026-11-28T10:00:00+00:00", "profile": "quick", "dataset_source": "toy", "stand_in": False}
shared |= {"status": "failed", "text": "x" * 500}
rows = [shared | {"row": i} for i in range(60)]
"""

KILLED_WRITERS = """
for first in range(0, 10_000, 1000):
    reading, writing = os.pipe()
    writer = os.fork()
    if writer == 0:
        for sample in itertools.count(first):
            store.write(replace(unit, sample=sample), rows)
            os.write(writing, b".")
    os.read(reading, 1)  # at least one record is written, the next is under way
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    os.close(reading)
    os.close(writing)
"""

TWO_WRITERS = """
writers = []
for own in range(2):
    writers.append(os.fork())
    if writers[-1] == 0:
        for sample in range(60):
            mine = sample if sample % 3 == 0 else 1000 * own + sample  # every third by both
            store.write(replace(unit, sample=mine), rows)
        os._exit(0)
print(json.dumps([os.waitpid(writer, 0)[1] for writer in writers]))
"""


def forked(folder: Path, code: str):
    script = folder / "script.py"
    script.write_text(PREAMBLE + code)
    ended = run_script(script, [], folder)
    assert ended.code == 0, ended.err
    return ended, RecordStore(folder / "records")


def whole(frame: pd.DataFrame) -> bool:
    return all(group["row"].tolist() == list(range(60)) for _, group in frame.groupby("unit"))


def test_killed_writers_leave_whole_records(tmp_path):
    _, store = forked(tmp_path, KILLED_WRITERS)
    found = store.load()  # a damaged one would warn, and warnings are errors
    assert {sample // 1000 for sample in found["sample"]} == set(range(10))
    assert whole(found)


def test_two_processes_lose_nothing(tmp_path):
    ended, store = forked(tmp_path, TWO_WRITERS)
    assert json.loads(ended.out) == [0, 0]
    found = store.load()
    expected = {1000 * own + sample for own in range(2) for sample in range(60) if sample % 3} | set(range(0, 60, 3))
    assert set(found["sample"]) == expected
    assert whole(found)
    assert not list(store.folder.rglob("*.part"))
