"""Two baselines, which the paper lacks: every method has to beat them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from misure.explainers.base import Explainer, SaliencyMaps
from misure.models.wrapper import FrozenNetwork
from misure.randomness import uniform
from misure.target import TargetBatch
from misure.validation import Share


@dataclass(frozen=True, kw_only=True)
class PredictionMap(Explainer):
    """The predicted object itself: perturbation ratio 1 for nothing.

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=PredictionMap())
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (1.0, 1.0)
    """

    name: ClassVar[str] = "prediction"
    title: ClassVar[str] = "Prediction itself"

    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:  # noqa: ARG002
        """Return the regions as maps of zeros and ones."""
        return SaliencyMaps(targets.regions.to(images.dtype))


@dataclass(frozen=True, kw_only=True)
class RandomMap(Explainer):
    """Independent uniform values, the same for every image.

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=RandomMap(thresholds=[0.5]))
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (0.6, 2.7857142857142856)
    """

    name: ClassVar[str] = "random_map"
    title: ClassVar[str] = "Random map"

    thresholds: tuple[Share, ...] = (0.2, 0.4)

    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:  # noqa: ARG002
        """Return uniform values in [0, 1)."""
        pixels = torch.arange(images[0, 0].numel(), device=images.device)
        noise = uniform(self.seed, pixels).view(images.shape[2:]).to(images.dtype)
        return SaliencyMaps(noise.expand(targets.regions.shape).clone())
