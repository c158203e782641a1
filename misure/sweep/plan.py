"""What must be computed, in which order, and how long it will take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from omegaconf import DictConfig

from misure.config import build, compute_of
from misure.models.checkpoint import without_pretrained
from misure.models.compute import AS_CONFIGURED, PrecisionChoice, default_device, seconds_of
from misure.models.wrapper import SegmentationModel, frozen
from misure.sweep.experiment import Experiment


def merge(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Drop repeated experiments, keeping the larger number of samples; the first one's place counts."""
    merged: dict[str, Experiment] = {}
    for experiment in experiments:
        key = json.dumps([records_key(experiment), asdict(experiment.sampling)])
        known = merged.get(key)
        most = max(experiment.n_samples, known.n_samples if known else 0)
        merged[key] = replace(known or experiment, n_samples=most)
    return list(merged.values())


def records_key(experiment: Experiment) -> str:
    """Identify the records that an experiment makes: experiments of one key share those of their common samples."""
    return json.dumps(
        [
            experiment.subject,
            experiment.explainer.name,
            experiment.explainer.parameters,
            experiment.input_noise,
            experiment.intervention.text,
        ]
    )


def rounds(experiments: Sequence[Experiment], step: int) -> list[tuple[Experiment, range]]:
    """Order the work so that stopping early leaves every experiment with the same share of its samples.

    The cells of a table want equally many, so they are left with the same first samples.

    Args:
        experiments: Merged experiments.
        step: Samples explained together.

    Returns:
        Experiments and the ranks of the samples they explain next.
    """
    work = [
        (experiment, range(start, min(start + step, experiment.n_samples)))
        for experiment in experiments
        for start in range(0, experiment.n_samples, step)
    ]
    return sorted(work, key=lambda turn: share_before(*turn))


def share_before(experiment: Experiment, ranks: range) -> float:
    """Which share of the samples has been explained, by experiments that do not wait, when some ranks' turn comes."""
    return experiment.after + (1 - experiment.after) * ranks.start / experiment.n_samples


_NATIVE_SIDE = 600  # photographs at their own aspect, shorter side 520: 520 x 693 pixels are usual


@dataclass(frozen=True)
class Pace:
    """Measured seconds per image of a network on this machine.

    Attributes:
        forward: Of a forward pass.
        gradient: Of a forward pass and the gradient to the image.
        step: Of a training step (forward pass and gradients to all weights).
        choice: The precision of these passes.
    """

    forward: float
    gradient: float
    step: float
    choice: PrecisionChoice = field(default_factory=lambda: PrecisionChoice("32", AS_CONFIGURED))

    def explaining(self, experiment: Experiment) -> float:
        """Estimate the seconds of one explanation, evaluation included."""
        forwards, gradients = experiment.explainer.passes
        n_evaluations = 2 + len(experiment.explainer.thresholds)
        return (forwards + n_evaluations) * self.forward + gradients * self.gradient

    def training(self, cfg: DictConfig) -> float:
        """Estimate the seconds of training, validation included."""
        recipe = build(cfg.training)
        validations = recipe.max_epochs / recipe.validate_every * recipe.validation_samples
        seconds = recipe.max_epochs * recipe.samples_per_epoch * self.step + validations * self.forward
        return float(min(seconds, 60 * recipe.max_minutes))


def measure_pace(cfg: DictConfig, model: SegmentationModel | None = None) -> Pace:
    """Time a network on this machine; an untrained one serves as well.

    Args:
        cfg: A run configuration; with ``precision=auto`` the faster precision is found and timed.
        model: The network; by default one is built with random weights.
    """
    if model is None:
        model = SegmentationModel(build(cfg.model.network, **without_pretrained(cfg.model.network)))
    device = default_device()
    model.to(device)
    side = side_of(cfg)
    images = torch.rand(8 if device.type == "cuda" else 1, cfg.dataset.in_channels, side, side, device=device)
    with frozen(model, compute_of(cfg), device) as lent:
        choice = lent.settle(images[0])
        forward = seconds_of(lambda: lent.predict(images), device, times=2)
        leaf = images.clone().requires_grad_()
        gradient = seconds_of(lambda: torch.autograd.grad(lent(leaf).sum(), leaf), device, times=2)
    # Gradients to the weights cost about as much as those to the activations.
    forward, gradient = forward / len(images), gradient / len(images)
    return Pace(forward, gradient, 2 * gradient - forward, choice)


def side_of(cfg: DictConfig) -> int:
    """Side of the square with about as many pixels as the images have."""
    return cfg.dataset.size if isinstance(cfg.dataset.size, int) else _NATIVE_SIDE


def duration(seconds: float) -> str:
    """Write a duration for people: ``42 s``, ``3 min``, ``1.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
