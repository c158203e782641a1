"""Masks found by gradient descent: the optimiser, the scores it minimises, and the two kinds of methods built on it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from misure.errors import MisureError
from misure.explainers.base import Explainer, SaliencyMaps
from misure.explainers.sufficient_region import SufficientRegion
from misure.metrics import keep
from misure.models.wrapper import FrozenNetwork
from misure.target import TargetBatch
from misure.validation import Count, Share, Weight

DICE_EPSILON = 1e-7
"""The epsilon of equation 1, which the paper leaves open; 1e-7 is negligible beside one pixel."""

LrSchedule = Literal["constant", "linear", "rising"]

COPIES = 7
"""Of a mask while it is optimised: itself, gradient, two moments, before the step, chosen, a difference."""


@dataclass(frozen=True)
class MaskProblem:
    """What is minimised over the masks of N images, each image by itself.

    Attributes:
        images: N x C x spatial.
        baseline: What blends in where the mask is below 1, broadcastable to the images; None means zero.
        start: First masks, N x cells.
        seen: Turns masks (N x cells) at an iteration into what the network sees through, N x spatial in [0, 1].
        loss: Losses (N) of the logits, the masks and what was seen through, at an iteration.
    """

    images: Tensor
    baseline: Tensor | None
    start: Tensor
    seen: Callable[[Tensor, int], Tensor]
    loss: Callable[[Tensor, Tensor, Tensor, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class Descent:
    """AdamW over the values of masks, which are clipped to [0, 1] after every step.

    Attributes:
        lr: Learning rate.
        n_iterations: Steps.
        lr_schedule: ``"linear"`` lets the learning rate fall towards zero over the steps, ``"rising"`` rise from its
            half.
        weight_decay: AdamW's; 0 makes it Adam.
        clamp_low: Smaller mask values become 0 after a step.
        clamp_start: The first step, counted from 0, after which they do.
        returned: Mask after the ``"last"`` step, mask of the ``"last_forward"`` pass, or mask of each image's
            ``"best"`` (lowest) loss.
    """

    lr: float
    n_iterations: int
    lr_schedule: LrSchedule = "constant"
    weight_decay: float = 0.0
    clamp_low: float = 0.0
    clamp_start: int = 0
    returned: Literal["last", "last_forward", "best"] = "last"

    def rate(self, iteration: int) -> float:
        """Return the learning rate of a step, counted from 0; the end of a schedule is after the last."""
        done = iteration / self.n_iterations
        return self.lr * {"constant": 1.0, "linear": 1 - done, "rising": 0.5 + 0.5 * done}[self.lr_schedule]

    @torch.no_grad()
    def clamp(self, mask: Tensor, iteration: int) -> None:
        """Bring masks back into [0, 1] after a step, and zero what is small."""
        mask.clamp_(0, 1)
        if iteration >= self.clamp_start:
            mask.masked_fill_(mask < self.clamp_low, 0)


def minimise(
    network: FrozenNetwork, images: Tensor, problem_of: Callable[[slice], MaskProblem], descent: Descent
) -> tuple[Tensor, Tensor]:
    """Find the masks of images, as many of them together as the memory holds.

    Args:
        network: The frozen network.
        images: N x C x spatial.
        problem_of: What is minimised for a part of the images.
        descent: How.

    Returns:
        What the network sees through in the end (N x spatial, in [0, 1]) and the losses (iterations x N).

    Raises:
        MisureError: If the network gives no gradients, or a loss is not finite.
    """

    def work(part: slice) -> tuple[Tensor, Tensor]:
        problem = problem_of(part)
        mask, losses = descend(network, problem, descent, first_image=part.start)
        seen = problem.seen(mask, descent.n_iterations)
        return seen.clamp(0, 1), losses.T  # interpolating ones can round above 1

    with network.folded(images[0]):
        masks, losses = network.map(work, len(images), images[0])
    return masks, losses.T


def descend(
    network: FrozenNetwork, problem: MaskProblem, descent: Descent, *, first_image: int = 0
) -> tuple[Tensor, Tensor]:
    """Run AdamW over the masks of one problem.

    It works value by value and every image has its own loss, so the images do not influence each other.

    Args:
        network: The frozen network.
        problem: What is minimised.
        descent: How.
        first_image: Which image of the batch is the problem's first, for who watches.

    Returns:
        The masks (N x cells) and the losses (iterations x N).

    Raises:
        MisureError: As :func:`minimise`.
    """
    mask = problem.start.detach().clone().requires_grad_()
    optimiser = torch.optim.AdamW([mask], lr=descent.lr, weight_decay=descent.weight_decay)
    chosen, lowest = mask.detach(), mask.new_full((len(mask),), torch.inf)
    losses = []
    for iteration in range(descent.n_iterations):
        before = mask.detach().clone()
        seen = problem.seen(mask, iteration)
        logits = network(keep(problem.images, seen, problem.baseline))
        if not logits.requires_grad:
            raise MisureError("the network gives no gradients to optimise with: choose another method, such as rise")
        loss = problem.loss(logits, mask, seen, iteration)
        (mask.grad,) = torch.autograd.grad(loss.sum(), mask)
        losses.append(loss.detach())
        if descent.returned == "last_forward":
            chosen = before
        elif descent.returned == "best":
            better = losses[-1] < lowest
            lowest = torch.where(better, losses[-1], lowest)
            chosen = torch.where(better.view(-1, *(1,) * (mask.ndim - 1)), before, chosen)
        optimiser.param_groups[0]["lr"] = descent.rate(iteration)
        optimiser.step()
        descent.clamp(mask, iteration)
        network.tell("minimising", iteration + 1, descent.n_iterations, mask.detach(), first_image)
    curves = torch.stack(losses)
    if not bool(curves.isfinite().all()):
        raise MisureError("the loss became NaN or infinite: try precision=32 or a smaller lr")
    return chosen, curves


@dataclass(frozen=True, kw_only=True)
class OptimisedMask(Explainer):
    """A coarse mask over the whole image, found by Adam; subclasses say what is minimised.

    Attributes:
        grid: Cells of the mask along every axis; it is interpolated linearly to the image.
        lam: Weight of the mean mask value.
        lr: Adam's learning rate.
        n_iterations: Optimiser steps.
    """

    needs_gradients: ClassVar[bool] = True

    thresholds: tuple[Share, ...] = (0.2, 0.5)
    grid: Count = 28
    lam: Weight = 0.1
    lr: Weight = 0.1
    n_iterations: Count = 100

    @property
    def passes(self) -> tuple[int, int]:
        """One gradient per iteration."""
        return (0, self.n_iterations)

    def values_held(self, image: Tensor) -> Mapping[str, int]:
        """The mask, its gradient, the optimiser's moments and copies."""
        return {"grid": COPIES * self.grid ** (image.ndim - 1)}

    @abstractmethod
    def problem(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> MaskProblem:
        """Say what is minimised for a batch."""

    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return the interpolated masks, in [0, 1]."""
        masks, curves = minimise(
            network,
            images,
            lambda part: self.problem(network, images[part], targets[part]),
            Descent(lr=self.lr, n_iterations=self.n_iterations),
        )
        return SaliencyMaps(masks, curves=curves)


@dataclass(frozen=True, kw_only=True)
class PrunedRegion(SufficientRegion):
    """Stage 2 of MiSuRe: a mask within the sufficient region, found by AdamW; subclasses say what is minimised.

    Attributes:
        lr: AdamW's learning rate.
        n_iterations: Optimiser steps.
        mask_size: Cells of the mask along every axis.
        alpha_foreground: Weight of the class's Dice.
        alpha_background: Weight of the background's Dice, where the background is not what is explained.
    """

    needs_gradients: ClassVar[bool] = True
    in_pixels: ClassVar[tuple[str, ...]] = ("blur_sigma", "dilation_radius", "mask_size")

    lr: Weight = 0.1
    n_iterations: Count = 100
    mask_size: Count = 224
    alpha_foreground: Weight = 2.0
    alpha_background: Weight = 1.0

    @property
    def passes(self) -> tuple[int, int]:
        """Stage 1's forward passes and one gradient per iteration."""
        return (super().passes[0], self.n_iterations)

    @property
    def descent(self) -> Descent:
        """The optimiser's settings."""
        return Descent(lr=self.lr, n_iterations=self.n_iterations)

    def values_held(self, image: Tensor) -> Mapping[str, int]:
        """The mask, its gradient, the optimiser's moments and copies."""
        return {"mask_size": COPIES * self.mask_size ** (image.ndim - 1)}

    @abstractmethod
    def problem(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch, regions: Tensor) -> MaskProblem:
        """Say what is minimised for a batch with these sufficient regions (bool, N x spatial)."""

    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return the masks at the images' size, in [0, 1]."""
        regions, n_dilations = self.sufficient_regions(network, images, targets)
        masks, curves = minimise(
            network,
            images,
            lambda part: self.problem(network, images[part], targets[part], regions[part]),
            self.descent,
        )
        return SaliencyMaps(masks, regions, n_dilations, curves)

    def alphas(self, targets: TargetBatch) -> Tensor:
        """Return the weights of the background's and the class's Dice, N x 2."""
        alphas = targets.references.new_tensor([self.alpha_background, self.alpha_foreground])
        alphas = alphas.repeat(len(targets.class_ids), 1)
        alphas[targets.are_background, 0] = 0
        return alphas


def segmentation(targets: TargetBatch) -> Tensor:
    """Return where background and class were predicted on the unperturbed image: zeros and ones, N x 2 x spatial."""
    return torch.stack([targets.backgrounds, targets.regions], 1).to(targets.references.dtype)


def soft_dice(targets: TargetBatch, logits: Tensor, reference: Tensor) -> Tensor:
    """Dice of background and class probabilities with a reference (N x 2 x spatial), N x 2 in [0, 1]."""
    return dice_of_pairs(targets.probabilities(logits) * targets.counted[:, None], reference)


def dice_of_pairs(pairs: Tensor, reference: Tensor, epsilon: float = DICE_EPSILON) -> Tensor:
    """Dice of soft masks with others, N x 2 in [0, 1].

    Args:
        pairs: N x 2 x spatial, in [0, 1].
        reference: N x 2 x spatial, in [0, 1].
        epsilon: Added to numerator and denominator; the denominator is at least 1e-7 anyway.
    """
    pairs, reference = pairs.flatten(2), reference.flatten(2)
    overlap = (pairs * reference).sum(2)
    return (2 * overlap + epsilon) / (pairs.sum(2) + reference.sum(2) + epsilon).clamp_min(DICE_EPSILON)


def total_variation(mask: Tensor, beta: float) -> Tensor:
    """Sum of absolute neighbour differences to the power beta along every axis: N, for masks N x cells."""
    differences = [mask.diff(dim=axis).abs().pow(beta).flatten(1).sum(1) for axis in range(1, mask.ndim)]
    return torch.stack(differences).sum(0)
