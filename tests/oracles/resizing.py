"""Bilinear and nearest resizing along one axis as explicit matrices (pixel centres, edges repeated)."""

from __future__ import annotations

import math

import numpy as np


def bilinear_matrix(n_out: int, n_in: int) -> np.ndarray:
    matrix = np.zeros((n_out, n_in))
    for i in range(n_out):
        position = max((i + 0.5) * n_in / n_out - 0.5, 0.0)
        left = min(math.floor(position), n_in - 1)
        right = min(left + 1, n_in - 1)
        share = position - left
        matrix[i, left] += 1 - share
        matrix[i, right] += share
    return matrix


def bilinear(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    return bilinear_matrix(height, picture.shape[0]) @ picture @ bilinear_matrix(width, picture.shape[1]).T


def nearest(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    result = np.zeros((height, width), picture.dtype)
    for y in range(height):
        for x in range(width):
            result[y, x] = picture[y * picture.shape[0] // height, x * picture.shape[1] // width]
    return result
