"""Algorithm 1 of the paper, one image or volume at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from scipy.ndimage import binary_dilation

from oracles.metrics import blank, dice

FOOTPRINT = np.array(
    [
        [0, 0, 0, 1, 0, 0, 0],
        [0, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1],
        [0, 1, 1, 1, 1, 1, 0],
        [0, 0, 0, 1, 0, 0, 0],
    ],
    dtype=bool,
)

BALL = np.zeros((7, 7, 7), dtype=bool)
for _voxel in itertools.product(range(7), repeat=3):
    BALL[_voxel] = sum((i - 3) ** 2 for i in _voxel) <= 9

Predict = Callable[[np.ndarray], np.ndarray]
"""Image C x H x W to predicted classes H x W, or with a depth D before H."""


def sufficient_region(
    predict: Predict, image: np.ndarray, class_id: int, *, region: np.ndarray, fill: np.ndarray, tau: float
) -> tuple[np.ndarray, int]:
    outside = (predict(image) == class_id) & ~region
    footprint = FOOTPRINT if region.ndim == 2 else BALL
    mask, steps = region.copy(), 0
    while dice((predict(blank(image, mask.astype(image.dtype), fill)) == class_id) & ~outside, region) <= tau:
        mask, steps = binary_dilation(mask, footprint), steps + 1
    return mask, steps
