"""Training improves, stops in time and resumes where it was."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import hardware
import pytest
import torch
from forked import forked, without_gpu
from pipeline import TINY_LAYOUT, shipped_root
from safetensors.torch import load_file
from torch import nn

from misure.datasets.base import Stage
from misure.datasets.datamodule import SegmentationData
from misure.datasets.triangle import TriangleDataset, TriangleLayout
from misure.errors import MisureError
from misure.models.checkpoint import CheckpointInfo, read_info
from misure.training import module as training
from misure.training import task
from misure.training.config import OPTIMISERS, Recipe
from misure.training.module import train
from misure.training.task import image_dice

INFO = CheckpointInfo("toy", {}, None, ("background", "triangle"), 1, {}, {}, {}, {})
RECIPE = Recipe(
    batch_size=4, lr=0.02, max_epochs=4, samples_per_epoch=20, validation_samples=8, precision="32", warmup=0.1
)


def toy_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 5, padding=2))


def make_data(root: Path, recipe: Recipe = RECIPE, **extra) -> SegmentationData:
    layout = TriangleLayout(**{**TINY_LAYOUT, "distractors": 0})
    return SegmentationData(
        TriangleDataset("train", 30, root, layout),
        TriangleDataset("val", 8, root, layout),
        batch_size=recipe.batch_size,
        samples_per_epoch=recipe.samples_per_epoch,
        validation_samples=recipe.validation_samples,
        **extra,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return shipped_root(tmp_path_factory.mktemp("training") / "data")


def run(root: Path, path: Path, recipe: Recipe = RECIPE, network: nn.Module | None = None, **extra) -> CheckpointInfo:
    network = network or toy_network()
    return train(network, make_data(root, recipe, **extra), recipe, path=path, info=INFO, logger=False)


@pytest.fixture(scope="module")
def uninterrupted(root, tmp_path_factory):
    path = tmp_path_factory.mktemp("uninterrupted") / "toy.safetensors"
    return path, run(root, path)


def test_image_dice_by_hand():
    predicted = torch.tensor([[[1, 1, 0, 2]], [[0, 0, 0, 0]], [[0, 0, 0, 0]], [[1, 1, 1, 1]]])
    truth = torch.tensor([[[1, 0, 0, 2]], [[0, 0, 0, 0]], [[0, 2, 0, 0]], [[1, 1, 1, 1]]])
    assert image_dice(predicted, truth, 4).tolist() == [(2 / 3 + 1) / 2, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize(("precision", "clip"), [("32", 0.0), ("bf16", 1e-3)])
def test_every_optimiser_trains_in_every_precision_with_and_without_clipping(
    root, tmp_path, optimiser, precision, clip
):
    changes = {"optimiser": optimiser, "precision": precision, "gradient_clip": clip}
    short = {"lr": 0.01, "max_epochs": 1, "samples_per_epoch": 4, "warmup": 0.0, "weight_decay": 0.0}
    network = toy_network()
    before = [p.detach().clone() for p in network.parameters()]
    info = run(root, tmp_path / "toy.safetensors", replace(RECIPE, **short, **changes), network)
    moved = torch.cat([(a - b).detach().flatten() for a, b in zip(network.parameters(), before, strict=True)])
    assert info.training["precision"] == precision
    assert 0 <= info.metrics["val_dice"] <= 1
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert bool(moved.isfinite().all())
    assert float(moved.norm()) > 0
    if optimiser == "sgd" and clip:  # the first step of gradient descent is the learning rate times the gradient
        assert float(moved.norm()) == pytest.approx(0.01 * clip, rel=1e-3)  # float32 weights near 0.1 moved by 1e-5


@pytest.mark.parametrize("bfloat16", ["slow", "fast"], indirect=True)
def test_auto_trains_in_the_precision_of_the_hardware(root, tmp_path, bfloat16, capsys):
    recipe = replace(RECIPE, precision="auto", max_epochs=1, samples_per_epoch=4)
    info = run(root, tmp_path / "toy.safetensors", recipe)
    assert info.training["precision"] == {"slow": "32", "fast": "bf16"}[bfloat16]
    assert {"slow": "not fast at bfloat16", "fast": "measured: bf16"}[bfloat16] in capsys.readouterr().out


def test_training_improves_and_leaves_two_files(uninterrupted, root, tmp_path):
    path, info = uninterrupted
    before = run(root, tmp_path / "toy.safetensors", replace(RECIPE, lr=0.0, max_epochs=1, validation_samples=1000))
    assert before.metrics["val_images"] == 8, "as many as there are"
    assert info.metrics["val_dice"] > max(0.9, before.metrics["val_dice"] + 0.1)
    assert info.metrics["val_images"] == 8
    assert info.training["steps"] in {5, 10, 15, 20}
    assert sorted(p.name for p in path.parent.iterdir()) == ["toy.json", "toy.safetensors"]
    assert read_info(path) == info


def test_a_resumed_training_says_what_it_started_from(root, tmp_path):
    """Begun offline from random weights in float32, it goes on where pre-trained ones and another precision are had."""
    path, recipe = tmp_path / "toy.safetensors", replace(RECIPE, precision="auto")
    wanted = replace(INFO, network={"pretrained": "imagenet"})
    before = hardware.kind
    cut, later = Interrupted(toy_network(), 7), toy_network()
    cut.initial_weights, later.initial_weights = "random", "imagenet"
    with pytest.raises(RuntimeError, match="power cut"):
        train(cut, make_data(root, recipe), recipe, path=path, info=wanted, logger=False)
    hardware.pretend("fast")
    try:
        info = train(later, make_data(root, recipe), recipe, path=path, info=wanted, logger=False)
    finally:
        hardware.pretend(before)
    assert (info.initial_weights, dict(info.network)) == ("random", {"pretrained": None})
    assert info.training["precision"] == {"slow": "32", "fast": "bf16"}[before]


def same_weights(a: Path, b: Path) -> bool:
    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


class Interrupted(nn.Sequential):
    """A network that is cut short at a training step."""

    def __init__(self, network: nn.Sequential, step: int) -> None:
        super().__init__(*network)
        self.left = step

    def forward(self, images):
        self.left -= self.training
        if self.left < 0:
            self.stop()
        return super().forward(images)

    def stop(self) -> None:
        raise RuntimeError("power cut")


@pytest.mark.parametrize("step", [2, 7, 19])
def test_an_interrupted_training_ends_with_the_same_weights(uninterrupted, root, tmp_path, step):
    path = tmp_path / "toy.safetensors"
    with pytest.raises(RuntimeError, match="power cut"):
        run(root, path, network=Interrupted(toy_network(), step))
    assert not path.exists()
    info = run(root, path)
    assert same_weights(path, uninterrupted[0])
    assert info.weights == uninterrupted[1].weights
    assert info.metrics == uninterrupted[1].metrics
    assert info.training["steps"] == uninterrupted[1].training["steps"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy.json", "toy.safetensors"]


class Killed(Interrupted):
    """A network whose process gets a signal at a training step."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        super().__init__(toy_network(), step)
        self.number = number

    def stop(self) -> None:
        os.kill(os.getpid(), self.number)


