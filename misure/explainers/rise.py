"""RISE (Petsiuk et al. 2018) with the Dice as score, as the paper uses it (4.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from misure.explainers.base import SaliencyMaps
from misure.explainers.control_variate import LinearPart, linear_part
from misure.explainers.perturbation import mask_scores
from misure.explainers.random_masks import BLOCK, FEATURES, RandomMasks
from misure.models.wrapper import FrozenNetwork
from misure.target import TargetBatch
from misure.validation import Count, Share, Weight

_AT_ONCE, _PIXELS = 16, 2**22
"""Masks, and their pixels, that are made again together at most; of no batch, so that its size changes no bit."""

CHECKED_EVERY = 100
"""Masks between two looks at the standard error: a whole block of pairs, so that the parts are independent."""


@dataclass(frozen=True, kw_only=True)
class RISE(RandomMasks):
    """Random masks, weighted by how much of the prediction they preserve.

    The paper's map is ``sum_k dice_k * mask_k / (n_masks * keep_probability)``, in [0, 1 / keep_probability].
    ``antithetic`` and ``stratified`` couple the draws of different masks and leave each one uniform, and a control
    variate takes noise out whose mean is known, so that the map's expectation stays the same whatever
    ``keep_probability`` is: exactly for a given penalty of the regression and from two groups of dependent masks on,
    while choosing the penalty, and stopping by ``tolerance``, add a bias below the noise. The defaults are what needs
    few masks; :meth:`published` is the paper's method, which ``configs/explainer/rise.yaml`` holds.

    With a control variate the map is ``mean(dice) + [C b + mean_k (dice_k - d_k) (mask_k - keep_probability)] /
    keep_probability``: d_k predicts a score from its mask, with slopes b on the mask's means over blocks of the
    image, and C is the exact covariance of the masks with these means, so that what the slopes explain has no noise.

    Reference:
        Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018,
        section 3, https://arxiv.org/abs/1806.07421

    Attributes:
        n_masks: Number of masks; with a ``tolerance`` the largest one.
        control_variate: ``"regression"`` predicts each score by a ridge regression on its mask, fitted to the other
            masks (see :func:`misure.explainers.control_variate.linear_part`), ``"mean"`` by the others' mean; None
            is the plain sum. Either keeps a float64 score for each mask.
        tolerance: Stop an image once its map's standard error (root mean square over pixels, with a control variate
            over the blocks, from the means of 100 masks each) is at most this share of the map's range; looked at
            after every 100 masks from the 200th on, where noise alone is at about 0.2. None always takes ``n_masks``.

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=RISE(n_masks=200, grid=4))
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (1.0, 2.4047619047619047)
    """

    name: ClassVar[str] = "rise"
    title: ClassVar[str] = "RISE"
    map_is_mask: ClassVar[bool] = False

    thresholds: tuple[Share, ...] = (0.2, 0.4)
    n_masks: Count = 500
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
        n_kept = 0 if self.control_variate is None else self.n_masks
        kept = torch.zeros(len(images), n_kept, dtype=torch.float64, device=images.device)
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
                scores += [score] if n_kept else []
                done += len(image)
                network.tell("masking", done, self.n_masks * len(active), total)
            if n_kept:
                kept[active, numbers.start : numbers.stop] = torch.cat(scores).view(-1, len(active)).T
            counts[active] = numbers.stop
            squares += (total - before).square()
            settled = self._is_settled(total[active], squares[active], kept[active, : numbers.stop], numbers.stop, size)
            active = active[~settled]
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

    def _is_settled(self, total: Tensor, squares: Tensor, scores: Tensor, n_masks: int, size: torch.Size) -> Tensor:
        """Say which maps are precise enough: bool, N.

        Args:
            total: Plain sums over all masks, N x spatial.
            squares: Sums of the squared plain sums over 100 masks each, N x spatial.
            scores: N x K; with a control variate.
            n_masks: How many masks are in the sums: K.
            size: Of the image.
        """
        n_parts = n_masks // CHECKED_EVERY
        if self.tolerance is None or n_parts < 2 or n_masks == self.n_masks:
            return torch.zeros(len(total), dtype=torch.bool, device=total.device)
        shown = noisy = total
        if self.control_variate is not None:
            part = self._linear_part(scores, size)
            moved = self.features(torch.arange(n_masks, device=scores.device), size) - self.keep_probability
            parts = torch.einsum(
                "npk,pkf->pnf",
                part.residuals.view(len(total), n_parts, CHECKED_EVERY),
                moved.view(n_parts, CHECKED_EVERY, -1),
            )
            noisy, squares = parts.sum(0), parts.square().sum(0)
            shown = noisy + n_masks * self._explained(part.slopes, size, pooled=True).flatten(1)
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

    def _linear_part(self, scores: Tensor, size: torch.Size, start: int = 0) -> LinearPart:
        features = self.features(torch.arange(start, start + scores.shape[1], device=scores.device), size)
        group = (BLOCK if self.stratified else 1) * (2 if self.antithetic else 1)
        if self.control_variate == "regression":
            return linear_part(scores, features, group)
        alone = linear_part(scores, features[:, :0], group)
        return LinearPart(alone.residuals, scores.new_zeros(len(scores), features.shape[1]))
