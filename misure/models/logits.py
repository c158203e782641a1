"""Logits out of whatever a segmentation network returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from misure.errors import MisureError
from misure.regions import resized


def to_logits(output: Any, images: Tensor, *, multi_label: bool = False) -> Tensor:
    """Normalise a network's output to logits N x L x spatial of the images' size.

    Args:
        output: A tensor, a dict with ``out`` or ``logits``, an object with ``.logits``, or a sequence that begins with
            one of these.
        images: N x C x spatial, what it was given.
        multi_label: Keep a single channel as it is, rather than making it the two logits ``(0, z)``.

    Returns:
        Smaller logits are upsampled, bilinearly or in volumes trilinearly.

    Raises:
        MisureError: If no logits can be found in the output, or their shape does not fit.
    """
    logits = _find_tensor(output)
    if logits.ndim == images.ndim - 1 and logits.shape[0] == images.shape[0]:
        logits = logits[:, None]
    if logits.ndim != images.ndim or logits.shape[0] != images.shape[0]:
        raise MisureError(
            f"the network returned shape {tuple(logits.shape)} for images {tuple(images.shape)}: "
            "expected N x classes x H x W"
        )
    logits = resized(logits, images.shape[2:])
    if logits.shape[1] == 1 and not multi_label:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    return logits


def _find_tensor(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        for key in ("out", "logits"):
            if key in output:
                return _find_tensor(output[key])
    elif hasattr(output, "logits"):
        return _find_tensor(output.logits)
    elif isinstance(output, Sequence) and output and not isinstance(output, str):
        return _find_tensor(output[0])
    keys = f" with keys {sorted(output)}" if isinstance(output, Mapping) else ""
    raise MisureError(
        f"the network returned {type(output).__name__}{keys}; expected logits as a tensor, under 'out' or as .logits"
    )
