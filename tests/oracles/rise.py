"""RISE, mask by mask, with masks made by stretching the whole grid and cropping it."""

from __future__ import annotations

import math

import numpy as np

from oracles.metrics import blank, dice
from oracles.randomness import integer, uniform
from oracles.resizing import bilinear, nearest
from oracles.sufficient_region import Predict


def rise_mask(
    number: int, height: int, width: int, *, seed: int, grid: int, keep: float, style: str, shift: bool
) -> np.ndarray:
    cells = np.array([[uniform(seed, number, 0, grid * i + j) < keep for j in range(grid)] for i in range(grid)])
    cell_height, cell_width = math.ceil(height / grid), math.ceil(width / grid)
    resize = {"hard": nearest, "bilinear": bilinear}[style]
    stretched = resize(cells.astype(float), (grid + 1) * cell_height, (grid + 1) * cell_width)
    top = integer(0, cell_height - 1, seed, number, 1, 0) if shift else 0
    left = integer(0, cell_width - 1, seed, number, 1, 1) if shift else 0
    return stretched[top : top + height, left : left + width]


def rise_mask_of(
    number: int, size: tuple[int, ...], *, seed: int, grid: int, keep: float, style: str, shift: bool
) -> np.ndarray:
    """The same for any number of axes: every axis of the grid is stretched and cropped in turn."""
    chances = [uniform(seed, number, 0, cell) < keep for cell in range(grid ** len(size))]
    mask = np.array(chances, dtype=float).reshape((grid,) * len(size))
    for axis, length in enumerate(size):
        cell = math.ceil(length / grid)
        first = integer(0, cell - 1, seed, number, 1, axis) if shift else 0
        lines = np.moveaxis(mask, axis, 0).reshape(grid, -1)
        resize = {"hard": nearest, "bilinear": bilinear}[style]
        stretched = resize(lines, (grid + 1) * cell, lines.shape[1])[first : first + length]
        mask = np.moveaxis(stretched.reshape(length, *np.delete(mask.shape, axis)), 0, axis)
    return mask


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
        mask = rise_mask(number, *region.shape, **settings)
        hits = (predict(blank(image, mask, fill)) == class_id) & ~outside
        total += dice(hits, region) * mask
    return total / (n_masks * settings["keep"])
