"""Explanations and networks that fail: recorded with their reason, tried again, and never in the others' way."""

from __future__ import annotations

import errno
import functools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from hydra import initialize_config_dir
from oracles.toys import PerPixel
from test_sweep_runner import EMPTY, NAME, PACE, Images, experiment, subject
from torch import Tensor

from misure.config import CONFIG_FOLDER
from misure.errors import AbsentError, MisureError
from misure.explainers.base import SaliencyMaps
from misure.explainers.baselines import PredictionMap
from misure.models.wrapper import SegmentationModel
from misure.sweep.experiment import Experiment
from misure.sweep.failures import Failures, reason_of, subject_failures
from misure.sweep.records import CannotWriteError, RecordStore
from misure.sweep.runner import Runner
from misure.sweep.stages import read_stages, stage

GUILTY = 2
OTHERS = set(range(8)) - {EMPTY, GUILTY}


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
        yield


def has_guilty(images: Tensor) -> Tensor:
    """Say which images are the guilty sample, unperturbed."""
    return (images == Images()[GUILTY]["image"]).flatten(1).all(1)


@dataclass(frozen=True, kw_only=True)
class Faulty(PredictionMap):
    """Raises for one sample."""

    def saliency_maps(self, network, images, targets):
        if has_guilty(images).any():
            raise ZeroDivisionError(f"in {os.sep}home{os.sep}someone{os.sep}method.py")
        return super().saliency_maps(network, images, targets)


@dataclass(frozen=True, kw_only=True)
class NotFinite(PredictionMap):
    """Gives NaN for one sample."""

    def saliency_maps(self, network, images, targets):
        maps = super().saliency_maps(network, images, targets).saliency.clone()
        maps[has_guilty(images)] = float("nan")
        return SaliencyMaps(maps)


class Small(PerPixel):
    """A network whose memory does not suffice for one image."""

    def forward(self, images: Tensor) -> Tensor:
        if has_guilty(images).any():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(images)


class Nan(PerPixel):
    """A network that returns NaN for one image, all over or in one pixel."""

    def __init__(self, everywhere: bool) -> None:
        super().__init__()
        self.everywhere = everywhere

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        where = logits[has_guilty(images)]
        if self.everywhere:
            where[:] = float("nan")
        else:
            where[..., 0, 0] = float("nan")
        logits[has_guilty(images)] = where
        return logits


@functools.cache
def planned_in_steps(step: int) -> Experiment:
    return experiment("explainer=prediction", "n_samples=8", f"runner.images_per_step={step}")


def run(folder, explainer=None, network=None, step: int = 1) -> Runner:
    planned = planned_in_steps(step)
    explained = subject() if network is None else replace(subject(), model=SegmentationModel(network))
    runner = Runner(RecordStore(folder / "records"), {NAME: explained}, {NAME: PACE})
    runner.run([replace(planned, explainer=explainer or planned.explainer)])
    return runner


FAULTS = {
    "exception": ({"explainer": Faulty()}, "ZeroDivisionError: in method.py"),
    "map": ({"explainer": NotFinite()}, "gave a map that is not finite"),
    "memory": ({"network": Small()}, "out of memory with a single image"),
    "all NaN": ({"network": Nan(everywhere=True)}, "the network returned NaN or infinity for the image itself"),
    "one NaN": ({"network": Nan(everywhere=False)}, "the network returned NaN or infinity for the image itself"),
}


@pytest.mark.filterwarnings("ignore:out of memory:RuntimeWarning")
@pytest.mark.parametrize("step", [1, 8])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_guilty_sample_alone_fails_and_is_alone_tried_again(tmp_path, fault, step):
    given, reason = FAULTS[fault]
    first = run(tmp_path, **given, step=step)
    assert (first.tally.done, first.tally.failed, first.tally.skipped) == (len(OTHERS), 1, 1)
    found = first.store.load().set_index("sample")
    assert found["status"].to_dict() == dict.fromkeys(OTHERS, "done") | {GUILTY: "failed", EMPTY: "skipped"}
    assert reason in found.loc[GUILTY, "reason"]
    assert "\n" not in found.loc[GUILTY, "reason"]
    assert first.tally.reasons == {found.loc[GUILTY, "reason"]: 1}
    before = {path: path.read_bytes() for path in first.store.folder.rglob("*.jsonl")}
    again = run(tmp_path, **given, step=step)
    assert (again.tally.done, again.tally.failed, again.tally.present) == (0, 1, 7)
    second = run(tmp_path, step=step)
    assert (second.tally.done, second.tally.failed, second.tally.present) == (1, 0, 7)
    after = {path: path.read_bytes() for path in second.store.folder.rglob("*.jsonl")}
    assert after.keys() == before.keys()
    assert [json.loads(after[p])["sample"] for p in after if after[p] != before[p]] == [GUILTY]
    assert second.store.load().set_index("sample").loc[GUILTY, "status"] == "done"


