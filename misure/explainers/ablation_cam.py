"""Ablation-CAM (Desai and Ramaswamy, WACV 2020) with the class's logits over the target as score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from misure.explainers.activations import (
    activations,
    influences,
    no_influence,
    run_through,
    summed_scores,
    without_channels,
)
from misure.explainers.base import SaliencyMaps
from misure.explainers.cam import TYPICAL_CHANNELS, LayerExplainer
from misure.models.wrapper import FrozenNetwork
from misure.regions import resized
from misure.target import TargetBatch


@dataclass(frozen=True, kw_only=True)
class AblationCAM(LayerExplainer):
    r"""Activations of a layer, weighted by the share of the score that is lost without them.

    .. math:: \mathrm{ReLU}\left(\sum_k \frac{y - y_k}{|y|} A^k\right)

    upsampled linearly along each axis to the image, where :math:`y` is the class's logit summed over the target and
    :math:`y_k` the same with channel k set to zero. The magnitude below keeps the sign of a loss where
    logits are negative, which a classifier's score of a predicted class seldom is; a score of exactly 0
    divides by 1. A channel that is zero already loses nothing and gets no pass.

    Attributes:
        layer: Dotted name; None means the model's bottleneck.
    """

    name: ClassVar[str] = "ablation_cam"
    title: ClassVar[str] = "Ablation-CAM"

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass per channel that is not zero, and three for activations, score and a check of the layer.

        Only the network knows how many channels its layer has; a typical number is given.
        """
        return (3 + TYPICAL_CHANNELS, 0)

    @torch.no_grad()
    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return maps >= 0 that are not scaled; memory holds a batch of ablated activations."""
        if not influences(network, images[0], self.layer):
            raise no_influence(network, self.layer)
        maps = [self._map(network, images[i : i + 1], targets[i : i + 1]) for i in range(len(images))]
        return SaliencyMaps(torch.cat(maps))

    def _map(self, network: FrozenNetwork, image: Tensor, target: TargetBatch) -> Tensor:
        features = activations(network, image, self.layer)[0]
        active = (features != 0).flatten(1).any(1).nonzero()[:, 0]

        def work(part: slice) -> Tensor:
            channels = active[part]
            copies = torch.zeros_like(channels)
            logits = run_through(
                network, image[copies], self.layer, lambda a: without_channels(network, a, channels, image.ndim)
            )
            return summed_scores(logits, target[copies])

        whole = summed_scores(network(image), target)
        scores = network.map(work, len(active), image[0], stage="ablating") if len(active) else whole[:0]
        weights = (whole - scores) / torch.where(whole == 0, 1, whole.abs())
        shape = (-1, *(1,) * (features.ndim - 1))
        cam = (weights.to(features.dtype).view(shape) * features[active]).sum(0, keepdim=True)
        return resized(cam.relu(), image.shape[2:])
