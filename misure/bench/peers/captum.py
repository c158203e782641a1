"""Integrated gradients by ``captum``, called directly.

The score is the class's logits, summed over the region; the baseline is zero. Steps go through the network eight at a
time: all at once, which is Captum's default, needs some 10 GB for 50 steps of a VGG-16 U-Net at 224 x 224.
"""

from __future__ import annotations

from captum.attr import IntegratedGradients
from torch import Tensor

from misure.bench.literal import LiteralMap
from misure.explainers import integrated_gradients
from misure.models.wrapper import SegmentationModel
from misure.target import Target

_STEPS_AT_ONCE = 8


def explain(
    model: SegmentationModel, image: Tensor, target: Target, ours: integrated_gradients.IntegratedGradients
) -> LiteralMap:
    """Explain one image (C x H x W): attributions summed over channels, those below zero cut as ours does."""

    def score(images: Tensor) -> Tensor:
        return (model(images, unperturbed=False)[:, target.class_id] * target.region).flatten(1).sum(1)

    method = IntegratedGradients(score)
    attributions = method.attribute(
        image[None], baselines=0, n_steps=ours.n_steps, method=ours.rule, internal_batch_size=_STEPS_AT_ONCE
    )
    return LiteralMap(attributions[0].detach().sum(0).relu())
