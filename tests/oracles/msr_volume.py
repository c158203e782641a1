"""Both stages of MiSuRe on one volume: loops over axes, autograd only through the network."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.ndimage import binary_dilation

from oracles.metrics import blank, dice
from oracles.msr import Network, Settings, dice_loss
from oracles.resizing import bilinear_matrix
from oracles.sufficient_region import Predict

BALL = np.zeros((7, 7, 7), dtype=bool)
for _voxel in itertools.product(range(7), repeat=3):
    BALL[_voxel] = sum((i - 3) ** 2 for i in _voxel) <= 9


def sufficient_region(
    predict: Predict, volume: np.ndarray, class_id: int, *, region: np.ndarray, fill: np.ndarray, tau: float
) -> tuple[np.ndarray, int]:
    outside = (predict(volume) == class_id) & ~region
    mask, steps = region.copy(), 0
    while dice((predict(blank(volume, mask.astype(volume.dtype), fill)) == class_id) & ~outside, region) <= tau:
        mask, steps = binary_dilation(mask, BALL), steps + 1
    return mask, steps


def nearest(volume: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    places = [np.arange(n) * side // n for n, side in zip(size, volume.shape, strict=True)]
    return volume[np.ix_(*places)]


def total_variation(mask: np.ndarray, beta: float) -> tuple[float, np.ndarray]:
    total, slope = 0.0, np.zeros_like(mask)
    for axis in range(mask.ndim):
        lines, pulls = np.moveaxis(mask, axis, 0), np.moveaxis(slope, axis, 0)
        for i in range(len(lines) - 1):
            step = lines[i + 1] - lines[i]
            total += (abs(step) ** beta).sum()
            pull = beta * abs(step) ** (beta - 1) * np.sign(step)
            pulls[i + 1] += pull
            pulls[i] -= pull
    return total, slope


def minimally_sufficient_region(
    network: Network,
    volume: np.ndarray,
    class_id: int,
    *,
    region: np.ndarray,
    sufficient: np.ndarray,
    fill: np.ndarray,
    s: Settings,
) -> tuple[np.ndarray, list[float]]:
    """Return the upsampled mask (D x H x W) and the loss of every iteration, for the last iterate."""
    size = tuple(min(s.mask_size, side) for side in region.shape)
    along = [bilinear_matrix(side, n) for side, n in zip(region.shape, size, strict=True)]
    reference_logits, _ = network(volume)
    start = blank(volume, sufficient.astype(volume.dtype), fill)
    mask = nearest(np.where(region & sufficient, 1.0, np.where(sufficient, s.context_value, 0.0)), size)
    first, second = np.zeros_like(mask), np.zeros_like(mask)
    losses = []
    for t in range(1, s.n_iterations + 1):
        large = np.einsum("az,by,cx,zyx->abc", *along, mask)
        logits, pull_back = network(blank(start, large, fill))
        loss, slope = dice_loss(logits, reference_logits, class_id, region, s)
        tv, tv_slope = total_variation(large, s.tv_beta)
        losses.append(loss + s.lam * np.abs(large).mean() + s.tv_weight * tv)
        large_slope = (pull_back(slope) * (start - fill)).sum(axis=0)
        large_slope = large_slope + s.lam / large.size * np.sign(large) + s.tv_weight * tv_slope
        gradient = np.einsum("az,by,cx,abc->zyx", *along, large_slope)
        mask = mask - s.lr * s.weight_decay * mask
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        mask = mask - s.lr * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        mask = np.clip(mask, 0.0, 1.0)
        mask = np.where(mask < s.clamp_low, 0.0, mask)
    return np.einsum("az,by,cx,zyx->abc", *along, mask), losses
