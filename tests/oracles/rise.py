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
