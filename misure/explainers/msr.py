"""MiSuRe (Hasany, Mériaudeau and Petitjean 2024): the minimally sufficient region."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from misure.explainers.mask_optimisation import (
    COPIES,
    DICE_EPSILON,
    Descent,
    LrSchedule,
    MaskProblem,
    PrunedRegion,
    dice_of_pairs,
    segmentation,
    total_variation,
)
from misure.metrics import keep
from misure.models.wrapper import FrozenNetwork
from misure.regions import resized
from misure.target import TargetBatch
from misure.validation import Count, Share, Weight, Whole


@dataclass(frozen=True, kw_only=True)
class MSR(PrunedRegion):
    r"""Both stages: find a sufficient region, then prune it by optimisation (paper 3.1, equation 1).

    .. math::
        \frac{\lambda}{|\Omega|} \sum_u |M(u)| + \gamma \sum_u \|\nabla M(u)\|_\beta^\beta
        + 1 - \sum_{i \in \{0, l\}} \alpha_i \mathrm{Dice}_i(f(X_{SR} \odot M), f(X_0))

    The mask has ``mask_size`` x ``mask_size`` values and is upsampled bilinearly to the image. In a volume it has
    ``mask_size`` values along each axis, or as many as the volume where that is fewer, and is upsampled
    trilinearly. The defaults are the paper's values where it gives one (4.2) and its literal reading elsewhere.

    Reference:
        Hasany, Mériaudeau and Petitjean, MiSuRe is all you need to explain your image segmentation, 2024, sections 3.1
        and 4.2, https://arxiv.org/abs/2406.12173

    Attributes:
        lr: AdamW's learning rate.
        lr_schedule: ``"constant"``; ``"linear"`` lets it fall towards zero over the steps;
            ``"rising"`` lets it rise from its half.
        lam: Lambda, the weight of the mean absolute mask value.
        n_iterations: Optimiser steps.
        mask_size: Side of the mask; in a volume at most the volume's own side. A mask coarser than the image starts
            from some of its pixels (the nearest, as in OpenCV), so that it can miss a thin or small object; a warning
            says so where it misses all of one.
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
        background: What Dice_0 compares the probability of class 0 with: the ``"predicted"`` background, as equation 1
            reads, or the ``"rest"``: all that is not of the class, other objects too, as in the authors' later code.
        dice_over: ``"pair"`` is equation 1. ``"classes"`` is the authors' later code: the class's term is
            (1 - Dice_l) / C and the background's the mean of 1 - Dice_c over all C classes of the head, to which those
            that the reference lacks add 0 (it holds background and the class alone). So alphas of 1 and 1 there count
            the class twice.
        false_positives: Whether the class's term counts class probability outside the object. It does not in the
            authors' later code, whose background term alone does.
        dice_epsilon: Added to a Dice's numerator and denominator; the paper gives no value, the authors' later code
            has 0.

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=MSR(n_iterations=20, mask_size=16))
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (1.0, 1.0)
    """

    name: ClassVar[str] = "msr"
    title: ClassVar[str] = "MSR"

    lr_schedule: LrSchedule = "constant"
    lam: Weight = 0.01
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
    background: Literal["predicted", "rest"] = "predicted"
    dice_over: Literal["pair", "classes"] = "pair"
    false_positives: bool = True
    dice_epsilon: Weight = DICE_EPSILON

    @classmethod
    def author_code(cls, **others: Any) -> Self:
        """Make the method as the authors' later public code has it, with the paper's learning rate, lambda and steps.

        Args:
            **others: Further parameters, or other values of these.
        """
        changed: dict[str, Any] = {"alpha_foreground": 1.0, "clamp_start": 11, "softmax_passes": 2}
        changed |= {"context_value": 0.5, "initial_support": "positive_first_channel", "returned": "last_forward"}
        changed |= {"background": "rest", "dice_over": "classes", "false_positives": False, "dice_epsilon": 0.0}
        return cls(**(changed | others))

    @property
    def descent(self) -> Descent:
        """The optimiser's settings."""
        return Descent(
            lr=self.lr,
            n_iterations=self.n_iterations,
            lr_schedule=self.lr_schedule,
            weight_decay=self.weight_decay,
            clamp_low=self.clamp_low,
            clamp_start=self.clamp_start,
            returned=self.returned,
        )

    def values_held(self, image: Tensor) -> Mapping[str, int]:
        """As many as any pruned region's, of the mask's own shape."""
        return {"mask_size": COPIES * math.prod(mask_shape(self.mask_size, image.shape[1:]))}

    def problem(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch, regions: Tensor) -> MaskProblem:
        """Equation 1 for a batch."""
        size = images.shape[2:]
        baseline = self.fill.baseline(network, images)
        alphas, reference = self.alphas(targets), self._reference(targets)

        def loss(logits: Tensor, _mask: Tensor, seen: Tensor, _iteration: int) -> Tensor:
            size_term = self.lam / size.numel() * seen.abs().flatten(1).sum(1)
            smoothness = self.tv_weight * total_variation(seen, self.tv_beta) if self.tv_weight else 0.0
            return size_term + smoothness + 1 - self._kept(targets, logits, reference, alphas)

        return MaskProblem(
            images=keep(images, regions, baseline),
            baseline=baseline,
            start=self._initial_mask(images, targets, regions),
            seen=lambda mask, _iteration: resized(mask, size),
            loss=loss,
        )

    def _reference(self, targets: TargetBatch) -> Tensor:
        """Return what background and class are compared with: N x 2 x spatial, in [0, 1]."""
        hard = self.dice_target == "hard"
        reference = segmentation(targets) if hard else targets.references * targets.counted[:, None]
        if self.background == "rest":
            own = reference[:, 1]
            reference = torch.stack([(1 - own) * targets.counted, own], 1)
        return reference

    def _kept(self, targets: TargetBatch, logits: Tensor, reference: Tensor, alphas: Tensor) -> Tensor:
        """Return the weighted Dice that the loss is 1 without: N."""
        pairs = targets.probabilities(logits, self.softmax_passes) * targets.counted[:, None]
        dice = scored = dice_of_pairs(pairs, reference, self.dice_epsilon)
        if not self.false_positives:
            inside = targets.regions[:, None]
            own = dice_of_pairs(pairs * inside, reference * inside, self.dice_epsilon)
            scored = torch.stack([dice[:, 0], own[:, 1]], 1)
        if self.dice_over == "pair":
            return (alphas * scored).sum(1)
        n_classes = 2 if targets.multi_label else logits.shape[1]
        lost = ((1 - dice) * (reference.flatten(2).sum(2) > 0)).sum(1)
        return 1 - (alphas * torch.stack([lost, 1 - scored[:, 1]], 1)).sum(1) / n_classes

    def _initial_mask(self, images: Tensor, targets: TargetBatch, regions: Tensor) -> Tensor:
        start = torch.where(targets.regions, 1.0, self.context_value).to(images.dtype) * regions
        if self.initial_support == "positive_first_channel":
            start = start * (images[:, 0] > 0)
        size = mask_shape(self.mask_size, images.shape[2:])
        mask = interpolate(start[:, None], size=size, mode="nearest")[:, 0].clone()
        missed = start.flatten(1).any(1) & ~mask.flatten(1).any(1)
        for i in missed.nonzero().flatten().tolist():
            warnings.warn(
                f"{self.name} starts from an empty mask, so its map says nothing: mask_size={self.mask_size} misses "
                f"all {int(start[i].count_nonzero())} pixels that class {targets.class_ids[i]} needs; give "
                f"mask_size={max(images.shape[2:])}",
                RuntimeWarning,
                stacklevel=2,
            )
        return mask


def mask_shape(side: int, size: torch.Size) -> tuple[int, ...]:
    """Return the shape of the mask of an image (H x W: side x side) or volume (D x H x W: no side beyond its own)."""
    return (side, side) if len(size) == 2 else tuple(min(side, own) for own in size)
