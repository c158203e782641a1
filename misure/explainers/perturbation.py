"""Dice scores of many masks on many images, for RISE and occlusion."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from misure.metrics import dice, keep
from misure.models.wrapper import FrozenNetwork
from misure.target import TargetBatch


def mask_scores(
    network: FrozenNetwork,
    images: Tensor,
    targets: TargetBatch,
    *,
    baseline: Tensor | None,
    make_masks: Callable[[Tensor], Tensor],
    numbers: range,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Score masks by the Dice that they preserve, a batch of (mask, image) pairs at a time.

    Masks are made when their batch needs them, so that memory stays bounded by the batch.

    Args:
        network: The frozen network.
        images: N x C x spatial.
        targets: One per image.
        baseline: What switched-off pixels become, broadcastable to the images; None means zero.
        make_masks: Masks (float32, K x spatial, in [0, 1]) for their numbers (int64, K).
        numbers: Which masks; every image gets all of them, mask by mask.

    Yields:
        For K pairs: the image's index (int64, K), the Dice (float64, K) and the mask (K x spatial).
    """

    def work(pairs: slice) -> tuple[Tensor, Tensor, Tensor]:
        pair = torch.arange(pairs.start, pairs.stop, device=images.device)
        place, image = pair // len(images), pair % len(images)
        first, last = pairs.start // len(images), (pairs.stop - 1) // len(images)
        distinct = torch.arange(numbers.start + first, numbers.start + last + 1, device=images.device)
        masks = make_masks(distinct)[place - first]
        fill = baseline if baseline is None or len(baseline) == 1 else baseline[image]
        batch = targets[image]
        hits = batch.hits(network(keep(images[image], masks.to(images.dtype), fill)))
        return image, dice(hits, batch.regions), masks

    for _, done in network.batches(images[0]).attempt(work, len(numbers) * len(images)):
        yield done
