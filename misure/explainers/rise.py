"""RISE (Petsiuk et al. 2018) with the Dice as score, as the paper uses it (4.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from misure.explainers.base import Explainer, SaliencyMaps, check_between, check_choice, check_whole
from misure.metrics import dice, keep
from misure.model import FrozenNetwork
from misure.randomness import integers, uniform
from misure.target import TargetBatch

# What a draw is for: the third part of its random key.
_CELL, _SHIFT = range(2)


@dataclass(frozen=True, kw_only=True)
class RISE(Explainer):
    """Random masks, weighted by how much of the prediction they preserve.

    The map is ``sum_k dice_k * mask_k / (n_masks * keep_probability)``, in [0, 1 / keep_probability].
    Mask k depends on ``(seed, k)`` alone and is made when its batch needs it.

    Attributes:
        n_masks: Number of masks.
        grid: Cells along a mask's side.
        keep_probability: Chance that a cell is kept. The paper gives none; 0.54 is what the authors'
            later code amounts to (a normal draw below 0.1).
        style: ``"hard"`` masks of zeros and ones (nearest upsampling, the authors' later code) or
            ``"bilinear"`` ones (the original RISE).
        shift: Whether every mask is moved at random by up to a cell.
    """

    name: ClassVar[str] = "rise"
    title: ClassVar[str] = "RISE"

    thresholds: tuple[float, ...] = (0.2, 0.4)
    n_masks: int = 2000
    grid: int = 7
    keep_probability: float = 0.54
    style: Literal["hard", "bilinear"] = "hard"
    shift: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("n_masks", self.n_masks, 1)
        check_whole("grid", self.grid, 1)
        check_between("keep_probability", self.keep_probability, 1e-6, 1)
        check_choice("style", self.style, ("hard", "bilinear"))

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass per mask."""
        return (self.n_masks, 0)

    @torch.no_grad()
    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return Dice-weighted sums of masks; every image sees the same masks."""
        total = torch.zeros(targets.regions.shape, dtype=torch.float64, device=images.device)
        baseline = self.fill.baseline(network, images)

        def work(pairs: slice) -> tuple[Tensor, Tensor, Tensor]:
            """Score (mask, image) pairs; pair p is mask p // N on image p % N."""
            pair = torch.arange(pairs.start, pairs.stop, device=images.device)
            number, image = pair // len(images), pair % len(images)
            first, last = pairs.start // len(images), (pairs.stop - 1) // len(images)
            distinct = torch.arange(first, last + 1, device=images.device)
            masks = self.masks(distinct, images.shape[2:])[number - first]
            fill = baseline if baseline is None or len(baseline) == 1 else baseline[image]
            batch = targets[image]
            hits = batch.hits(network(keep(images[image], masks.to(images.dtype), fill)))
            return image, dice(hits, batch.regions), masks

        with network.sustained():
            for done, (image, score, masks) in network.batches(images[0]).attempt(work, self.n_masks * len(images)):
                total.index_add_(0, image, score[:, None, None] * masks)
                network.tell("masking", done.stop, self.n_masks * len(images), total)
        return SaliencyMaps((total / (self.n_masks * self.keep_probability)).to(images.dtype))

    def masks(self, numbers: Tensor, size: torch.Size) -> Tensor:
        """Make masks by number.

        Args:
            numbers: int64, K: which masks.
            size: Height and width.

        Returns:
            float32, K x H x W in [0, 1].
        """
        cells = torch.arange(self.grid**2, device=numbers.device)
        kept = uniform(self.seed, numbers[:, None], _CELL, cells[None]) < self.keep_probability
        kept = kept.view(-1, self.grid, self.grid).float()
        rows, columns = (self._weights(numbers, axis, length) for axis, length in enumerate(size))
        return rows @ kept @ columns.transpose(1, 2)

    def _weights(self, numbers: Tensor, axis: int, length: int) -> Tensor:
        """How much each pixel along an axis takes from each grid cell: K x length x grid.

        The grid is stretched over (grid + 1) cells of ceil(length / grid) pixels and cropped at the
        mask's shift, as in the RISE recipe.
        """
        cell = -(-length // self.grid)
        offset = torch.zeros_like(numbers)
        if self.shift:
            offset = integers(0, cell - 1, self.seed, numbers, _SHIFT, axis)
        pixel = torch.arange(length, device=numbers.device)[None] + offset[:, None]
        stretched = (self.grid + 1) * cell
        cells = torch.arange(self.grid, device=numbers.device)
        if self.style == "hard":
            return (pixel[..., None] * self.grid // stretched == cells).float()
        centre = ((pixel + 0.5) * self.grid / stretched - 0.5).clamp(0, self.grid - 1)  # in units of grid cells
        return (1 - (centre[..., None] - cells).abs()).clamp(min=0).float()
