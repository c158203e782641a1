"""Occlusion (Zeiler and Fergus 2014) with the Dice as score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from misure.errors import MisureError
from misure.explainers.base import Explainer, SaliencyMaps
from misure.explainers.perturbation import mask_scores
from misure.models.wrapper import FrozenNetwork
from misure.target import TargetBatch
from misure.validation import Count, Share

_TYPICAL_SIDE = 224


@dataclass(frozen=True, kw_only=True)
class Occlusion(Explainer):
    """How much Dice is lost when a window of pixels is switched off.

    The window slides over the image; a pixel's value is the mean loss, 1 - Dice, of the windows that cover it, in
    [0, 1]. Windows that reach over the image's end are cut there.

    Reference:
        Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, section 4.2,
        https://arxiv.org/abs/1311.2901

    Attributes:
        window: Side of the window, in pixels.
        stride: Pixels between windows, at most ``window``.

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=Occlusion(window=4, stride=2))
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (1.0, 1.4285714285714286)
    """

    name: ClassVar[str] = "occlusion"
    title: ClassVar[str] = "Occlusion"
    in_pixels: ClassVar[tuple[str, ...]] = ("blur_sigma", "window", "stride")
    map_is_mask: ClassVar[bool] = False

    thresholds: tuple[Share, ...] = (0.2, 0.4)
    window: Count = 16
    stride: Count = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride > self.window:
            raise MisureError(
                f"stride={self.stride} leaves out pixels between windows of {self.window}: choose at most that"
            )

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass per window; counted for an image of 224 x 224."""
        return (len(self._starts(_TYPICAL_SIDE)) ** 2, 0)

    @torch.no_grad()
    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return mean losses over windows, N x spatial."""
        size = images.shape[2:]
        lost = torch.zeros(targets.regions.shape, dtype=torch.float64, device=images.device)
        covered = torch.zeros_like(lost)
        n_windows = math.prod(len(self._starts(length)) for length in size)
        pairs, done = n_windows * len(images), 0
        scores = mask_scores(
            network,
            images,
            targets,
            baseline=self.fill.baseline(network, images),
            make_masks=lambda numbers: (~self.windows(numbers, size)).float(),
            numbers=range(n_windows),
        )
        with network.folded(images[0]):
            for image, score, masks in scores:
                hidden = 1 - masks.double()
                lost.index_add_(0, image, (1 - score).view(-1, *(1,) * len(size)) * hidden)
                covered.index_add_(0, image, hidden)
                done += len(image)
                network.tell("masking", done, pairs, lost)
        return SaliencyMaps((lost / covered).to(images.dtype))

    def windows(self, numbers: Tensor, size: torch.Size) -> Tensor:
        """Say which pixels windows cover.

        Args:
            numbers: int64, K: which windows, row by row.
            size: The image's size.

        Returns:
            bool, K x spatial.
        """
        inside = torch.ones(len(numbers), *(1,) * len(size), dtype=torch.bool, device=numbers.device)
        for axis in reversed(range(len(size))):
            starts = torch.tensor(self._starts(size[axis]), device=numbers.device)
            first = starts[numbers % len(starts)]
            numbers = numbers // len(starts)
            pixel = torch.arange(size[axis], device=numbers.device)
            along = (pixel >= first[:, None]) & (pixel < first[:, None] + self.window)
            inside = inside & along.view(len(along), *(-1 if a == axis else 1 for a in range(len(size))))
        return inside

    def _starts(self, length: int) -> range:
        """Where windows begin along an axis; the last one reaches the end."""
        return range(0, max(length - self.window, 0) + self.stride, self.stride)
