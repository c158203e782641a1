"""Seg-Grad-CAM (Vinogradova, Dibrov and Myers, AAAI 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from misure.explainers.cam import GradientCAM


@dataclass(frozen=True, kw_only=True)
class SegGradCAM(GradientCAM):
    r"""Activations of a layer, weighted by the mean gradient of the class's logits over the target.

    .. math:: \mathrm{ReLU}\left(\sum_k \alpha_k A^k\right), \quad
        \alpha_k = \operatorname{mean}_{uv} \frac{\partial \sum_{ij \in region} y^l_{ij}}{\partial A^k_{uv}}

    upsampled linearly along each axis to the image. Token layers (N x T x C) go through the model's ``reshape``.

    Reference:
        Vinogradova, Dibrov and Myers, Towards Interpretable Semantic Segmentation via Gradient-weighted Class
        Activation Mapping, AAAI 2020, https://arxiv.org/abs/2002.11434

    Attributes:
        layer: Dotted name; None means the model's bottleneck.

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=SegGradCAM(layer="1"))
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (1.0, 1.0)
    """

    name: ClassVar[str] = "seg_grad_cam"
    title: ClassVar[str] = "Seg-Grad-CAM"

    def weights(self, gradient: Tensor) -> Tensor:
        """Return the mean over the layer's positions, N x K x 1 x 1."""
        return gradient.mean(dim=tuple(range(2, gradient.ndim)), keepdim=True)
