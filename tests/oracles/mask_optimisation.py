"""Adam over a coarse mask of one image: every derivative by hand, autograd only through the network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from oracles.msr import Network, softmax, total_variation
from oracles.resizing import bilinear_matrix

Slope = tuple[float, np.ndarray]


def dice_slope(logits: np.ndarray, class_id: int, region: np.ndarray) -> Slope:
    """1 - soft Dice of the class and its derivative by the logits."""
    probabilities = softmax(logits)
    p = probabilities[class_id]
    above, below = 2 * p[region].sum() + 1e-7, p.sum() + region.sum() + 1e-7
    slope = np.zeros_like(logits)
    slope[class_id] = -(2 * region * below - above) / below**2
    return 1 - above / below, _through_softmax(probabilities, slope)


def lost_slope(logits: np.ndarray, class_id: int, region: np.ndarray, usual: np.ndarray) -> Slope:
    """Mean loss of the class's probability over the region and its derivative by the logits."""
    probabilities = softmax(logits)
    lost = (usual - probabilities[class_id]) * region
    slope = np.zeros_like(logits)
    slope[class_id] = -(lost > 0).astype(float) / region.sum()
    return np.maximum(lost, 0).sum() / region.sum(), _through_softmax(probabilities, slope)


def _through_softmax(probabilities: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return probabilities * (slope - (probabilities * slope).sum(axis=0, keepdims=True))


def optimised_mask(
    network: Network,
    image: np.ndarray,
    fill: np.ndarray,
    score: Callable[[np.ndarray], Slope],
    *,
    grid: int,
    start: float,
    lam: float,
    lr: float,
    n_iterations: int,
    tv_weight: float = 0.0,
    always: np.ndarray | None = None,
) -> tuple[np.ndarray, list[float]]:
    """Return the mask at the image's size and the loss of every iteration."""
    rows, columns = (bilinear_matrix(n, grid) for n in image.shape[1:])
    always = np.zeros(image.shape[1:], dtype=bool) if always is None else always
    mask = np.full((grid, grid), start)
    first, second = np.zeros_like(mask), np.zeros_like(mask)
    losses = []
    for t in range(1, n_iterations + 1):
        large = np.where(always, 1.0, rows @ mask @ columns.T)
        logits, pull_back = network(image * large + fill * (1 - large))
        loss, slope = score(logits)
        tv, tv_slope = total_variation(mask, 3.0) if tv_weight else (0.0, 0.0)
        losses.append(loss + lam * mask.mean() + tv_weight * tv)
        pixels = (pull_back(slope) * (image - fill)).sum(axis=0) * ~always
        gradient = rows.T @ pixels @ columns + lam / mask.size + tv_weight * tv_slope
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        mask = mask - lr * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        mask = np.clip(mask, 0.0, 1.0)
    return np.where(always, 1.0, rows @ mask @ columns.T), losses
