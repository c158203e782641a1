"""Arithmetic: how much a method's passes need, and how much the processor does at best."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from misure.explainers.base import Explainer
from misure.models.compute import Compute, now
from misure.models.wrapper import SegmentationModel, frozen
from misure.target import Target, TargetBatch

_SIDES = {"cpu": (256, 768, 1536), "cuda": (2048, 4096, 8192)}
_TIMES = 5
_SECONDS = 0.05
"""Emulated products take longer: neither they are repeated nor larger ones made."""

TYPES = {"32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class WorkOfPasses:
    """Floating-point operations of passes on one image (a multiplication and an addition are two).

    Attributes:
        forward: Of a forward pass.
        gradient: Of a forward pass and the gradient of its input, without those of the weights.
        single: Of a whole explanation by a method that looks at a layer; its gradient stops there.
    """

    forward: int
    gradient: int
    single: int | None = None

    @classmethod
    def count(cls, model: SegmentationModel, image: Tensor, target: Target, explainer: Explainer) -> WorkOfPasses:
        """Count on one image, C x H x W, in float32."""
        images = image[None]
        with frozen(model, Compute("32", 1, fold=False), image.device) as network:
            network.batches(image)

            def gradient() -> None:
                given = images.clone().requires_grad_()
                torch.autograd.grad(network(given).sum(), given, allow_unused=True)

            def whole() -> object:
                return explainer.saliency_maps(network, images, TargetBatch.stack([target], image.device))

            single = _counted(whole) if explainer.needs_layer else None
            return cls(_counted(lambda: network.predict(images)), _counted(gradient), single)

    def of(self, explainer: Explainer, n_dilations: int | None = None) -> int:
        """Return the operations of one explanation; known dilations take the place of the typical number."""
        if self.single is not None:
            return self.single
        forward, gradients = explainer.passes
        return (forward if n_dilations is None else n_dilations + 1) * self.forward + gradients * self.gradient


def _counted(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def peak_flops(device: torch.device, precision: str) -> float:
    """Measure the most operations a second that a matrix product in a precision reaches, over a few sizes."""
    best = 0.0
    for side in _SIDES[device.type]:
        seconds = _product_seconds(device, TYPES[precision], side)
        best = max(best, 2 * side**3 / seconds)
        if seconds > _SECONDS:
            break
    return best


def _product_seconds(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Return the median of a few products of square matrices, after one that warms up."""
    generator = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"device": device, "dtype": dtype}
    first, second = (torch.rand(side, side, generator=generator).to(**options) for _ in range(2))
    return median_seconds(lambda: torch.mm(first, second), device, _SECONDS)


def median_seconds(work: Callable[[], object], device: torch.device, longest: float = math.inf) -> float:
    """Return the median of a few runs after one that warms up; a run that takes longer than the longest ends them."""
    seconds: list[float] = []
    for _ in range(1 + _TIMES):
        started = now(device)
        work()
        seconds.append(now(device) - started)
        if seconds[-1] > longest:
            return seconds[-1]
    return statistics.median(seconds[1:])
