"""The journal: appended to by several processes, read whatever happened to it, and lists of earlier versions too."""

from __future__ import annotations

import errno
import json
import os

import pytest

from misure.datasets.available import NoImagesError
from misure.errors import AbsentError, MisureError
from misure.io import locks
from misure.sweep.journal import Failures, Journal, reason_of
from misure.sweep.records import RecordStore


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (ValueError(), "ValueError"),
        (MisureError("train it again"), "train it again"),
        (OSError(2, "No such file", "/home/me/data/a.png"), "FileNotFoundError: [Errno 2] No such file: 'a.png'"),
        (
            ValueError("see https://host/a/b or 1/2/3, outputs/x/y"),
            "ValueError: see https://host/a/b or 1/2/3, outputs/x/y",
        ),
    ],
)
def test_a_reason_is_one_line_without_machine_paths(error, reason):
    assert reason_of(error) == reason


def test_a_long_reason_is_cut():
    assert len(reason_of(ValueError("x" * 1000))) == 300


def test_failing_subjects_are_kept_until_they_succeed(tmp_path, capsys):
    failures = Failures(Journal(tmp_path), "quick")
    with failures.noted("coco-net"):
        raise RuntimeError("the loss is nan")
    with failures.noted("triangle-net"):
        failures.forget("triangle-net")
    assert failures.reasons == {"coco-net": "RuntimeError: the loss is nan"}
    assert capsys.readouterr().out == "coco-net failed, the others go on: RuntimeError: the loss is nan\n"
    assert Journal(tmp_path).failures("quick") == failures.reasons
    assert Journal(tmp_path).failures("paper") == {}
    again = Failures(Journal(tmp_path), "quick")
    with again.noted("coco-net"):
        again.forget("coco-net")
    assert Journal(tmp_path).failures("quick") == {}


def test_a_failure_that_cannot_be_kept_ends_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MisureError, match="cannot write"), Failures(Journal(tmp_path / "file"), "quick").noted("a"):
        raise RuntimeError("no space")


@pytest.mark.parametrize(
    ("raised", "made", "left_out"),
    [
        (AbsentError("no weights"), [[], ["model=b"], []], ["coco-a"]),
        (MisureError("weights that do not fit"), [[], ["model=b"], []], ["coco-a"]),
        (OSError("cannot connect"), [[], ["model=b"], []], ["coco-a"]),
        (NoImagesError("no images"), [[], [], []], ["coco"]),
    ],
)
def test_what_cannot_be_had_is_noted_once_and_the_other_networks_go_on(tmp_path, raised, made, left_out):
    asked = []

    def choose(dataset, networks):
        asked.append((dataset, *networks))
        if (dataset, *networks) == ("coco", "a", "c"):
            raise raised
        return [f"model={networks[0]}"]

    failures = Failures(Journal(tmp_path), "quick")
    chosen = failures.tolerant(choose)
    assert [chosen("coco", networks) for networks in (["a", "c"], ["b"], ["a", "c"])] == made
    assert chosen("synapse", ["a"]) == ["model=a"]
    assert [*failures.left_out] == [*Journal(tmp_path).failures("quick")] == left_out
    assert asked.count(("coco", "a", "c")) == 1
    again = Failures(Journal(tmp_path), "quick").tolerant(lambda _, networks: networks)
    assert again("coco", ["a", "c"]) == ["a", "c"]
    assert Journal(tmp_path).failures("quick") == {}


def test_what_runs_use_is_told_by_order_and_not_by_a_clock(tmp_path):
    journal = Journal(tmp_path)
    for weights in ("first", "second", "second", "first"):
        journal.use("quick", "coco", "net", weights, "images")
    journal.use("quick", "coco", "other", "w", "images")
    journal.use("paper", "coco", "net", "large", "images")
    assert journal.used("quick") == {("coco", "net"): ("first", "images"), ("coco", "other"): ("w", "images")}
    assert len(journal.read("used")) == 5
    with journal.path.open("a") as stream:
        stream.write('{"event": "used", "profile": "quick", "dataset": "coco", "model": ["net"]}\n')
    with pytest.warns(UserWarning, match="line 6 is damaged"):
        assert journal.used("quick")["coco", "net"] == ("first", "images")


OLDER = {
    "stages.json": [{"stage": "training", "subject": "a-b", "seconds": 1.5, "started": "then", "profile": "quick"}],
    "failures.json": [{"subject": "coco", "profile": "quick", "reason": "no network", "time": "then"}],
    "precision.json": [{"of": {"subject": "a-b"}, "choice": {"precision": "bf16"}}],
    "served.json": [{"profile": "quick", "unit": "0123"}],
}


