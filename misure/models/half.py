"""Half-precision networks: images and logits change type at their door, everything else is counted in float32."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from misure.models.compute import Precision, PrecisionChoice

_PRECISIONS: dict[torch.dtype, Precision] = {torch.float16: "fp16", torch.bfloat16: "bf16"}

_LARGEST_SCALE = 2.0**40


def is_half(dtype: torch.dtype | None) -> bool:
    """Say whether a network of this type computes in 16 bits."""
    return dtype in _PRECISIONS


def precision_of(dtype: torch.dtype | None) -> PrecisionChoice | None:
    """Return the precision of a network whose own type leaves no choice; None for others."""
    return PrecisionChoice(_PRECISIONS[dtype], "the network's own type") if dtype in _PRECISIONS else None


def counted_in(dtype: torch.dtype) -> torch.dtype:
    """Return the type of masks, sums and results: float32, or float64 where a network or image has it."""
    return torch.promote_types(dtype, torch.float32)


def with_gradients_in_range(run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Run a float16 network on images that want gradients, which inside it are enlarged to where float16 has digits.

    Args:
        run: The network, from images to logits in float32.
        images: float32, N x C x spatial.

    Returns:
        Logits whose gradients, taken to the images, are the right ones.
    """
    scale = torch.ones(1, device=images.device)

    def enlarge(gradient: Tensor) -> Tensor:
        nonlocal scale
        largest = gradient.abs().flatten(1).amax(1)
        scale = torch.exp2(-largest.log2().ceil()).clamp(1, _LARGEST_SCALE).view(-1, *(1,) * (gradient.ndim - 1))
        return gradient * scale

    given = images.view_as(images)
    given.register_hook(lambda gradient: gradient / scale)  # type: ignore[no-untyped-call]
    logits = run(given)
    if logits.requires_grad:
        logits.register_hook(enlarge)  # type: ignore[no-untyped-call]
    return logits