@without_gpu
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_training_ends_with_the_same_weights(uninterrupted, root, tmp_path, number):
    path = tmp_path / "toy.safetensors"

    def train() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray's handler stays where its tests ran before
        run(root, path, network=Killed(8, number))

    with forked(train) as process:
        process.join()
    assert process.exitcode == -number
    assert (tmp_path / "toy.state" / "last.ckpt").exists()
    run(root, path)
    assert same_weights(path, uninterrupted[0])


@pytest.mark.parametrize("written", ["toy.safetensors", "toy.json", "toy.state"])
def test_a_training_stopped_while_it_finishes_is_complete(uninterrupted, root, tmp_path, monkeypatch, written):
    """Stopped before it writes the weights, their description, or before it removes the state."""
    path = tmp_path / "toy.safetensors"

    def stop(place, *_, **__):
        if Path(place).name == written or Path(place) == tmp_path / written:
            raise RuntimeError("power cut")

    monkeypatch.setattr(Path, "replace", lambda self, target, move=Path.replace: stop(target) or move(self, target))
    monkeypatch.setattr(training, "shutil", SimpleNamespace(rmtree=stop))
    with pytest.raises(RuntimeError, match="power cut"):
        run(root, path)
    monkeypatch.undo()
    assert run(root, path).metrics == uninterrupted[1].metrics
    assert same_weights(path, uninterrupted[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy.json", "toy.safetensors"]


class Watching(nn.Sequential):
    """A network that notes the size of every training image."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.sizes: list[int] = []

    def forward(self, images):
        if self.training:
            self.sizes.append(images.shape[-1])
        return super().forward(images)


def test_a_time_budget_ends_training(root, tmp_path, monkeypatch):
    every_look_takes_six_seconds = count(6.0, 6.0).__next__
    monkeypatch.setattr(task, "time", SimpleNamespace(monotonic=every_look_takes_six_seconds))
    recipe = replace(RECIPE, max_minutes=0.75, max_epochs=1000)
    network = Watching(*toy_network())
    info = run(root, tmp_path / "toy.safetensors", recipe, network)
    assert len(network.sizes) == 8  # the eighth step starts after 48 s of 45
    assert math.isfinite(info.metrics["val_dice"])


def test_a_loss_that_is_not_finite_stops_training(root, tmp_path):
    network = toy_network()
    with torch.no_grad():
        network[0].weight.fill_(math.nan)
    with pytest.raises(MisureError, match="NaN or infinite"):
        run(root, tmp_path / "toy.safetensors", network=network)
    assert not (tmp_path / "toy.safetensors").exists()


def test_a_curriculum_shows_its_stages_in_order(root, tmp_path):
    network = Watching(*toy_network())
    small = TriangleLayout(48, 8, 24, 8, 10, 0)
    stage = Stage(0.5, TriangleDataset("train", 30, root, small))
    run(root, tmp_path / "toy.safetensors", network=network, curriculum=[stage])
    assert network.sizes == [48] * 10 + [64] * 10
