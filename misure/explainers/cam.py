"""What class activation maps share: a layer, and what becomes of its activations and gradients."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from misure.explainers.activations import activations_and_gradients
from misure.explainers.base import Explainer, SaliencyMaps
from misure.models.wrapper import FrozenNetwork
from misure.regions import resized
from misure.target import TargetBatch
from misure.validation import Share

TYPICAL_CHANNELS = 512
"""Channels of the deepest stage of a VGG-16, a ResNet-18 or a ResNet-34; a ResNet-50 has 2048."""


@dataclass(frozen=True, kw_only=True)
class LayerExplainer(Explainer):
    """A method that looks at a layer; token layers (N x T x C) go through the model's ``reshape``.

    Attributes:
        layer: Dotted name; None means the model's bottleneck.
    """

    needs_layer: ClassVar[bool] = True

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
            return resized((self.weights(gradient) * activation).sum(1).relu(), images.shape[2:])

        return SaliencyMaps(network.map(work, len(images), images[0]))
