"""Measurements on objects that a trained network predicts: their plan, the objects, and the page that is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor

from misure.config import compute_of
from misure.errors import MisureError
from misure.io.atomic import write_atomically
from misure.models.compute import Compute
from misure.models.wrapper import frozen
from misure.paper.table import Column, Table
from misure.sweep.announcement import only_planned
from misure.sweep.experiment import Experiment
from misure.sweep.pace import Pace
from misure.sweep.provenance import hardware
from misure.sweep.setup import Setup, prepare
from misure.target import EmptyTargetError, Target, make_targets


@dataclass(frozen=True)
class PredictedSamples:
    """Images in which a trained network predicts the class to be explained.

    Attributes:
        setup: The dataset and the network.
        images: float32, N x C x H x W, on the network's device.
        targets: One per image.
    """

    setup: Setup
    images: Tensor
    targets: list[Target]

    @classmethod
    def first(cls, cfg: DictConfig, count: int) -> PredictedSamples:
        """Prepare a configuration's setup and take its first samples, in the order of the sweeps.

        Raises:
            MisureError: If the setup cannot be had, or the class is predicted in fewer images.
        """
        setup, experiment = prepare(cfg), Experiment.of(cfg)
        device = setup.model.device or torch.device("cpu")
        images: list[Tensor] = []
        targets: list[Target] = []
        order = setup.samples(experiment.sampling, cfg.seed, compute_of(cfg))
        with frozen(setup.model, Compute("32", 1), device) as network:
            for sample in order:
                if len(images) == count:
                    break
                image = setup.dataset[sample.image]["image"][None].to(device)
                try:
                    targets += make_targets(network, image, sample.class_id)
                except EmptyTargetError:
                    continue
                images.append(image)
        if len(images) < count:
            raise MisureError(f"only {len(images)} objects are predicted, {count} are asked for: ask for {len(images)}")
        return cls(setup, torch.cat(images), targets)

    @property
    def notes(self) -> list[str]:
        """The network and the images of a measurement, a line each."""
        setup, (height, width) = self.setup, self.images.shape[2:]
        return [
            f"Network: {setup.info.name}, weights {setup.info.fingerprint}, {setup.quality}.",
            f"Images: {len(self.images)} of {setup.dataset.source}, {height} x {width}.",
        ]


@dataclass(frozen=True)
class Page:
    """A measurement that is written.

    Attributes:
        name: Of its two files, without suffix.
        text: Markdown.
        numbers: One row per measurement, for the CSV file.
    """

    name: str
    text: str
    numbers: pd.DataFrame

    def write(self, folder: Path) -> str:
        """Write ``<name>.md`` and ``<name>.csv`` and return the text.

        Raises:
            MisureError: If the folder cannot be written.
        """
        write_atomically(folder / f"{self.name}.csv", lambda path: self.numbers.to_csv(path, index=False))
        write_atomically(folder / f"{self.name}.md", lambda path: path.write_text(self.text, encoding="utf-8"))
        return self.text


def document(title: str, notes: Sequence[str], *parts: str) -> str:
    """Lay out a page in Markdown: its title, notes as a list, then tables and paragraphs."""
    return "\n\n".join([f"# {title}", "\n".join(f"- {note}" for note in notes), *parts]) + "\n"


def measured_page(
    cfg: DictConfig,
    what: str,
    n_images: int,
    measure: Callable[[PredictedSamples], Page],
    seconds: Callable[[Pace], float] = lambda _: 0.0,
) -> str:
    """Measure a configuration's network and write the page into ``bench/`` of the outputs folder.

    Args:
        cfg: The configuration; if it asks for the plan only, that is printed and nothing measured.
        what: What is measured, in a few words, for the plan.
        n_images: Images that are explained, with one predicted object each.
        measure: The measurement.
        seconds: Estimates, for the plan, how long it takes.

    Returns:
        The page's text; empty if only the plan is asked for.

    Raises:
        MisureError: If the network or its images cannot be had, or the folder cannot be written.
    """
    if only_planned(cfg, what, seconds):
        return ""
    return measure(PredictedSamples.first(cfg, n_images)).write(Path(cfg.outputs) / "bench")


def frame_table(frame: pd.DataFrame) -> str:
    """Lay out a frame as a Markdown table; numbers have four digits, missing ones are empty."""

    def cell(value: object) -> str:
        return f"{value:.4g}".replace("nan", "") if isinstance(value, float) else str(value)

    return Table("", "", [Column(str(name), str(name), cell) for name in frame], frame).body()


def hardware_name(device: str) -> str:
    """Name the processor that a measurement ran on."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{hardware()['cpu']} (CPU, {torch.backends.cpu.get_cpu_capability()})"
