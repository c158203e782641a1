"""Seg-Grad-CAM (Vinogradova, Dibrov and Myers, AAAI 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from misure.errors import MisureError
from misure.explainers.base import Explainer, SaliencyMaps
from misure.model import FrozenNetwork
from misure.target import TargetBatch


@dataclass(frozen=True, kw_only=True)
class SegGradCAM(Explainer):
    r"""Activations of a layer, weighted by the mean gradient of the class's logits over the target.

    .. math:: \mathrm{ReLU}\left(\sum_k \alpha_k A^k\right), \quad
        \alpha_k = \operatorname{mean}_{uv} \frac{\partial \sum_{ij \in region} y^l_{ij}}{\partial A^k_{uv}}

    upsampled bilinearly to the image. Token layers (N x T x C) go through the model's ``reshape``.

    Attributes:
        layer: Dotted name; None means the model's bottleneck.
    """

    name: ClassVar[str] = "seg_grad_cam"
    title: ClassVar[str] = "Seg-Grad-CAM"

    thresholds: tuple[float, ...] = (0.05, 0.1)
    layer: str | None = None

    @property
    def passes(self) -> tuple[int, int]:
        """A single gradient."""
        return (0, 1)

    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return maps >= 0 that are not scaled."""

        def work(part: slice) -> Tensor:
            return self._maps(network, images[part], targets[part])

        done = network.batches(images[0]).attempt(work, len(images))
        return SaliencyMaps(torch.cat([maps for _, maps in done]))

    def _maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> Tensor:
        layer = network.model.layer(self.layer)
        captured: list[Tensor] = []

        def capture(_module: Any, _inputs: Any, output: Any) -> Any:
            activation = output[0] if isinstance(output, tuple) else output
            if not isinstance(activation, Tensor):
                raise MisureError(f"the layer gives a {type(activation).__name__}, not a tensor: name another")
            captured.append(activation.detach().requires_grad_())
            passed_on = captured[-1].clone()  # the next layer may work in place
            return (passed_on, *output[1:]) if isinstance(output, tuple) else passed_on

        handle = layer.register_forward_hook(capture)
        try:
            with torch.enable_grad():
                logits = network(images.detach())
        finally:
            handle.remove()
        if len(captured) != 1:
            raise MisureError(f"layer {self.layer or network.model.bottleneck} ran {len(captured)} times: name another")
        rows = torch.arange(len(images), device=images.device)
        score = (logits[rows, targets.class_ids] * targets.regions).sum()
        gradient = torch.autograd.grad(score, captured, allow_unused=True)[0] if score.requires_grad else None
        if gradient is None:
            raise MisureError(f"layer {self.layer or network.model.bottleneck} does not influence the logits")
        activation, gradient = (_feature_map(network, t.detach().to(images.dtype)) for t in (captured[0], gradient))
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        maps = (weights * activation).sum(1, keepdim=True).relu()
        return interpolate(maps, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def _feature_map(network: FrozenNetwork, activation: Tensor) -> Tensor:
    if activation.ndim != 4 and network.model.reshape is not None:
        activation = network.model.reshape(activation)
    if activation.ndim != 4:
        raise MisureError(
            f"the layer gives shape {tuple(activation.shape)}, not N x C x H x W: name a convolutional layer or give "
            "SegmentationModel(reshape=...)"
        )
    return activation
