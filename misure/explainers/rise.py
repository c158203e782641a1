"""RISE (Petsiuk et al. 2018) with the Dice as score, as the paper uses it (4.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d

from misure.explainers.base import Explainer, SaliencyMaps
from misure.explainers.control_variate import LinearPart, linear_part
from misure.explainers.perturbation import mask_scores
from misure.models.wrapper import FrozenNetwork
from misure.randomness import integers, uniform
from misure.target import TargetBatch
from misure.validation import Between, Count, Share, Weight

# What a draw is for: the third part of its random key.
_CELL, _SHIFT, _ORDER = range(3)

BLOCK = 50
"""Stratified draws (masks, or pairs of them) that share the strata; 50 holds 0.54, 0.5 and 0.1 exactly."""

FEATURES = 400
"""Blocks of the image, at most, whose shares of a mask the score is regressed on."""

_AT_ONCE, _PIXELS = 16, 2**22
"""Masks, and their pixels, that are made again together at most; of no batch, so that its size changes no bit."""

CHECKED_EVERY = 100
"""Masks between two looks at the standard error: a whole block of pairs, so that the parts are independent."""


@dataclass(frozen=True, kw_only=True)
class RISE(Explainer):
    """Random masks, weighted by how much of the prediction they preserve.

    The paper's map is ``sum_k dice_k * mask_k / (n_masks * keep_probability)``, in [0, 1 / keep_probability].
    Mask k depends on ``(seed, k)`` alone and is made when its batch needs it. A cell is kept where its uniform
    draw u is below ``keep_probability``. ``antithetic`` and ``stratified`` couple the draws of different masks
    and leave each one uniform, and a control variate takes noise out whose mean is known, so that the map's
    expectation stays the same whatever ``keep_probability`` is. The defaults are what needs few masks;
    ``n_masks=2000, antithetic=False, control_variate=None`` is the paper's method, which
    ``configs/explainer/rise.yaml`` holds.

    With a control variate the map is ``mean(dice) + [C b + mean_k (dice_k - d_k) (mask_k - keep_probability)] /
    keep_probability``: d_k predicts a score from its mask, with slopes b on the mask's means over blocks of the
    image, and C is the exact covariance of the masks with these means, so that what the slopes explain has no noise.

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
        control_variate: ``"regression"`` predicts each score by a ridge regression on its mask, fitted to the other
            masks (see :func:`misure.explainers.control_variate.linear_part`), ``"mean"`` by the others' mean; None
            is the plain sum. Either keeps a float64 score for each mask.
        tolerance: Stop an image once its map's standard error (root mean square over pixels, with a control variate
            over the blocks, from the means of 100 masks each) is at most this share of the map's range; looked at
            after every 100 masks from the 200th on. None always takes ``n_masks``.

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=RISE(n_masks=200, grid=4))
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (1.0, 5.333333333333333)
    """

    name: ClassVar[str] = "rise"
    title: ClassVar[str] = "RISE"

    thresholds: tuple[Share, ...] = (0.2, 0.4)
    n_masks: Count = 500
    grid: Count = 7
    keep_probability: Annotated[float, Between(1e-6, 1)] = 0.54
    style: Literal["hard", "bilinear"] = "hard"
    shift: bool = True
    antithetic: bool = True
    stratified: bool = False
    control_variate: Literal["mean", "regression"] | None = "regression"
    tolerance: Weight | None = None

    @classmethod
    def published(cls) -> Self:
        """Make the plain sum over the paper's 2000 masks."""
        return cls(n_masks=2000, antithetic=False, control_variate=None)

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass per mask."""
        return (self.n_masks, 0)

    def values_held(self, image: Tensor) -> Mapping[str, int]:
        """The draws of one mask's cells, in 64 bits, with those that share their strata; each mask's features."""
        draws = 4 * (BLOCK if self.stratified else 1) * self.grid ** (image.ndim - 1)
        return {"grid": draws, "n_masks": 8 * FEATURES * self.n_masks if self.control_variate else 0}

    @torch.no_grad()
    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return Dice-weighted sums of masks; every image sees the same masks."""
        with network.folded(images[0]):
            maps = self._maps(network, images, targets)
        return SaliencyMaps(maps.to(images.dtype))

    def _maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> Tensor:
        """Score masks until there are enough of them for every image; float64, N x spatial."""
        size = images.shape[2:]
        total = torch.zeros(targets.regions.shape, dtype=torch.float64, device=images.device)
        kept = torch.zeros(len(images), self.n_masks, dtype=torch.float64, device=images.device)
        counts = torch.zeros(len(images), dtype=torch.float64, device=images.device)
        squares = torch.zeros_like(total)
        baseline = self.fill.baseline(network, images)
        active = torch.arange(len(images), device=images.device)
        for numbers in self._parts():
            before = total.clone()
            fill = baseline if baseline is None or len(baseline) == 1 else baseline[active]
            scored = mask_scores(
                network,
                images[active],
                targets[active],
                baseline=fill,
                make_masks=lambda k: self.masks(k, size),
                numbers=numbers,
            )
            done, scores = numbers.start * len(active), []
            for image, score, masks in scored:
                total.index_add_(0, active[image], score.view(-1, *(1,) * (masks.ndim - 1)) * masks)
                scores.append(score)
                done += len(image)
                network.tell("masking", done, self.n_masks * len(active), total)
            kept[active, numbers.start : numbers.stop] = torch.cat(scores).view(-1, len(active)).T
            counts[active] = numbers.stop
            squares += (total - before).square()
            active = active[~self._is_settled(total[active], squares[active], kept[active, : numbers.stop], size)]
            if not len(active):
                break
        if self.control_variate is None:
            return total / (counts.view(-1, *(1,) * len(size)) * self.keep_probability)
        maps = torch.empty_like(total)
        for count in sorted(set(counts.tolist())):
            maps[counts == count] = self.map_of(kept[counts == count, : int(count)], size)
        return maps

    def _parts(self) -> Iterator[range]:
        """Which masks are scored between two looks at the standard error."""
        step = self.n_masks if self.tolerance is None else CHECKED_EVERY
        for first in range(0, self.n_masks, step):
            yield range(first, min(first + step, self.n_masks))

    def _is_settled(self, total: Tensor, squares: Tensor, scores: Tensor, size: torch.Size) -> Tensor:
        """Say which maps are precise enough: bool, N.

        Args:
            total: Plain sums over all masks, N x spatial.
            squares: Sums of the squared plain sums over 100 masks each, N x spatial.
            scores: N x K.
            size: Of the image.
        """
        n_parts = scores.shape[1] // CHECKED_EVERY
        if self.tolerance is None or n_parts < 2 or scores.shape[1] == self.n_masks:
            return torch.zeros(len(total), dtype=torch.bool, device=total.device)
        shown = noisy = total
        if self.control_variate is not None:
            part = self._linear_part(scores, size)
            moved = self.features(torch.arange(scores.shape[1], device=scores.device), size) - self.keep_probability
            parts = torch.einsum(
                "npk,pkf->pnf",
                part.residuals.view(len(total), n_parts, CHECKED_EVERY),
                moved.view(n_parts, CHECKED_EVERY, -1),
            )
            noisy, squares = parts.sum(0), parts.square().sum(0)
            shown = noisy + scores.shape[1] * self._explained(part.slopes, size, pooled=True).flatten(1)
        variance = (squares - noisy.square() / n_parts).clamp(min=0) * n_parts / (n_parts - 1)
        error = variance.flatten(1).mean(1).sqrt()  # of the sum, as its range is
        highest, lowest = shown.flatten(1).amax(1), shown.flatten(1).amin(1)
        return error <= self.tolerance * (highest - lowest)

    def map_of(self, scores: Tensor, size: torch.Size, start: int = 0) -> Tensor:
        """Compute maps from the scores of consecutive masks.

        Args:
            scores: float64, N x K: of masks ``start`` to ``start + K``, ``start`` at the beginning of a group.
            size: Height and width, or depth, height and width.
            start: Number of the first mask.

        Returns:
            float64, N x spatial.
        """
        n_masks, level = scores.shape[1], torch.zeros_like(scores[:, 0])
        if self.control_variate is not None:
            part = self._linear_part(scores, size, start)
            level, scores = scores[:, 0] + (scores - scores[:, :1]).mean(1), part.residuals
        step = max(1, min(_AT_ONCE, _PIXELS // size.numel()))
        numbers = torch.arange(start, start + n_masks, device=scores.device)
        total = torch.zeros(len(scores), *size, dtype=torch.float64, device=scores.device)
        for few, weights in zip(torch.split(numbers, step), torch.split(scores, step, 1), strict=True):
            masks = self.masks(few, size).double()
            for image, own in enumerate(weights):  # each by itself: batch mates change no bit
                total[image] += torch.tensordot(own, masks, 1)
        if self.control_variate is not None:
            total += n_masks * self._explained(part.slopes, size)
            total -= self.keep_probability * scores.sum(1).view(-1, *(1,) * len(size))
        return level.view(-1, *(1,) * len(size)) + total / (n_masks * self.keep_probability)

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
        kept = (self.draws(numbers, len(size)) < self.keep_probability).double()
        weights = [self._weights(self._offsets(numbers, a, n), n).double() for a, n in enumerate(size)]
        return _blended(kept, [pool @ w for pool, w in zip(self._pools(size, kept), weights, strict=True)]).flatten(1)

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

    def _linear_part(self, scores: Tensor, size: torch.Size, start: int = 0) -> LinearPart:
        features = self.features(torch.arange(start, start + scores.shape[1], device=scores.device), size)
        group = (BLOCK if self.stratified else 1) * (2 if self.antithetic else 1)
        if self.control_variate == "regression":
            return linear_part(scores, features, group)
        alone = linear_part(scores, features[:, :0], group)
        return LinearPart(alone.residuals, scores.new_zeros(len(scores), features.shape[1]))

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
