"""The training recipe: budget, optimiser, learning-rate schedule and loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from misure.errors import MisureError
from misure.training.processes import summed
from misure.validation import Between, Count, OneOf, Weight, Whole, check_fields

_MOMENTUM = 0.9
_POLYNOMIAL_POWER = 0.9

PRECISION = OneOf(("32", "bf16", "auto", 32))
"""Names of precisions; YAML reads one of them as a number."""

MINUTES = Between(1e-6, math.inf)
"""Time limits."""


class _Devices(Whole):
    """Numbers of devices, or all that there are."""

    def __contains__(self, value: object) -> bool:
        return value == "auto" or super().__contains__(value)

    def __str__(self) -> str:
        return f"{super().__str__()} or auto"


@dataclass(frozen=True)
class Recipe:
    """A training recipe. What it trains does not depend on the number of devices, but for rounding and dropout.

    Attributes:
        batch_size: Images per step, of all devices together: each takes an equal part of them. Batch normalisation and
            the loss are of the whole batch (a Dice loss is not the mean of those of its parts).
        lr: Peak learning rate.
        lr_batch_size: Batch size that ``lr`` is meant for, other sizes scale it linearly; 0 uses ``lr`` as it is.
        optimiser: ``"adamw"``, or ``"sgd"`` with momentum 0.9.
        schedule: ``"cosine"`` or ``"polynomial"`` (power 0.9) descent to zero after the warm-up.
        loss: ``"cross_entropy_plus_dice"`` or TransUNet's ``"half_cross_entropy_half_dice"``.
        weight_decay: The optimiser's.
        warmup: Share of the budget with a linearly rising learning rate.
        max_epochs: Epochs of ``samples_per_epoch`` images at most.
        max_minutes: Wall time at most, resumed sessions added up. Whichever budget is closer to its
            end drives the schedule, so a slow machine still anneals the learning rate.
        samples_per_epoch: Images between two saved states.
        validate_every: Epochs between two validations.
        validation_samples: Images of such a validation.
        gradient_clip: Largest gradient norm; 0 does not clip.
        precision: As in :class:`misure.models.compute.Compute`.
        allow_tf32: Likewise.
        seed: Key of initialisation and order.
        loaders: Data-loading processes of each device.
        devices: GPUs of this machine (processes, on a CPU) that train together, begun and ended by the training itself;
            ``"auto"`` takes as many GPUs as there are and divide the batch.
        strategy: What joins several devices, as Lightning calls it; ``"auto"`` is ``"ddp"``. Its other names either
            begin processes in other ways (``ddp_spawn``) or split networks larger than these (``fsdp``).
    """

    batch_size: Count = 4
    lr: Weight = 5e-4
    lr_batch_size: Annotated[int, Whole(0)] = 0
    optimiser: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["cosine", "polynomial"] = "cosine"
    loss: Literal["cross_entropy_plus_dice", "half_cross_entropy_half_dice"] = "cross_entropy_plus_dice"
    weight_decay: Weight = 0.01
    warmup: Annotated[float, Between(0, 0.99)] = 0.05
    max_epochs: Count = 40
    max_minutes: Annotated[float, MINUTES] = math.inf
    samples_per_epoch: Annotated[int, Whole(1, 10**9)] = 140
    validate_every: Count = 1
    validation_samples: Count = 60
    gradient_clip: Weight = 1.0
    precision: Annotated[str | int, PRECISION] = "auto"
    allow_tf32: bool = False
    seed: Annotated[int, Whole(0)] = 0
    loaders: Annotated[int, Whole(0, 1024)] = 0
    devices: Annotated[int | str, _Devices(1, 1024)] = 1
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = "auto"

    def __post_init__(self) -> None:
        check_fields(self, {name: f"training.{name}" for name in self.__dataclass_fields__})
        object.__setattr__(self, "precision", str(self.precision))
        if self.samples_per_epoch < self.batch_size:
            raise MisureError(
                f"training.samples_per_epoch={self.samples_per_epoch} is less than one batch "
                f"(training.batch_size={self.batch_size}): raise it, or take smaller batches"
            )
        if isinstance(self.devices, int) and self.batch_size % self.devices:
            raise MisureError(
                f"training.devices={self.devices} cannot share batches of {self.batch_size} images equally: "
                "let training.batch_size be a multiple of it"
            )

    @property
    def peak_lr(self) -> float:
        """The learning rate at this batch size."""
        return self.lr * self.batch_size / self.lr_batch_size if self.lr_batch_size else self.lr

    def lr_at(self, progress: float) -> float:
        """Return the learning rate when a share ``progress`` of the budget is used."""
        if progress < self.warmup:
            return self.peak_lr * max(progress / self.warmup, 0.02)
        left = 1 - min(1.0, (progress - self.warmup) / (1 - self.warmup))
        return self.peak_lr * SCHEDULES[self.schedule](left)

    def make_optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the optimiser; its learning rate is set before every step."""
        return OPTIMISERS[self.optimiser](parameters, self)

    def loss_of(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the loss of a batch: logits N x L x H x W, masks int64 N x H x W."""
        return LOSSES[self.loss](logits.float(), masks)


def memory_format(device: torch.device, precision: str) -> torch.memory_format:
    """Return the layout that a network is trained in: a CPU's float32 convolutions are as fast contiguous."""
    return torch.channels_last if device.type == "cuda" or precision == "bf16" else torch.contiguous_format


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """One minus the soft Dice, averaged over foreground classes and computed over the batch.

    Args:
        logits: N x L x H x W.
        masks: int64, N x H x W, values 0..L-1.
    """
    overlap, probabilities, truth = _sums(logits, masks, power=1)
    return 1 - ((2 * overlap + 1) / (probabilities + truth + 1))[1:].mean()


def squared_dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """TransUNet's Dice loss: squared probabilities in the denominator, mean over all classes with background."""
    overlap, probabilities, truth = _sums(logits, masks, power=2)
    return 1 - ((2 * overlap + 1e-5) / (probabilities + truth + 1e-5)).mean()


def _sums(logits: Tensor, masks: Tensor, power: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over the whole batch and pixels of probability x truth, probability ** power and truth, by class."""
    probabilities = logits.float().softmax(1)
    truth = one_hot(masks, logits.shape[1]).movedim(-1, 1).to(probabilities.dtype)
    axes = (0, *range(2, logits.ndim))
    sums = (probabilities * truth).sum(axes), probabilities.pow(power).sum(axes), truth.sum(axes)
    overlap, sizes, true_sizes = summed(torch.stack(sums))
    return overlap, sizes, true_sizes


def _adamw(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=recipe.peak_lr, weight_decay=recipe.weight_decay, fused=True)


def _sgd(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters, lr=recipe.peak_lr, momentum=_MOMENTUM, weight_decay=recipe.weight_decay, fused=True
    )


OPTIMISERS: dict[str, Callable[[Iterable[nn.Parameter], Recipe], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
}

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda left: 0.5 * (1 - math.cos(math.pi * left)),
    "polynomial": lambda left: left**_POLYNOMIAL_POWER,
}
"""Learning-rate factor by the share of the descent that is left."""

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy_plus_dice": lambda logits, masks: cross_entropy(logits, masks) + dice_loss(logits, masks),
    "half_cross_entropy_half_dice": lambda logits, masks: (
        0.5 * cross_entropy(logits, masks) + 0.5 * squared_dice_loss(logits, masks)
    ),
}
