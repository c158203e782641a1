"""Records of explanations, and of those that fail: with their reason, tried again, never in the others' way."""

from __future__ import annotations

import errno
import functools
import json
import os
from dataclasses import dataclass, replace

import pytest
import torch
from oracles.toys import PerPixel
from pandas.testing import assert_frame_equal
from pretended_cuda import pretended_cuda
from sweep_runs import EMPTY, Images, experiment, make_runner, runner_of, toy_setup
from torch import Tensor, nn

from misure.explainers.base import SaliencyMaps
from misure.explainers.baselines import PredictionMap
from misure.models.recall import Recall
from misure.sweep.experiment import Experiment
from misure.sweep.journal import CannotWriteError
from misure.sweep.recorder import Recorder
from misure.sweep.records import RecordStore
from misure.sweep.runner import Runner

pytestmark = pytest.mark.usefixtures("hydra")

GUILTY = 2
OTHERS = set(range(8)) - {EMPTY, GUILTY}


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
    runner = make_runner(folder, network=network)
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
    assert (first.counts.done, first.counts.failed, first.counts.skipped) == (len(OTHERS), 1, 1)
    found = first.recorder.store.load().set_index("sample")
    assert found["status"].to_dict() == dict.fromkeys(OTHERS, "done") | {GUILTY: "failed", EMPTY: "skipped"}
    assert reason in found.loc[GUILTY, "reason"]
    assert "\n" not in found.loc[GUILTY, "reason"]
    assert first.counts.reasons == {found.loc[GUILTY, "reason"]: 1}
    before = {path: path.read_bytes() for path in first.recorder.store.folder.rglob("*.jsonl")}
    again = run(tmp_path, **given, step=step)
    assert (again.counts.done, again.counts.failed, again.counts.present) == (0, 1, 7)
    second = run(tmp_path, step=step)
    assert (second.counts.done, second.counts.failed, second.counts.present) == (1, 0, 7)
    after = {path: path.read_bytes() for path in second.recorder.store.folder.rglob("*.jsonl")}
    assert after.keys() == before.keys()
    assert [json.loads(after[p])["sample"] for p in after if after[p] != before[p]] == [GUILTY]
    assert second.recorder.store.load().set_index("sample").loc[GUILTY, "status"] == "done"


class Weighted(PerPixel):
    """A network that has a device."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))


@dataclass(frozen=True, kw_only=True)
class Illegal(PredictionMap):
    """Does what a GPU does not forgive."""

    def saliency_maps(self, network, images, targets):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def sick(_device=None) -> None:
    raise RuntimeError("CUDA error: unspecified launch failure")


def ended(code: int) -> None:
    raise SystemExit(code)


@pytest.mark.parametrize("is_worker", [False, True])
def test_a_gpu_that_does_not_work_any_more_ends_the_process_and_is_no_failure_of_a_sample(
    tmp_path, monkeypatch, is_worker
):
    monkeypatch.setattr("misure.sweep.recorder.parent_process", lambda: is_worker or None)
    monkeypatch.setattr(os, "_exit", ended)
    planned = replace(planned_in_steps(1), explainer=Illegal())
    with pretended_cuda():
        recorder = make_runner(tmp_path, network=Weighted().to("cuda")).recorder
        first, second, *_ = recorder.samples(planned)
        monkeypatch.setattr(torch.cuda, "empty_cache", sick)
        recorder.explain(planned, [first])
        monkeypatch.setattr(torch.cuda, "synchronize", sick)
        with pytest.raises(SystemExit) as caught:
            recorder.explain(planned, [second])
    assert str(caught.value.code).startswith("1" if is_worker else "misure: the GPU does not work any more (")
    assert recorder.store.load()["sample"].tolist() == [first.image]


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


class Blurring(nn.Module):
    """Predicts where all neighbours are bright, so that stage 1 dilates; counts the images it sees."""

    seen = 0

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv2d(1, 1, 3, padding=1)
        nn.init.constant_(self.blur.weight, 1 / 9)
        nn.init.constant_(self.blur.bias, -0.85)

    def forward(self, images: Tensor) -> Tensor:
        Blurring.seen += len(images)
        logit = self.blur(images)
        return torch.cat([torch.zeros_like(logit), logit], 1)


def explained(folder, cells, monkeypatch, **of_recorder):
    """Explain cells of a sweep; return their records and the images that passed through the network.

    What was seen is the clock, so that seconds can be compared: they count passes.
    """
    for module in ("misure.explainers.base", "misure.models.wrapper"):
        monkeypatch.setattr(f"{module}.now", lambda _device: float(Blurring.seen))
    Blurring.seen = 0
    recorder = Recorder(RecordStore(folder / "records"), toy_setup(network=Blurring()), **of_recorder)
    runner_of(recorder).run([experiment(*cell.split(), "n_samples=2") for cell in cells])
    records = recorder.store.load().drop(columns="created").set_index(["unit", "threshold"]).sort_index()
    assert set(records["status"]) == {"done"}
    return records, Blurring.seen


CELLS = [
    "explainer=sufficient_region",
    *(f"explainer=msr explainer.n_iterations=2 explainer.mask_size=24 explainer.lr={lr}" for lr in (0.1, 0.01)),
]


@pytest.mark.parametrize(
    "common", ["runner.images_per_step=1", "runner.images_per_step=2", "intervention=randomised_1"]
)
def test_stage_one_is_computed_once_for_all_cells_and_no_record_differs(tmp_path, monkeypatch, common):
    """Neither in its seconds: what is recalled counts with what it took."""
    cells = [f"{cell} {common}" for cell in CELLS]
    expected, passes = explained(tmp_path / "alone", cells, monkeypatch, recall=Recall(capacity=0))
    found, fewer = explained(tmp_path / "shared", cells, monkeypatch)
    assert_frame_equal(found, expected)
    regions = found.query("explainer == 'sufficient_region'")
    assert regions["n_dilations"].min() > 0
    assert passes - fewer == 2 * regions["seconds"].sum()


def test_what_differs_in_what_stage_one_depends_on_does_not_share_it(tmp_path, monkeypatch):
    others = ["explainer.tau=0.5", "explainer.blanking=mean", "explainer.dilation_radius=2", "input_noise=0.01"]
    others += ["explainer.footprint=disk"]
    others += ["intervention=other_target", "intervention=randomised_1", "intervention=randomised_0.5"]
    cells = [CELLS[0], *(f"{CELLS[0]} {other}" for other in others)]
    expected = explained(tmp_path / "alone", cells, monkeypatch, recall=Recall(capacity=0))
    found = explained(tmp_path / "shared", cells, monkeypatch)
    assert_frame_equal(found[0], expected[0])
    assert found[1] == expected[1]
