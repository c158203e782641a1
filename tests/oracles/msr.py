"""Stage 2 (equation 1) of one image or volume: every derivative by hand, autograd only through the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from oracles.resizing import along_axes, bilinear_matrix, nearest

Network = Callable[[np.ndarray], tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]]
"""Image C x H x W to logits L x H x W and a function from d loss/d logits to d loss/d image."""


@dataclass
class Settings:
    lr: float = 0.1
    lam: float = 0.01
    n_iterations: int = 20
    mask_size: int = 12
    alpha_foreground: float = 2.0
    alpha_background: float = 1.0
    tv_weight: float = 0.0
    tv_beta: float = 3.0
    weight_decay: float = 0.01
    clamp_low: float = 0.2
    clamp_start: int = 0
    dice_target: str = "hard"
    softmax_passes: int = 1
    context_value: float = 1.0
    initial_support: str = "sufficient_region"
    returned: str = "last"
    background: str = "predicted"
    dice_over: str = "pair"
    false_positives: bool = True
    dice_epsilon: float = 1e-7


def softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max(axis=0, keepdims=True))
    return exponentials / exponentials.sum(axis=0, keepdims=True)


def dice_loss(
    logits: np.ndarray, reference_logits: np.ndarray, class_id: int, region: np.ndarray, s: Settings
) -> tuple[float, np.ndarray]:
    """Return ``1 - sum of alpha_i Dice_i``, or the mean over classes, and its derivative by the logits."""
    predicted = reference_logits.argmax(axis=0)
    counted = ~((predicted == class_id) & ~region)
    passes = [logits]
    for _ in range(s.softmax_passes):
        passes.append(softmax(passes[-1]))
    probabilities = passes[-1]
    slope = np.zeros_like(logits)
    own = softmax(reference_logits)[class_id] * counted if s.dice_target == "soft" else region.astype(float)
    background = softmax(reference_logits)[0] * counted if s.dice_target == "soft" else (predicted == 0).astype(float)
    if s.background == "rest":
        background = counted - own
    terms = [(class_id, own, s.alpha_foreground, counted if s.false_positives else region)]
    if class_id != 0:
        terms.append((0, background, s.alpha_background, counted))
    loss = 1.0
    if s.dice_over == "classes":
        if class_id != 0:
            terms.append((class_id, own, s.alpha_background, counted))
        terms = [(i, wanted, alpha / len(logits), pixels) for i, wanted, alpha, pixels in terms if wanted.any()]
        loss = sum(alpha for _, _, alpha, _ in terms)
    for i, wanted, alpha, pixels in terms:
        p, reference = probabilities[i] * pixels, wanted * pixels
        above = 2 * (p * reference).sum() + s.dice_epsilon
        below = max(p.sum() + reference.sum() + s.dice_epsilon, 1e-7)
        loss -= alpha * above / below
        slope[i] -= alpha * pixels * (2 * reference * below - above) / below**2
    for p in reversed(passes[1:]):
        slope = p * (slope - (p * slope).sum(axis=0, keepdims=True))
    return loss, slope


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
    image: np.ndarray,
    class_id: int,
    *,
    region: np.ndarray,
    sufficient: np.ndarray,
    fill: np.ndarray,
    s: Settings,
) -> tuple[np.ndarray, list[float]]:
    """Return the upsampled mask (H x W or D x H x W) and the loss of every iteration."""
    size = [s.mask_size if region.ndim == 2 else min(s.mask_size, side) for side in region.shape]
    enlarge = [bilinear_matrix(side, n) for side, n in zip(region.shape, size, strict=True)]
    reference_logits, _ = network(image)
    start = image * sufficient + fill * ~sufficient
    mask = np.zeros(region.shape)
    mask[sufficient] = s.context_value
    mask[region & sufficient] = 1.0
    if s.initial_support == "positive_first_channel":
        mask[image[0] <= 0] = 0.0
    mask = nearest(mask, *size)
    first, second = np.zeros_like(mask), np.zeros_like(mask)
    iterates, losses = [], []
    for t in range(1, s.n_iterations + 1):
        iterates.append(mask.copy())
        large = along_axes(enlarge, mask)
        logits, pull_back = network(start * large + fill * (1 - large))
        loss, slope = dice_loss(logits, reference_logits, class_id, region, s)
        large_slope = (pull_back(slope) * (start - fill)).sum(axis=0)
        large_slope = large_slope + s.lam / large.size * np.sign(large)
        tv, tv_slope = total_variation(large, s.tv_beta) if s.tv_weight else (0.0, 0.0)
        losses.append(loss + s.lam * np.abs(large).mean() + s.tv_weight * tv)
        gradient = along_axes([matrix.T for matrix in enlarge], large_slope + s.tv_weight * tv_slope)
        mask = mask - s.lr * s.weight_decay * mask
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        mask = mask - s.lr * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        mask = np.minimum(np.maximum(mask, 0.0), 1.0)
        if t - 1 >= s.clamp_start:
            mask = np.where(mask < s.clamp_low, 0.0, mask)
    chosen = {"last": mask, "last_forward": iterates[-1], "best": iterates[int(np.argmin(losses))]}[s.returned]
    return along_axes(enlarge, chosen), losses
