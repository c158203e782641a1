"""Score-CAM (Wang et al., CVPR Workshops 2020) with the Dice as score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from misure.explainers.activations import summed_scores
from misure.explainers.cam import TYPICAL_CHANNELS, ChannelCAM, ChannelScoring
from misure.metrics import dice, keep, min_max
from misure.models.wrapper import FrozenNetwork
from misure.regions import resized
from misure.target import TargetBatch


@dataclass(frozen=True, kw_only=True)
class ScoreCAM(ChannelCAM):
    r"""Activations of a layer, weighted by how well each serves as a mask of the image.

    .. math:: \mathrm{ReLU}\left(\sum_k w_k A^k\right)

    upsampled linearly along each axis to the image. Channel k's mask is its activation, upsampled and
    min-max scaled; what it switches off becomes the blanking. A channel that is constant shows no place: it gets
    weight 0 and no pass, as in the authors' code.

    Reference:
        Wang et al., Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks, CVPR Workshops
        2020, https://arxiv.org/abs/1910.01279

    Attributes:
        layer: Dotted name; None means the model's bottleneck.
        score: What a channel's weight is on the masked image. ``"dice"``: the Dice of the prediction with the
            target, as in RISE, a reading for segmentation. ``"logit"``: the softmax over channels of the class's
            mean logit over the target, the original's reading (its baseline score cancels in the softmax).

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=ScoreCAM(layer="1"))
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (1.0, 1.0)
    """

    name: ClassVar[str] = "score_cam"
    title: ClassVar[str] = "Score-CAM"
    stage: ClassVar[str] = "masking"

    score: Literal["dice", "logit"] = "dice"

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass for the activations and one per channel that is not constant.

        Only the network knows how many channels its layer has; a typical number is given.
        """
        return (1 + TYPICAL_CHANNELS, 0)

    def speaking(self, features: Tensor) -> Tensor:
        """Channels that are not constant."""
        flat = features.flatten(1)
        return flat.amax(1) > flat.amin(1)

    def scoring(self, network: FrozenNetwork, image: Tensor, target: TargetBatch, features: Tensor) -> ChannelScoring:
        """Score the image behind each channel's mask; logits go through a softmax."""
        baseline = self.fill.baseline(network, image)

        def score(channels: Tensor) -> Tensor:
            masks = min_max(resized(features[channels], image.shape[2:]))
            copies = target[torch.zeros_like(channels)]
            logits = network(keep(image, masks, baseline))
            if self.score == "dice":
                return dice(copies.hits(logits), copies.regions)
            return summed_scores(logits, copies) / copies.regions.flatten(1).sum(1)

        return score, lambda scores: scores if self.score == "dice" else scores.softmax(0)
