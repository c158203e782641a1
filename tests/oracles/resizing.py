"""Linear and nearest resizing as explicit matrices and indices, one for each axis (pixel centres, edges repeated)."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def along_axes(matrices: Sequence[np.ndarray], picture: np.ndarray) -> np.ndarray:
    """Multiply every axis by its matrix."""
    for axis, matrix in enumerate(matrices):
        picture = np.moveaxis(np.tensordot(matrix, picture, (1, axis)), 0, axis)
    return picture


def bilinear(picture: np.ndarray, *size: int) -> np.ndarray:
    return along_axes([bilinear_matrix(n, side) for n, side in zip(size, picture.shape, strict=True)], picture)


def nearest(picture: np.ndarray, *size: int) -> np.ndarray:
    return picture[np.ix_(*(np.arange(n) * side // n for n, side in zip(size, picture.shape, strict=True)))]
