"""MiSuRe (Hasany, Mériaudeau and Petitjean 2024): the minimally sufficient region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from misure.errors import MisureError
from misure.explainers.base import SaliencyMaps
from misure.explainers.sufficient_region import SufficientRegion
from misure.metrics import keep
from misure.models.wrapper import FrozenNetwork
from misure.target import TargetBatch
from misure.validation import Count, Share, Weight, Whole

_DICE_EPSILON = 1e-7
"""The epsilon of equation 1, which the paper leaves open; 1e-7 is negligible beside one pixel."""


@dataclass(frozen=True, kw_only=True)
class MSR(SufficientRegion):
    r"""Both stages: find a sufficient region, then prune it by optimisation (paper 3.1, equation 1).

    .. math::
        \frac{\lambda}{|\Omega|} \sum_u |M(u)| + \gamma \sum_u \|\nabla M(u)\|_\beta^\beta
        + 1 - \sum_{i \in \{0, l\}} \alpha_i \mathrm{Dice}_i(f(X_{SR} \odot M), f(X_0))

    The mask has ``mask_size`` x ``mask_size`` values and is upsampled bilinearly to the image. In a volume it has
    ``mask_size`` values along each axis, or as many as the volume where that is fewer, and is upsampled
    trilinearly. The
    defaults are the paper's values where it gives one (4.2) and its literal reading elsewhere.

    Attributes:
        lr: AdamW's learning rate.
        lr_schedule: ``"constant"``, or ``"linear"`` to let it fall towards zero over the steps. That makes the mask
            depend less on rounding.
        lam: Lambda, the weight of the mean absolute mask value.
        n_iterations: Optimiser steps.
        mask_size: Side of the mask; in a volume at most the volume's own side.
        alpha_foreground: Alpha_l, the weight of the class's Dice.
        alpha_background: Alpha_0, the weight of the background's Dice.
        tv_weight: Gamma, the weight of the total variation; the paper gives no value.
        tv_beta: Beta, the exponent of the total variation; the paper gives no value.
        weight_decay: AdamW's; the paper gives no value, 0.01 is PyTorch's default.
        clamp_low: After an iteration, smaller mask values become 0 (and values above 1 become 1).
        clamp_start: First iteration, counted from 0, after which values below ``clamp_low`` are
            zeroed; before it the mask is only clipped to [0, 1]. The authors' later code has 11.
        dice_target: ``"hard"`` compares with the reference segmentation, ``"soft"`` with its probabilities.
        softmax_passes: 1; the authors' later code in effect applies softmax twice. A multi-label sigmoid head takes
            1 alone.
        context_value: Initial mask value inside the sufficient region but outside the object. The
            paper's "arg min over M_SR" reads as 1; the authors' later code has 0.5.
        initial_support: ``"sufficient_region"``, or ``"positive_first_channel"`` to start only from
            pixels of it whose first channel is above zero, as the authors' later code does.
        returned: ``"last"`` iterate after all steps, ``"last_forward"`` (the one the network saw
            last), or ``"best"`` (lowest loss seen).
    """

    name: ClassVar[str] = "msr"
    title: ClassVar[str] = "MSR"
    needs_gradients: ClassVar[bool] = True

    lr: Weight = 0.1
    lr_schedule: Literal["constant", "linear"] = "constant"
    lam: Weight = 0.01
    n_iterations: Count = 100
    mask_size: Count = 224
    alpha_foreground: Weight = 2.0
    alpha_background: Weight = 1.0
    tv_weight: Weight = 0.0
    tv_beta: Weight = 3.0
    weight_decay: Weight = 0.01
    clamp_low: Share = 0.2
    clamp_start: Annotated[int, Whole(0)] = 0
    dice_target: Literal["hard", "soft"] = "hard"
    softmax_passes: Count = 1
    context_value: Share = 1.0
    initial_support: Literal["sufficient_region", "positive_first_channel"] = "sufficient_region"
    returned: Literal["last", "last_forward", "best"] = "last"

    @property
    def passes(self) -> tuple[int, int]:
        """Stage 1's forward passes and one gradient per iteration."""
        return (super().passes[0], self.n_iterations)

    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return the upsampled masks M_MSR, in [0, 1]."""
        regions, n_dilations = self.sufficient_regions(network, images, targets)

        def work(part: slice) -> tuple[Tensor, Tensor]:
            masks, curves = self._minimise(network, images[part], targets[part], regions[part], part.start)
            return masks, curves.T

        with network.folded(images[0]):
            masks, curves = network.map(work, len(images), images[0])
        return SaliencyMaps(masks, regions, n_dilations, curves.T)

    def _minimise(
        self, network: FrozenNetwork, images: Tensor, targets: TargetBatch, regions: Tensor, start: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Run the optimisation for a batch.

        Every image has its own mask values and its own loss term, and AdamW works value by value, so
        the images of a batch do not influence each other.

        Returns:
            Upsampled masks (N x H x W or N x D x H x W) and losses (iterations x N).
        """
        baseline = self.fill.baseline(network, images)
        sufficient = keep(images, regions, baseline)
        loss_of = _Objective(self, targets, images.shape[2:])
        with torch.no_grad():
            mask = self._initial_mask(images, targets.regions, regions).requires_grad_()
            best, best_loss = mask.detach().clone(), torch.full((len(images),), torch.inf, device=images.device)
        optimiser = torch.optim.AdamW([mask], lr=self.lr, weight_decay=self.weight_decay)
        losses = []
        seen = mask.detach().clone()
        for iteration in range(self.n_iterations):
            if self.returned != "last":
                seen = mask.detach().clone()
            upsampled = upsample(mask, images.shape[2:])
            logits = network(keep(sufficient, upsampled, baseline))
            if not logits.requires_grad:
                raise MisureError(
                    "the network gives no gradients to optimise with: choose another method, such as rise"
                )
            loss = loss_of(logits, upsampled)
            (mask.grad,) = torch.autograd.grad(loss.sum(), mask)
            losses.append(loss.detach())
            if self.returned == "best":
                better = losses[-1] < best_loss
                best_loss = torch.where(better, losses[-1], best_loss)
                best = torch.where(better.view(-1, *(1,) * (mask.ndim - 1)), seen, best)
            optimiser.param_groups[0]["lr"] = self._rate(iteration)
            optimiser.step()
            self._clamp(mask, iteration)
            network.tell("minimising", iteration + 1, self.n_iterations, mask.detach(), start)
        final = {"last": mask.detach(), "last_forward": seen, "best": best}[self.returned]
        curves = torch.stack(losses)
        if not bool(curves.isfinite().all()):
            raise MisureError("the loss became NaN or infinite: try precision=32 or a smaller lr")
        return upsample(final, images.shape[2:]).clamp(0, 1), curves  # interpolating ones can round above 1

    def _initial_mask(self, images: Tensor, objects: Tensor, regions: Tensor) -> Tensor:
        start = torch.where(objects, 1.0, self.context_value).to(images.dtype) * regions
        if self.initial_support == "positive_first_channel":
            start = start * (images[:, 0] > 0)
        size = mask_shape(self.mask_size, images.shape[2:])
        return interpolate(start[:, None], size=size, mode="nearest")[:, 0].clone()

    def _rate(self, iteration: int) -> float:
        """Return the learning rate of a step, counted from 0; a linear one would be zero after the last."""
        return self.lr if self.lr_schedule == "constant" else self.lr * (1 - iteration / self.n_iterations)

    @torch.no_grad()
    def _clamp(self, mask: Tensor, iteration: int) -> None:
        mask.clamp_(min=0, max=1)
        if iteration >= self.clamp_start:
            mask.masked_fill_(mask < self.clamp_low, 0)


