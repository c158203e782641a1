"""Ablation-CAM (Desai and Ramaswamy, WACV 2020) with the class's logits over the target as score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from misure.explainers.activations import (
    influences,
    no_influence,
    run_through,
    summed_scores,
    without_channels,
)
from misure.explainers.base import SaliencyMaps
from misure.explainers.cam import TYPICAL_CHANNELS, ChannelCAM, ChannelScoring
from misure.models.wrapper import FrozenNetwork
from misure.target import TargetBatch


@dataclass(frozen=True, kw_only=True)
class AblationCAM(ChannelCAM):
    r"""Activations of a layer, weighted by the share of the score that is lost without them.

    .. math:: \mathrm{ReLU}\left(\sum_k \frac{y - y_k}{|y|} A^k\right)

    upsampled linearly along each axis to the image, where :math:`y` is the class's logit summed over the target and
    :math:`y_k` the same with channel k set to zero. The magnitude below keeps the sign of a loss where
    logits are negative, which a classifier's score of a predicted class seldom is; a score of exactly 0
    divides by 1. A channel that is zero already loses nothing and gets no pass.

    Reference:
        Desai and Ramaswamy, Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free
        Localization, WACV 2020, https://doi.org/10.1109/WACV45572.2020.9093360

    Attributes:
        layer: Dotted name; None means the model's bottleneck.

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=AblationCAM(layer="1"))
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (1.0, 1.0)
    """

    name: ClassVar[str] = "ablation_cam"
    title: ClassVar[str] = "Ablation-CAM"
    stage: ClassVar[str] = "ablating"

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass per channel that is not zero, and three for activations, score and a check of the layer.

        Only the network knows how many channels its layer has; a typical number is given.
        """
        return (3 + TYPICAL_CHANNELS, 0)

    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return maps >= 0 that are not scaled.

        Raises:
            MisureError: If the logits do not depend on the layer.
        """
        if not influences(network, images[0], self.layer):
            raise no_influence(network, self.layer)
        return super().saliency_maps(network, images, targets)

    def speaking(self, features: Tensor) -> Tensor:
        """Channels that are not zero."""
        return (features != 0).flatten(1).any(1)

    def scoring(
        self,
        network: FrozenNetwork,
        image: Tensor,
        target: TargetBatch,
        features: Tensor,  # noqa: ARG002
    ) -> ChannelScoring:
        """Score the image without each channel; weights are lost shares."""
        whole = summed_scores(network(image), target)

        def score(channels: Tensor) -> Tensor:
            copies = torch.zeros_like(channels)
            logits = run_through(
                network, image[copies], self.layer, lambda a: without_channels(network, a, channels, image.ndim)
            )
            return summed_scores(logits, target[copies])

        return score, lambda scores: (whole - scores) / torch.where(whole == 0, 1, whole.abs())
