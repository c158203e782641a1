"""Seconds of a training step beside those of three forward passes, which are as much arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from misure.bench.arithmetic import median_seconds
from misure.errors import MisureError
from misure.models.logits import to_logits
from misure.models.wrapper import SegmentationModel
from misure.training.config import Recipe, memory_format


def training_steps(
    model: SegmentationModel, images: Tensor, masks: Tensor, recipe: Recipe, precisions: Sequence[str]
) -> pd.DataFrame:
    """Time steps of a copy of a network as its training takes them, and forward passes of the same batch (medians).

    Args:
        model: Stays as it is.
        images: float32, N x C x H x W; repeated until they fill the recipe's batch.
        masks: int64, N x H x W, likewise.
        recipe: Gives batch size, optimiser, loss and clipping.
        precisions: ``"32"`` or ``"bf16"``.

    Returns:
        A row per precision: seconds an image of a step and of three forward passes, and their ratio.

    Raises:
        MisureError: If the network is no module.
    """
    if model.module is None:
        raise MisureError("the network is a plain callable: only an nn.Module is trained")
    chosen = torch.arange(recipe.batch_size, device=images.device) % len(images)
    images, masks = images[chosen], masks[chosen]
    return pd.DataFrame([_timed(model.module, images, masks, recipe, precision) for precision in precisions])


def _timed(module: nn.Module, images: Tensor, masks: Tensor, recipe: Recipe, precision: str) -> dict[str, Any]:
    device, layout = images.device, memory_format(images.device, precision)
    network = copy.deepcopy(module).to(memory_format=layout).train().requires_grad_(True)
    optimiser = recipe.make_optimiser(network.parameters())
    batch = images.contiguous(memory_format=layout)

    def forward() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            return to_logits(network(batch), batch)

    def step() -> None:
        optimiser.zero_grad()
        torch.autograd.backward(recipe.loss_of(forward(), masks))
        if recipe.gradient_clip:
            nn.utils.clip_grad_norm_(network.parameters(), recipe.gradient_clip)
        optimiser.step()

    seconds = median_seconds(step, device) / len(images)
    with torch.no_grad():
        three_passes = 3 * median_seconds(forward, device) / len(images)
    numbers = {"step": seconds, "three_passes": three_passes, "ratio": seconds / three_passes}
    return {"precision": precision, "batch_size": len(images), **numbers}
