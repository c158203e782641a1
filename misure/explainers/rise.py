"""RISE (Petsiuk et al. 2018) with the Dice as score, as the paper uses it (4.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from misure.explainers.base import Explainer, SaliencyMaps
from misure.explainers.perturbation import mask_scores
from misure.models.wrapper import FrozenNetwork
from misure.randomness import integers, uniform
from misure.target import TargetBatch
from misure.validation import Between, Count, Share, Weight

# What a draw is for: the third part of its random key.
_CELL, _SHIFT, _ORDER = range(3)

BLOCK = 50
"""Stratified draws (masks, or pairs of them) that share the strata; 50 holds 0.54, 0.5 and 0.1 exactly."""

CHECKED_EVERY = 100
"""Masks between two looks at the standard error: a whole block of pairs, so that the parts are independent."""


@dataclass(frozen=True, kw_only=True)
class RISE(Explainer):
    """Random masks, weighted by how much of the prediction they preserve.

    The map is ``sum_k dice_k * mask_k / (n_masks * keep_probability)``, in [0, 1 / keep_probability].
    Mask k depends on ``(seed, k)`` alone and is made when its batch needs it. A cell is kept where its uniform
    draw u is below ``keep_probability``. ``antithetic`` and ``stratified`` couple the draws of different masks
    and leave each one uniform, so that the map's expectation stays the same whatever ``keep_probability`` is.

    Reference:
        Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018,
        section 3, https://arxiv.org/abs/1806.07421

    Attributes:
        n_masks: Number of masks; with a ``tolerance`` the largest one.
        grid: Cells along a mask's side.
        keep_probability: Chance that a cell is kept. The paper gives none; 0.54 is what the authors'
            later code amounts to (a normal draw below 0.1).
        style: ``"hard"`` masks of zeros and ones (nearest upsampling, the authors' later code) or
            ``"bilinear"`` ones (the original RISE; linear along every axis of a volume).
        shift: Whether every mask is moved at random by up to a cell.
        antithetic: Masks 2j and 2j + 1 have the same shift and the draws u and 1 - u: complements of each other
            at a keep probability of 0.5, and as opposite as it allows elsewhere.
        stratified: In a block of 50 masks (with ``antithetic``, of 50 pairs) each cell's draws fall one into each
            fiftieth of [0, 1), in random order: it is kept in exactly its share of the block.
        tolerance: Stop an image once its map's standard error (root mean square over pixels, from the means of
            100 masks each) is at most this share of the map's range; looked at after every 100 masks from the
            200th on. None always takes ``n_masks``.

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=RISE(n_masks=200, grid=4))
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (1.0, 5.333333333333333)
    """

    name: ClassVar[str] = "rise"
    title: ClassVar[str] = "RISE"

    thresholds: tuple[Share, ...] = (0.2, 0.4)
    n_masks: Count = 2000
    grid: Count = 7
    keep_probability: Annotated[float, Between(1e-6, 1)] = 0.54
    style: Literal["hard", "bilinear"] = "hard"
    shift: bool = True
    antithetic: bool = False
    stratified: bool = False
    tolerance: Weight | None = None

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass per mask."""
        return (self.n_masks, 0)

    def values_held(self, image: Tensor) -> Mapping[str, int]:
        """The draws of one mask's cells, in 64 bits, with those that share their strata."""
        return {"grid": 4 * (BLOCK if self.stratified else 1) * self.grid ** (image.ndim - 1)}

    @torch.no_grad()
    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return Dice-weighted sums of masks; every image sees the same masks."""
        with network.folded(images[0]):
            sums, counts = self._sums(network, images, targets)
        maps = sums / (counts.view(-1, *(1,) * (sums.ndim - 1)) * self.keep_probability)
        return SaliencyMaps(maps.to(images.dtype))

    def _sums(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> tuple[Tensor, Tensor]:
        """Return each image's weighted sum of masks (float64, N x spatial) and the number of them (float64, N)."""
        total = torch.zeros(targets.regions.shape, dtype=torch.float64, device=images.device)
        counts = torch.zeros(len(images), dtype=torch.float64, device=images.device)
        squares = torch.zeros_like(total) if self.tolerance is not None else None
        baseline = self.fill.baseline(network, images)
        active = torch.arange(len(images), device=images.device)
        for numbers in self._parts():
            before = None if squares is None else total.clone()
            fill = baseline if baseline is None or len(baseline) == 1 else baseline[active]
            scores = mask_scores(
                network,
                images[active],
                targets[active],
                baseline=fill,
                make_masks=lambda k: self.masks(k, images.shape[2:]),
                numbers=numbers,
            )
            done = numbers.start * len(active)
            for image, score, masks in scores:
                total.index_add_(0, active[image], score.view(-1, *(1,) * (masks.ndim - 1)) * masks)
                done += len(image)
                network.tell("masking", done, self.n_masks * len(active), total)
            counts[active] = numbers.stop
            if squares is not None and before is not None:
                squares += (total - before).square()
                active = active[~self._is_settled(total, squares, numbers.stop)[active]]
                if not len(active):
                    break
        return total, counts

    def _parts(self) -> Iterator[range]:
        """Which masks are scored between two looks at the standard error."""
        step = self.n_masks if self.tolerance is None else CHECKED_EVERY
        for first in range(0, self.n_masks, step):
            yield range(first, min(first + step, self.n_masks))

    def _is_settled(self, total: Tensor, squares: Tensor, n_masks: int) -> Tensor:
        """Say which maps are precise enough: bool, N.

        Args:
            total: Sums over all masks, N x spatial.
            squares: Sums of the squared sums over 100 masks each, N x spatial.
            n_masks: How many masks are in the sums.
        """
        n_parts = n_masks // CHECKED_EVERY
        if n_parts < 2 or self.tolerance is None:
            return torch.zeros(len(total), dtype=torch.bool, device=total.device)
        variance = (squares - total.square() / n_parts).clamp(min=0) * n_parts / (n_parts - 1)
        error = variance.flatten(1).mean(1).sqrt()  # of the sum, as its range is
        highest, lowest = total.flatten(1).amax(1), total.flatten(1).amin(1)
        return error <= self.tolerance * (highest - lowest)

    def masks(self, numbers: Tensor, size: torch.Size) -> Tensor:
        """Make masks by number.

        Args:
            numbers: int64, K: which masks.
            size: Height and width, or depth, height and width.

        Returns:
            float32, K x spatial in [0, 1].
        """
        kept = (self.draws(numbers, len(size)) < self.keep_probability).float()
        if self.antithetic:
            numbers = numbers // 2
        first, *middle, last = (self._weights(numbers, axis, length) for axis, length in enumerate(size))
        masks = (first @ kept.flatten(2)).view(*first.shape[:2], *kept.shape[2:])
        for axis, weights in enumerate(middle, 2):
            masks = torch.einsum("kpg,kg...->kp...", weights, masks.movedim(axis, 1)).movedim(1, axis)
        across: Tensor = masks @ last.transpose(1, 2).view(len(last), *(1,) * len(middle), self.grid, -1)
        return across

    def draws(self, numbers: Tensor, rank: int) -> Tensor:
        """Draw the uniform numbers that decide which cells are kept.

        Args:
            numbers: int64, K: which masks.
            rank: Axes of the image.

        Returns:
            float64, K x grid x ... x grid (``rank`` times), in [0, 1].
        """
        cells = torch.arange(self.grid**rank, device=numbers.device)
        drawn = numbers // 2 if self.antithetic else numbers
        draws = uniform(self.seed, drawn[:, None], _CELL, cells)
        if self.stratified:
            draws = (self._strata(drawn, cells) + draws) / BLOCK
        if self.antithetic:
            draws = torch.where((numbers % 2 == 1)[:, None], 1 - draws, draws)
        return draws.view(-1, *(self.grid,) * rank)

    def _strata(self, drawn: Tensor, cells: Tensor) -> Tensor:
        """Return each draw's place in its cell's random order of the block: int64, K x cells, 0..BLOCK - 1."""
        block, place = drawn // BLOCK, drawn % BLOCK
        keys = uniform(
            self.seed, block[:, None, None], _ORDER, cells[:, None], torch.arange(BLOCK, device=cells.device)
        )
        own = keys.gather(2, place[:, None, None].expand(-1, len(cells), 1))
        return (keys < own).sum(2)

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
