"""Extremal perturbation (Fong, Patrick and Vedaldi 2019) as stage 2 of MiSuRe: an area in place of lambda."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from misure.explainers.base import SaliencyMaps
from misure.explainers.mask_optimisation import MaskProblem, PrunedRegion, segmentation, soft_dice
from misure.metrics import keep
from misure.models.wrapper import FrozenNetwork
from misure.target import TargetBatch
from misure.validation import AtLeast, Between, Count, Weight, Whole, check

_SHARPNESS = 20.0
"""Of the smooth maximum: a one among zeros gives more than 0.999999."""


@dataclass(frozen=True, kw_only=True)
class ExtremalPerturbation(PrunedRegion):
    r"""The best mask of a given area within the sufficient region.

    Stage 1 finds the sufficient region; the mask in it minimises

    .. math::
        1 - \sum_{i \in \{0, l\}} \alpha_i \mathrm{Dice}_i(f(X_{SR} \odot M), f(X_0))
        + \frac{w_t}{|SR|} \| \mathrm{sort}(M) - r \|^2

    where the template r is as many ones as the area holds, then zeros: sorting the mask's values and comparing them
    with a step asks for an area and for values of 0 and 1 at once. What the network sees is a smooth maximum over
    each cell's neighbourhood, so that single cells cannot stand alone. It differs from the paper in the Dice as
    score, Adam, a mask that starts at one half, and the weight w_t, which rises linearly from zero to
    ``area_weight`` (the paper's by 0.35 % a step), so that the Dice chooses first. Of the result only the
    ``area``'s number of pixels with the largest values stays, the others become 0: the area is never exceeded.

    Reference:
        Fong, Patrick and Vedaldi, Understanding Deep Networks via Extremal Perturbations and Smooth Masks, ICCV 2019,
        https://arxiv.org/abs/1910.08485

    Attributes:
        area: Share of pixels that the mask may hold.
        area_of: The share is of the ``"sufficient_region"`` or of the ``"object"`` (then it is the perturbation ratio
            that is asked for, as far as the sufficient region is large enough).
        area_weight: Weight of the area term at the last step.
        radius: How far a cell's neighbourhood reaches, in cells; 0 for single cells.
        mask_size: Cells along every axis of the mask.
        lr: Adam's learning rate.
        n_iterations: Optimiser steps.
        alpha_foreground: Weight of the class's Dice.
        alpha_background: Weight of the background's Dice.

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=ExtremalPerturbation(area=0.5, mask_size=16))
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (0.6666666666666666, 0.5)
    """

    name: ClassVar[str] = "extremal_perturbation"
    title: ClassVar[str] = "Extremal perturbation"

    area: Annotated[float, AtLeast(1e-6)] = 0.5
    area_of: Literal["sufficient_region", "object"] = "sufficient_region"
    area_weight: Weight = 10.0
    radius: Annotated[int, Whole(0)] = 1
    mask_size: Count = 56
    lr: Weight = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.area_of == "sufficient_region":
            check("area", self.area, Between(1e-6, 1))

    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return the masks, in [0, 1] and 0 outside the asked area."""
        maps = super().saliency_maps(network, images, targets)
        assert maps.sufficient_region is not None  # noqa: S101 - stage 1 found it
        n_pixels = allowed_cells(self._shares(targets.regions, maps.sufficient_region), maps.sufficient_region)
        return replace(maps, saliency=keep_largest(maps.saliency, n_pixels))

    def _shares(self, objects: Tensor, regions: Tensor) -> Tensor:
        """Return the asked share of each sufficient region: float64, N, at most 1."""
        share = torch.full((len(regions),), self.area, dtype=torch.float64, device=regions.device)
        if self.area_of == "object":
            share = share * objects.flatten(1).sum(1) / regions.flatten(1).sum(1)
        return share.clamp(max=1)

    def problem(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch, regions: Tensor) -> MaskProblem:
        """Say what is minimised for a batch."""
        size = images.shape[2:]
        baseline = self.fill.baseline(network, images)
        cells = interpolate(regions[:, None].to(images.dtype), size=(self.mask_size,) * len(size), mode="nearest")[:, 0]
        inside = cells.flatten(1)
        count = inside.sum(1).clamp(min=1)
        rank = torch.arange(inside.shape[1], device=images.device)
        template = (rank < allowed_cells(self._shares(targets.regions, regions), inside > 0)[:, None]).to(images.dtype)
        alphas, reference = self.alphas(targets), segmentation(targets)

        def seen(mask: Tensor, _iteration: int) -> Tensor:
            return interpolate(smooth_maximum(mask, self.radius)[:, None], size=size, mode="nearest")[:, 0] * regions

        def loss(logits: Tensor, mask: Tensor, _seen: Tensor, iteration: int) -> Tensor:
            values = (smooth_maximum(mask, self.radius).flatten(1) * inside).sort(1, descending=True).values
            excess = (values - template).square().sum(1) / count
            pressure = self.area_weight * iteration / self.n_iterations
            return 1 - (alphas * soft_dice(targets, logits, reference)).sum(1) + pressure * excess

        return MaskProblem(keep(images, regions, baseline), baseline, cells / 2, seen, loss)


def allowed_cells(shares: Tensor, regions: Tensor) -> Tensor:
    """Return how many cells a share of each region is: int64, N, at least 1."""
    return (shares * regions.flatten(1).sum(1)).round().long().clamp(min=1)


def keep_largest(masks: Tensor, counts: Tensor) -> Tensor:
    """Zero all but the ``counts`` (N) largest values of masks (N x spatial); of equal ones the first stay."""
    flat = masks.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    rank = torch.arange(flat.shape[1], device=masks.device).expand_as(order)
    places = torch.empty_like(order).scatter_(1, order, rank)
    return (flat * (places < counts[:, None])).view_as(masks)


def smooth_maximum(masks: Tensor, radius: int) -> Tensor:
    """Take the smooth maximum over each cell and its neighbours.

    Args:
        masks: N x cells, in [0, 1].
        radius: How far neighbours reach, in cells (Euclidean).

    Returns:
        N x cells, in [0, 1]; never above the neighbourhood's largest value.
    """
    if radius == 0:
        return masks
    rank = masks.ndim - 1
    padded = pad(masks, (radius, radius) * rank)
    neighbours = []
    for steps in itertools.product(range(2 * radius + 1), repeat=rank):
        if sum((step - radius) ** 2 for step in steps) <= radius**2:
            part = [slice(step, step + n) for step, n in zip(steps, masks.shape[1:], strict=True)]
            neighbours.append(padded[(slice(None), *part)])
    values = torch.stack(neighbours)
    return (values * (_SHARPNESS * values).softmax(0)).sum(0)