class _Objective:
    """Equation 1, one value per image."""

    def __init__(self, msr: MSR, targets: TargetBatch, size: torch.Size) -> None:
        self.msr = msr
        self.targets = targets
        self.n_pixels = size.numel()
        if msr.dice_target == "hard":
            reference = torch.stack([targets.backgrounds, targets.regions], 1).to(targets.references.dtype)
        else:
            reference = targets.references * targets.counted[:, None]
        self.reference = reference.flatten(2)
        is_background = targets.are_background
        self.weights = self.reference.new_tensor([msr.alpha_background, msr.alpha_foreground]).repeat(
            len(is_background), 1
        )
        self.weights[is_background, 0] = 0

    def __call__(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return losses, N, for logits N x L x H x W of the masked images and masks N x H x W."""
        return (
            self.msr.lam / self.n_pixels * mask.abs().flatten(1).sum(1)
            + self._total_variation(mask)
            + 1
            - (self.weights * self._soft_dice(logits)).sum(1)
        )

    def _soft_dice(self, logits: Tensor) -> Tensor:
        """Dice of background and class probabilities with the reference, N x 2."""
        pair = self.targets.probabilities(logits, self.msr.softmax_passes)
        pair = (pair * self.targets.counted[:, None]).flatten(2)
        overlap = (pair * self.reference).sum(2)
        return (2 * overlap + _DICE_EPSILON) / (pair.sum(2) + self.reference.sum(2) + _DICE_EPSILON)

    def _total_variation(self, mask: Tensor) -> Tensor | float:
        """Weighted sum of neighbour differences to the power beta, over every axis."""
        if self.msr.tv_weight == 0:
            return 0.0
        differences = (mask.diff(dim=axis) for axis in range(1, mask.ndim))
        return self.msr.tv_weight * sum(d.abs().pow(self.msr.tv_beta).flatten(1).sum(1) for d in differences)


def mask_shape(side: int, size: torch.Size) -> tuple[int, ...]:
    """Return the shape of the mask of an image (H x W: side x side) or volume (D x H x W: no side beyond its own)."""
    return (side, side) if len(size) == 2 else tuple(min(side, own) for own in size)


def upsample(mask: Tensor, size: torch.Size) -> Tensor:
    """Upsample masks to an image size: bilinearly, N x m x m to N x H x W, or trilinearly to N x D x H x W."""
    if mask.shape[1:] == size:
        return mask
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return interpolate(mask[:, None], size=size, mode=mode, align_corners=False)[:, 0]
