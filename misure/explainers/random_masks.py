"""Random masks by number: a coarse grid of kept cells, moved and enlarged to the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d

from misure.explainers.base import Explainer
from misure.randomness import integers, uniform
from misure.validation import Between, Count

# What a draw is for: the third part of its random key.
_CELL, _SHIFT, _ORDER = range(3)

BLOCK = 50
"""Stratified draws (masks, or pairs of them) that share the strata; 50 holds 0.54, 0.5 and 0.1 exactly."""

FEATURES = 400
"""Blocks of the image, at most, whose shares of a mask a score is regressed on."""


_AT_ONCE = 100
"""Masks whose features are made together: what they are made from is larger than they are."""


@dataclass(frozen=True, kw_only=True)
class RandomMasks(Explainer):
    """A method with random masks. Mask k depends on ``(seed, k)`` alone and is made when its batch needs it.

    A cell is kept where its uniform draw u is below ``keep_probability``.

    Attributes:
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
    """

    grid: Count = 7
    keep_probability: Annotated[float, Between(1e-6, 1)] = 0.54
    style: Literal["hard", "bilinear"] = "hard"
    shift: bool = True
    antithetic: bool = True
    stratified: bool = False

    def masks(self, numbers: Tensor, size: torch.Size) -> Tensor:
        """Make masks by number.

        Args:
            numbers: int64, K: which masks.
            size: Height and width, or depth, height and width.

        Returns:
            float32, K x spatial in [0, 1].
        """
        kept = (self.draws(numbers, len(size)) < self.keep_probability).float()
        return _blended(kept, [self._weights(self._offsets(numbers, a, n), n) for a, n in enumerate(size)])

    def features(self, numbers: Tensor, size: torch.Size) -> Tensor:
        """Compute masks' means over blocks of the image.

        Args:
            numbers: int64, K: which masks.
            size: Of the image.

        Returns:
            float64, K x F in [0, 1].
        """
        pools = self._pools(size, torch.zeros(0, dtype=torch.float64, device=numbers.device))
        made = []
        for few in torch.split(numbers, _AT_ONCE):
            kept = (self.draws(few, len(size)) < self.keep_probability).double()
            weights = [self._weights(self._offsets(few, a, n), n).double() for a, n in enumerate(size)]
            made.append(_blended(kept, [pool @ w for pool, w in zip(pools, weights, strict=True)]).flatten(1))
        return torch.cat(made)

    def _pools(self, size: torch.Size, like: Tensor) -> list[Tensor]:
        """Return along each axis which pixels' mean a block takes: blocks x length."""
        n_blocks = min(2 * self.grid, int(FEATURES ** (1 / len(size))))
        pixels = [torch.eye(length, dtype=like.dtype, device=like.device) for length in size]
        return [adaptive_avg_pool1d(eye, min(n_blocks, len(eye))).T for eye in pixels]

    def _explained(self, slopes: Tensor, size: torch.Size, *, pooled: bool = False) -> Tensor:
        """Return the covariance of a mask, or its features, with what slopes make of its features.

        Given the shift a mask is linear in independent cells, each of variance p (1 - p): the covariance of two pixels
        is that times, along each axis, the mean over all shifts of the products of their weights.

        Args:
            slopes: float64, N x F.
            size: Of the image.
            pooled: Whether of the features.

        Returns:
            float64, N x spatial, or N x blocks.
        """
        pools, products = self._pools(size, slopes), []
        for pool, length in zip(pools, size, strict=True):
            offsets = torch.arange(-(-length // self.grid) if self.shift else 1, device=slopes.device)
            weights = self._weights(offsets, length).double()
            products.append(torch.einsum("slg,sbg->lb", weights, pool @ weights) / len(offsets))
        if pooled:
            products = [pool @ product for pool, product in zip(pools, products, strict=True)]
        variance = self.keep_probability * (1 - self.keep_probability)
        return variance * _blended(slopes.view(-1, *map(len, pools)), [product[None] for product in products])

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

    def _offsets(self, numbers: Tensor, axis: int, length: int) -> Tensor:
        """Return how far each mask is moved along an axis: int64, K."""
        if not self.shift:
            return torch.zeros_like(numbers)
        return integers(
            0, -(-length // self.grid) - 1, self.seed, numbers // (2 if self.antithetic else 1), _SHIFT, axis
        )

    def _weights(self, offset: Tensor, length: int) -> Tensor:
        """How much each pixel along an axis takes from each grid cell: K x length x grid.

        The grid is stretched over (grid + 1) cells of ceil(length / grid) pixels and cropped at the
        mask's shift, as in the RISE recipe.
        """
        cell = -(-length // self.grid)
        pixel = torch.arange(length, device=offset.device)[None] + offset[:, None]
        stretched = (self.grid + 1) * cell
        cells = torch.arange(self.grid, device=offset.device)
        if self.style == "hard":
            return (pixel[..., None] * self.grid // stretched == cells).float()
        centre = ((pixel + 0.5) * self.grid / stretched - 0.5).clamp(0, self.grid - 1)  # in units of grid cells
        return (1 - (centre[..., None] - cells).abs()).clamp(min=0).float()


def _blended(cells: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Spread values of cells by weights along each axis.

    Args:
        cells: K x grid x ... x grid.
        weights: By axis, K x length x grid; 1 x length x grid serves all.

    Returns:
        K x length x ... x length.
    """
    first, *middle, last = (w.expand(len(cells), -1, -1) for w in weights)
    blended = (first @ cells.flatten(2)).view(*first.shape[:2], *cells.shape[2:])
    for axis, along in enumerate(middle, 2):
        blended = torch.einsum("kpg,kg...->kp...", along, blended.movedim(axis, 1)).movedim(1, axis)
    across: Tensor = blended @ last.transpose(1, 2).view(len(last), *(1,) * len(middle), *last.shape[:0:-1])
    return across
