"""Base classes of class activation maps: a layer's activations, weighted by gradients or by passes per channel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from misure.explainers.activations import activations, activations_and_gradients
from misure.explainers.base import Explainer, SaliencyMaps
from misure.models.wrapper import FrozenNetwork
from misure.regions import resized
from misure.target import TargetBatch
from misure.validation import Share

TYPICAL_CHANNELS = 512
"""Channels of the deepest stage of a VGG-16, a ResNet-18 or a ResNet-34; a ResNet-50 has 2048."""

ChannelScoring = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""From numbers of channels to their scores, and from all scores to weights."""


@dataclass(frozen=True, kw_only=True)
class LayerExplainer(Explainer):
    """A method that looks at a layer; token layers (N x T x C) go through the model's ``reshape``.

    Attributes:
        layer: Dotted name; None means the model's bottleneck.
    """

    needs_layer: ClassVar[bool] = True
    map_is_mask: ClassVar[bool] = False

    thresholds: tuple[Share, ...] = (0.05, 0.1)
    layer: str | None = None


@dataclass(frozen=True, kw_only=True)
class GradientCAM(LayerExplainer):
    r"""Activations of a layer, weighted by gradients of the class's logits summed over the target.

    .. math:: \mathrm{ReLU}\left(\sum_k w_k A^k\right), \quad
        w = \mathrm{weights}\left(\frac{\partial \sum_{ij \in region} y^l_{ij}}{\partial A}\right)

    upsampled linearly along each axis to the image.
    """

    needs_gradients: ClassVar[bool] = True

    @property
    def passes(self) -> tuple[int, int]:
        """A single gradient."""
        return (0, 1)

    @abstractmethod
    def weights(self, gradient: Tensor) -> Tensor:
        """Make weights from a gradient, N x K x (the layer's size); they broadcast to its shape."""

    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return maps >= 0 that are not scaled."""

        def work(part: slice) -> Tensor:
            activation, gradient = activations_and_gradients(network, images[part], targets[part], self.layer)
            return _class_activation_map(self.weights(gradient), activation, images.shape[2:])

        return SaliencyMaps(network.map(work, len(images), images[0]))


@dataclass(frozen=True, kw_only=True)
class ChannelCAM(LayerExplainer):
    """Activations of a layer, weighted by forward passes that ask about one channel each.

    A channel that says nothing gets no pass and no weight. Memory holds one image's activations and a batch of passes.
    """

    stage: ClassVar[str]
    """The stage that a watcher sees."""

    @abstractmethod
    def speaking(self, features: Tensor) -> Tensor:
        """Say which channels of an activation (K x the layer's size) get a pass: bool, K."""

    @abstractmethod
    def scoring(self, network: FrozenNetwork, image: Tensor, target: TargetBatch, features: Tensor) -> ChannelScoring:
        """Return how to score channels of one image (1 x C x spatial), and how scores become weights.

        Args:
            network: The frozen network.
            image: 1 x C x spatial.
            target: Of that image.
            features: The layer's activation, K x the layer's size.

        Returns:
            A function from numbers of channels (int64, k) to scores (float64, k), and one from all scores to weights.
        """

    @torch.no_grad()
    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return maps >= 0 that are not scaled."""
        maps = [self._map(network, images[i : i + 1], targets[i : i + 1]) for i in range(len(images))]
        return SaliencyMaps(torch.cat(maps))

    def _map(self, network: FrozenNetwork, image: Tensor, target: TargetBatch) -> Tensor:
        features = activations(network, image, self.layer)[0]
        channels = self.speaking(features).nonzero()[:, 0]
        if not len(channels):
            return torch.zeros_like(image[:, 0])
        score, weigh = self.scoring(network, image, target, features)
        scores = network.map(lambda part: score(channels[part]), len(channels), image[0], stage=self.stage)
        weights = weigh(scores).to(features.dtype).view(1, -1, *(1,) * (features.ndim - 1))
        return _class_activation_map(weights, features[None, channels], image.shape[2:])


def _class_activation_map(weights: Tensor, activation: Tensor, size: torch.Size) -> Tensor:
    return resized((weights * activation).sum(1).relu(), size)
