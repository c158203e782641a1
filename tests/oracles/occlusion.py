"""Occlusion, window by window and pixel by pixel."""

from __future__ import annotations

import itertools

import numpy as np

from oracles.metrics import blank, dice
from oracles.sufficient_region import Predict


def occlusion(
    predict: Predict,
    image: np.ndarray,
    class_id: int,
    *,
    region: np.ndarray,
    fill: np.ndarray,
    window: int,
    stride: int,
) -> np.ndarray:
    outside = (predict(image) == class_id) & ~region
    lost, covered = np.zeros(region.shape), np.zeros(region.shape)
    corners = []
    for length in region.shape:
        along = [0]
        while along[-1] + window < length:
            along.append(along[-1] + stride)
        corners.append(along)
    for corner in itertools.product(*corners):
        part = tuple(slice(first, first + window) for first in corner)
        mask = np.ones(region.shape)
        mask[part] = 0
        hits = (predict(blank(image, mask, fill)) == class_id) & ~outside
        lost[part] += 1 - dice(hits, region)
        covered[part] += 1
    return lost / covered
