"""Networks saved for a fixed number of images, or for one image size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from misure.errors import MisureError

Shape = Sequence[int | None]
"""N, C and the spatial sides that a network takes; None where any."""


def in_pieces(run: Callable[[Tensor], Tensor], images: Tensor, shape: Shape, title: str) -> Tensor:
    """Run a network on as many images at a time as it takes.

    A last portion that is too small is filled up with copies of its last image, whose results are dropped.

    Args:
        run: The network, images to logits.
        images: N x C x spatial.
        shape: What it takes.
        title: What messages call it.

    Raises:
        MisureError: If it takes other images.
    """
    if len(shape) != images.ndim or any(
        want not in {None, have} for want, have in zip(shape[1:], images.shape[1:], strict=True)
    ):
        wanted = " x ".join("any" if side is None else str(side) for side in shape[1:])
        given = " x ".join(map(str, images.shape[1:]))
        raise MisureError(f"{title} takes images of {wanted}, not {given}: resize them, or export it for any size")
    size = shape[0] or len(images)
    if size == len(images):
        return run(images)
    parts = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        filling = part[-1:].expand(size - len(part), *part.shape[1:])
        parts.append(run(torch.cat([part, filling]))[: len(part)])
    return torch.cat(parts)
