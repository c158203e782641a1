"""The pace of a network on this machine, measured in the precision that is taken."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from omegaconf import DictConfig

from misure.config import build, compute_of, setup_name
from misure.models import compute as hardware
from misure.models.checkpoint import without_pretrained
from misure.models.compute import AS_CONFIGURED, Compute, PrecisionChoice, default_device, device_name, seconds_of
from misure.models.wrapper import SegmentationModel, frozen
from misure.sweep.experiment import Experiment
from misure.sweep.journal import Journal

_NATIVE_SIDE = 600  # photographs at their own aspect, shorter side 520: 520 x 693 pixels are usual

_TOGETHER = {"cuda": 32}
"""Images explained together, by the kind of device; one on others."""


@dataclass(frozen=True)
class Pace:
    """Measured seconds per image of a network on this machine.

    Attributes:
        forward: Of a forward pass.
        gradient: Of a forward pass and the gradient to the image.
        step: Of a training step (forward pass and gradients to all weights).
        choice: The precision of these passes.
        together: Images explained together: many on a GPU, one on a CPU.
        batch_size: Perturbed images of a pass that fit into the memory; None where images are of many sizes.
    """

    forward: float
    gradient: float
    step: float
    choice: PrecisionChoice = field(default_factory=lambda: PrecisionChoice("32", AS_CONFIGURED))
    together: int = 1
    batch_size: int | None = None

    def pinned(self, experiment: Experiment) -> Experiment:
        """Return an experiment with what was measured, so that it is the same on every machine."""
        return experiment.pinned(self.choice, images_per_step=self.together, batch_size=self.batch_size)

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


def settled_pace(cfg: DictConfig) -> Pace:
    """Time a network in the precision that an earlier run into the same outputs folder measured to be faster.

    Precision is part of a record's identity, so a run that goes on must not choose anew: two precisions that are about
    equally fast would take turns. What is measured is kept in the journal, unless only the plan is asked for.

    Args:
        cfg: A run configuration.

    Raises:
        CannotWriteError: If the outputs folder cannot be written.
    """
    compute, journal = compute_of(cfg), Journal(Path(cfg.outputs))
    if compute.precision != "auto" or not hardware.is_fast_at_bfloat16(default_device()):
        return measure_pace(cfg, compute)
    holds_for = {
        "subject": setup_name(cfg),
        "size": cfg.dataset.size,
        "profile": cfg.profile.name,
        "device": device_name(default_device()),
        "allow_tf32": compute.allow_tf32,
    }
    measured = [entry["choice"] for entry in journal.read("precision") if entry["of"] == holds_for]
    if measured:
        choice = PrecisionChoice(**measured[-1])
        return replace(measure_pace(cfg, replace(compute, precision=choice.setting)), choice=choice)
    pace = measure_pace(cfg, compute)
    if pace.choice.seconds and not cfg.plan_only:
        journal.note(("precision", {"of": holds_for, "choice": asdict(pace.choice)}))
    return pace


def measure_pace(cfg: DictConfig, compute: Compute, model: SegmentationModel | None = None) -> Pace:
    """Time a network on this machine; an untrained one serves as well.

    Args:
        cfg: A run configuration.
        compute: Precision; where it is left open, the faster one is found and timed.
        model: The network; by default one is built with random weights.
    """
    if model is None:
        model = SegmentationModel(build(cfg.model.network, **without_pretrained(cfg.model.network)))
    device = default_device()
    model.to(device)
    side = side_of(cfg)
    images = torch.rand(8 if device.type == "cuda" else 1, cfg.dataset.in_channels, side, side, device=device)
    with frozen(model, compute, device) as lent:
        choice = lent.settle(images[0])
        batch_size = lent.batches(images[0]).size if isinstance(cfg.dataset.size, int) else None
        forward = seconds_of(lambda: lent.predict(images), device, times=2)
        leaf = images.clone().requires_grad_()
        gradient = seconds_of(lambda: torch.autograd.grad(lent(leaf).sum(), leaf), device, times=2)
    # Gradients to the weights cost about as much as those to the activations.
    forward, gradient = forward / len(images), gradient / len(images)
    together = _TOGETHER.get(device.type, 1)
    return Pace(forward, gradient, 2 * gradient - forward, choice, together, batch_size)


def side_of(cfg: DictConfig) -> int:
    """Return the side of the square with about as many pixels as the images have."""
    return cfg.dataset.size if isinstance(cfg.dataset.size, int) else _NATIVE_SIDE


def duration(seconds: float) -> str:
    """Write a duration for people: ``42 s``, ``3 min``, ``1.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