def test_what_earlier_versions_kept_comes_first(tmp_path):
    for name, entries in OLDER.items():
        (tmp_path / name).write_text(json.dumps(entries))
    journal = Journal(tmp_path)
    assert journal.stages() == OLDER["stages.json"]
    assert journal.failures("quick") == {"coco": "no network"}
    assert [e["choice"] for e in journal.read("precision")] == [{"precision": "bf16"}]
    assert RecordStore(tmp_path).serving("quick") == {"0123"}
    with journal.stage("quick", "explaining"):
        Failures(journal, "quick").forget("coco")
    assert [e["stage"] for e in journal.stages()] == ["training", "explaining"]
    assert journal.failures("quick") == {}
    (tmp_path / "failures.json").write_text('[{"subj')
    with pytest.warns(UserWarning, match=r"failures\.json is damaged"):
        assert journal.failures("quick") == {}


@pytest.mark.parametrize(
    "damage",
    [
        *('{"event": "sta', "5", "[]", '{"stage": "x"}', '{"event": 5}', '{"event": ["served"]}', "[" * 100_000),
        *('{"event": "served"}', '{"event": "served", "unit": ["x"]}'),
        '{"event": "stage", "stage": "x", "seconds": "long"}',
    ],
)
def test_a_damaged_line_is_named_and_the_next_one_is_whole(tmp_path, damage):
    journal = Journal(tmp_path)
    journal.note(("served", {"unit": "first"}))
    with journal.path.open("a") as stream:
        stream.write(damage)  # without a line end, as a killed process leaves it
    journal.note(("served", {"unit": "second"}), ("served", {"unit": "third"}))
    with pytest.warns(UserWarning, match="line 2 is damaged"):
        assert [entry["unit"] for entry in journal.read("served")] == ["first", "second", "third"]
    assert RecordStore(tmp_path).load().empty  # the journal beside the records is none of them


def test_stages_are_noted_in_order_and_also_when_they_end_early(tmp_path):
    with Journal(tmp_path).stage("quick", "training", "coco-net"):
        pass
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path).stage("quick", "explaining", "coco-net"):
        raise KeyboardInterrupt
    first, second = Journal(tmp_path).stages()
    assert (first["stage"], first["subject"], first["profile"]) == ("training", "coco-net", "quick")
    assert second["stage"] == "explaining"
    assert first["started"] <= second["started"]
    assert 0 <= second["seconds"] < 60  # nothing happens inside


def test_a_stage_that_cannot_be_noted_does_not_hide_what_happened(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="inside"), Journal(tmp_path / "file").stage("quick", "training"):
        raise ValueError("inside")
    assert Journal(tmp_path).stages() == []


def test_two_processes_note_all_their_stages(tmp_path):
    children = []
    for name in "ab":
        child = os.fork()
        if child == 0:
            for _ in range(20):
                with Journal(tmp_path).stage("quick", name):
                    pass
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert sorted(entry["stage"] for entry in Journal(tmp_path).stages()) == ["a"] * 20 + ["b"] * 20


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_absent_is_left_out_and_no_failure(tmp_path, kept, capsys):
    failures = Failures(Journal(tmp_path), "paper", kept=kept)
    with failures.noted("synapse"):
        raise AbsentError("it was not found.\nRegister, and put it here")
    assert failures.reasons == {}
    assert failures.left_out == {"synapse": "it was not found. Register, and put it here"}
    assert "left out" in capsys.readouterr().out
    assert bool(Journal(tmp_path).failures("paper")) == kept
    assert kept or not list(tmp_path.iterdir())


def test_a_damaged_line_loses_itself_alone(tmp_path):
    journal = Journal(tmp_path)
    failed = {"subject": "a", "profile": "quick", "reason": "r", "time": "t"}
    journal.note(("failed", failed))
    with journal.path.open("ab") as stream:
        stream.write(b'{"event":"sta\xff\xfe\n{"event":"failed"}\n{"event":"stage"}\n')
    journal.note(("failed", failed | {"subject": "b"}))
    with pytest.warns(UserWarning, match=r"line \d is damaged") as caught:
        assert journal.failures("quick") == {"a": "r", "b": "r"}
    assert len(caught) == 3


def test_events_are_kept_where_the_file_system_has_no_locks(tmp_path, monkeypatch):
    """As on Lustre mounted without them, or NFS without a lock daemon."""

    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="has no locks"):
        Journal(tmp_path).note(("served", {"profile": "quick", "unit": "a"}))
    assert [entry["unit"] for entry in Journal(tmp_path).read("served")] == ["a"]
