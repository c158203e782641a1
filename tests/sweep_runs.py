"""A toy setup with experiments on it, which the tests of sweeps share."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from hydra import compose
from oracles.toys import PerPixel
from pipeline import TINY
from torch import Tensor, nn

from misure.models.checkpoint import CheckpointInfo
from misure.models.wrapper import SegmentationModel
from misure.sweep.experiment import Experiment
from misure.sweep.pace import Pace
from misure.sweep.recorder import Recorder
from misure.sweep.records import RecordStore
from misure.sweep.runner import Runner
from misure.sweep.sampling import EveryImage
from misure.sweep.setup import Setup
from misure.sweep.turns import explain_turns

EMPTY = 4
"""The sample in which nothing is predicted."""

PACE = Pace(forward=5.0, gradient=5.0, step=5.0)


class Images:
    """Eight images with a bright square, one of them black."""

    source = "drawn by hand"
    fingerprint = "0123456789abcdef"
    stand_in = False

    def group(self, index: int) -> str:
        return f"image {index}"

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image = torch.zeros(1, 24, 24)
        if index != EMPTY:
            image[0, 3 : 6 + index, 4:12] = 0.9
        return {"image": image, "mask": (image[0] > 0).long(), "index": torch.tensor(index)}


def toy_setup(weights: str = "a" * 64, network: nn.Module | None = None) -> Setup:
    """Images with a network, by default one that predicts what is bright."""
    info = CheckpointInfo("toy", {}, None, ("background", "triangle"), 1, {}, {"val_dice": 0.75}, {}, {}, weights)
    return Setup("triangle-unet_vgg16", Images(), lambda: SegmentationModel(network or PerPixel()), info)


def experiment(*overrides: str) -> Experiment:
    """An experiment as configured; needs an initialised Hydra."""
    return Experiment.of(compose("run", [*TINY, "precision='32'", *overrides]))


def make_runner(folder: Path, deadline: float = math.inf, **of_setup: Any) -> Runner:
    return runner_of(Recorder(RecordStore(folder / "records"), toy_setup(**of_setup)), deadline)


def runner_of(recorder: Recorder, deadline: float = math.inf, pace: Any = PACE) -> Runner:
    """A runner whose recorder also explains, in this process."""
    return Runner(
        recorder, pace, lambda turns, until: explain_turns(None, turns, until, lambda _: recorder), deadline=deadline
    )


def plain(name: str, n: int, noise: float = 0.0, **parameters: Any) -> Experiment:
    """An experiment that can be planned and not run."""
    explainer = SimpleNamespace(name=name, parameters=parameters)
    counts = SimpleNamespace(saved_maps=0, stability_samples=0, sanity_samples=0)
    cfg = SimpleNamespace(dataset=SimpleNamespace(name="d", counts=counts), model=SimpleNamespace(name="m"))
    return Experiment(cfg, explainer, n, EveryImage(), noise)
