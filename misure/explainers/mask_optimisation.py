"""What methods that optimise a mask share: the loop, the soft Dice and the total variation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from misure.errors import MisureError
from misure.explainers.base import Explainer, SaliencyMaps
from misure.metrics import keep
from misure.models.wrapper import FrozenNetwork
from misure.target import TargetBatch
from misure.validation import Count, Share, Weight

_DICE_EPSILON = 1e-7
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


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


def minimise(
    network: FrozenNetwork, problem: MaskProblem, *, lr: float, n_iterations: int, first_image: int = 0
) -> tuple[Tensor, Tensor]:
    """Run Adam over masks, clipped to [0, 1] after every step.

    Adam works value by value and every image has its own loss, so the images do not influence each other.

    Args:
        network: The frozen network.
        problem: What is minimised.
        lr: Adam's learning rate.
        n_iterations: Steps.
        first_image: Which image of the batch is the problem's first, for who watches.

    Returns:
        The last masks (N x cells) and the losses (iterations x N).

    Raises:
        MisureError: If the network gives no gradients, or a loss is not finite.
    """
    mask = problem.start.detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([mask], lr=lr)
    losses = []
    for iteration in range(n_iterations):
        seen = problem.seen(mask, iteration)
        logits = network(keep(problem.images, seen, problem.baseline))
        if not logits.requires_grad:
            raise MisureError("the network gives no gradients to optimise with: choose another method, such as rise")
        loss = problem.loss(logits, mask, seen, iteration)
        (mask.grad,) = torch.autograd.grad(loss.sum(), mask)
        losses.append(loss.detach())
        optimiser.step()
        with torch.no_grad():
            mask.clamp_(0, 1)
        network.tell("minimising", iteration + 1, n_iterations, mask.detach(), first_image)
    curves = torch.stack(losses)
    if not bool(curves.isfinite().all()):
        raise MisureError("the loss became NaN or infinite: try precision=32 or a smaller lr")
    return mask.detach(), curves


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

    @abstractmethod
    def problem(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> MaskProblem:
        """Say what is minimised for a batch."""

    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return the interpolated masks, in [0, 1]."""

        def work(part: slice) -> tuple[Tensor, Tensor]:
            problem = self.problem(network, images[part], targets[part])
            mask, curves = minimise(
                network, problem, lr=self.lr, n_iterations=self.n_iterations, first_image=part.start
            )
            return problem.seen(mask, self.n_iterations).clamp(0, 1), curves.T  # interpolating ones can round above 1

        with network.folded(images[0]):
            masks, curves = network.map(work, len(images), images[0])
        return SaliencyMaps(masks, curves=curves.T)


def enlarge(mask: Tensor, size: torch.Size) -> Tensor:
    """Interpolate masks (N x cells) linearly along every axis to an image size (N x spatial)."""
    if mask.shape[1:] == size:
        return mask
    return interpolate(mask[:, None], size=size, mode=_LINEAR[len(size)], align_corners=False)[:, 0]


def soft_dice(targets: TargetBatch, logits: Tensor) -> Tensor:
    """Dice of background and class probabilities with the reference segmentation, N x 2 in [0, 1]."""
    pair = (targets.probabilities(logits) * targets.counted[:, None]).flatten(2)
    reference = torch.stack([targets.backgrounds, targets.regions], 1).flatten(2).to(pair.dtype)
    overlap = (pair * reference).sum(2)
    return (2 * overlap + _DICE_EPSILON) / (pair.sum(2) + reference.sum(2) + _DICE_EPSILON)


def total_variation(mask: Tensor, beta: float) -> Tensor:
    """Sum of absolute neighbour differences to the power beta along every axis: N, for masks N x cells."""
    differences = [mask.diff(dim=axis).abs().pow(beta).flatten(1).sum(1) for axis in range(1, mask.ndim)]
    return torch.stack(differences).sum(0)
