"""Dice and the perturbation ratio from sets of pixels, and the blanking baselines."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import correlate1d


def pixels(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(int(i) for i in index) for index in np.argwhere(picture)}


def dice(first: np.ndarray, second: np.ndarray) -> float:
    one, two = pixels(first), pixels(second)
    return 2 * len(one & two) / (len(one) + len(two)) if one or two else 1.0


def perturbation_ratio(saliency: np.ndarray, region: np.ndarray) -> float:
    return len(pixels(saliency)) / len(pixels(region))


def binarise(saliency: np.ndarray, threshold: float) -> np.ndarray:
    """Cut the min-max scaled map; a constant map other than zero counts as one everywhere."""
    low, high = float(saliency.min()), float(saliency.max())
    if low == high:
        return np.full(saliency.shape, high != 0.0 and threshold < 1)
    return (saliency - low) / (high - low) > threshold


def baseline(kind: str, image: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...], sigma: float) -> np.ndarray:
    """What switched-off pixels of an image (C x H x W, or with a depth before H) become."""
    if kind == "zero":
        return np.zeros_like(image)
    if kind == "mean":
        return np.stack([np.full(channel.shape, channel.mean()) for channel in image])
    if kind == "black":
        return np.stack([np.full(c.shape, (0 - m) / s) for c, m, s in zip(image, mean, std, strict=True)])
    for axis in range(1, image.ndim):
        radius = min(int(3 * sigma), (image.shape[axis] - 1) // 2)
        kernel = np.array([math.exp(-(i**2) / (2 * sigma**2)) for i in range(-radius, radius + 1)])
        image = correlate1d(image, kernel / kernel.sum(), axis=axis, mode="mirror")
    return image


def blank(image: np.ndarray, mask: np.ndarray, fill: np.ndarray) -> np.ndarray:
    return image * mask[None] + fill * (1.0 - mask[None])