@pytest.mark.parametrize("explainer", [None, Faulty()])
def test_a_full_disk_ends_the_run(tmp_path, monkeypatch, explainer):
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWriteError, match="No space left on device"):
        run(tmp_path, explainer)
    assert RecordStore(tmp_path / "records").load().empty


def test_an_interruption_ends_the_run(tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class Interrupted(PredictionMap):
        def saliency_maps(self, network, images, targets):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Interrupted())
    assert set(RecordStore(tmp_path / "records").load().get("status", ())) <= {"skipped"}


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
    failures = Failures(tmp_path, "quick")
    with failures.noted("coco-net"):
        raise RuntimeError("the loss is nan")
    with failures.noted("triangle-net"):
        failures.forget("triangle-net")
    assert failures.reasons == {"coco-net": "RuntimeError: the loss is nan"}
    assert capsys.readouterr().out == "coco-net failed, the others go on: RuntimeError: the loss is nan\n"
    assert subject_failures(tmp_path, "quick") == failures.reasons
    assert subject_failures(tmp_path, "paper") == {}
    (entry,) = json.loads((tmp_path / "failures.json").read_text())
    assert set(entry) == {"subject", "profile", "reason", "time"}
    again = Failures(tmp_path, "quick")
    with again.noted("coco-net"):
        again.forget("coco-net")
    assert subject_failures(tmp_path, "quick") == {}


def test_a_failure_that_cannot_be_kept_ends_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MisureError, match="cannot write"), Failures(tmp_path / "file", "quick").noted("a"):
        raise RuntimeError("no space")


def test_a_dataset_without_a_network_is_noted_once(tmp_path):
    asked = []

    def choose(cfg):
        asked.append(cfg.dataset.name)
        if cfg.dataset.name == "coco":
            raise MisureError("no network")
        return ["model=x"]

    failures = Failures(tmp_path, "quick")
    chosen = failures.tolerant(choose)
    named = [SimpleNamespace(dataset=SimpleNamespace(name=name)) for name in ("coco", "coco", "synapse")]
    assert [list(chosen(cfg)) for cfg in named] == [[], [], ["model=x"]]
    assert asked == ["coco", "synapse"]
    assert failures.reasons == {"coco": "no network"}


def test_a_damaged_list_of_failures_is_begun_anew(tmp_path):
    (tmp_path / "failures.json").write_text('[{"subj')
    with pytest.warns(UserWarning, match=r"failures\.json is damaged"):
        assert subject_failures(tmp_path, "quick") == {}


def test_stages_are_noted_in_order_and_also_when_they_end_early(tmp_path):
    with stage(tmp_path, "quick", "training", "coco-net"):
        pass
    with pytest.raises(KeyboardInterrupt), stage(tmp_path, "quick", "explaining", "coco-net"):
        raise KeyboardInterrupt
    first, second = read_stages(tmp_path)
    assert (first["stage"], first["subject"], first["profile"]) == ("training", "coco-net", "quick")
    assert second["stage"] == "explaining"
    assert first["started"] <= second["started"]
    assert 0 <= second["seconds"] < 60  # nothing happens inside


def test_a_stage_that_cannot_be_noted_does_not_hide_what_happened(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="inside"), stage(tmp_path / "file", "quick", "training"):
        raise ValueError("inside")
    assert read_stages(tmp_path) == []


def test_two_processes_note_all_their_stages(tmp_path):
    children = []
    for name in "ab":
        child = os.fork()
        if child == 0:
            for _ in range(20):
                with stage(tmp_path, "quick", name):
                    pass
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert sorted(entry["stage"] for entry in read_stages(tmp_path)) == ["a"] * 20 + ["b"] * 20


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_absent_is_left_out_and_no_failure(tmp_path, kept, capsys):
    failures = Failures(tmp_path, "paper", kept=kept)
    with failures.noted("synapse"):
        raise AbsentError("it was not found.\nRegister, and put it here")
    assert failures.reasons == {}
    assert failures.left_out == {"synapse": "it was not found. Register, and put it here"}
    assert "left out" in capsys.readouterr().out
    assert bool(subject_failures(tmp_path, "paper")) == kept
    assert kept or not list(tmp_path.iterdir())
