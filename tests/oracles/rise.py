"""RISE, mask by mask, with masks made by stretching the whole grid and cropping it."""

from __future__ import annotations

import math

import numpy as np

from oracles.metrics import blank, dice
from oracles.randomness import integer, uniform
from oracles.resizing import bilinear, nearest
from oracles.sufficient_region import Predict


def rise_mask(
    number: int, size: tuple[int, ...], *, seed: int, grid: int, keep: float, style: str, shift: bool
) -> np.ndarray:
    chances = [uniform(seed, number, 0, cell) < keep for cell in range(grid ** len(size))]
    cells = [math.ceil(length / grid) for length in size]
    resize = {"hard": nearest, "bilinear": bilinear}[style]
    kept = np.array(chances, dtype=float).reshape((grid,) * len(size))
    stretched = resize(kept, *((grid + 1) * cell for cell in cells))
    firsts = [integer(0, cell - 1, seed, number, 1, axis) if shift else 0 for axis, cell in enumerate(cells)]
    return stretched[tuple(slice(first, first + length) for first, length in zip(firsts, size, strict=True))]


def rise(
    predict: Predict,
    image: np.ndarray,
    class_id: int,
    *,
    region: np.ndarray,
    fill: np.ndarray,
    n_masks: int,
    **settings,
) -> np.ndarray:
    outside = (predict(image) == class_id) & ~region
    total = np.zeros(region.shape)
    for number in range(n_masks):
        mask = rise_mask(number, region.shape, **settings)
        hits = (predict(blank(image, mask, fill)) == class_id) & ~outside
        total += dice(hits, region) * mask
    return total / (n_masks * settings["keep"])


def regression_map(
    scores: np.ndarray, masks: np.ndarray, features: np.ndarray, covariance: np.ndarray, *, keep: float, group: int
) -> np.ndarray:
    """The map with a control variate, fitting every group's ridge regressions anew without it.

    Args:
        scores: K.
        masks: K x pixels.
        features: K x F.
        covariance: Of the masks with the features, pixels x F.
        keep: Mean of a mask's pixels.
        group: Masks that are left out together.
    """
    n_masks, n_features = features.shape
    penalties = [np.inf, *(10.0**power * ((features - features.mean(0)) ** 2).sum() for power in range(-7, 1))]
    tried = []
    for penalty in penalties:
        residuals, slopes = np.zeros(n_masks), np.zeros(n_features)
        for first in range(0, n_masks, group):
            out = np.arange(first, min(first + group, n_masks))
            others = np.setdiff1d(np.arange(n_masks), out)
            x, s = features[others], scores[others]
            moved = x - x.mean(0)
            ridge = moved.T @ moved + np.diag(np.full(n_features, min(penalty, 1e300)))
            own = np.linalg.solve(ridge, moved.T @ s) if np.isfinite(penalty) else np.zeros(n_features)
            residuals[out] = scores[out] - s.mean() - (features[out] - x.mean(0)) @ own
            slopes += len(out) * own / n_masks
        tried.append((float((residuals**2).sum()), residuals, slopes))
    _, residuals, slopes = min(tried, key=lambda one: one[0])
    return scores.mean() + (covariance @ slopes + residuals @ (masks - keep) / n_masks) / keep
