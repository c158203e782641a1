"""Class activation maps of one image, in two or three dimensions, with hooks and loops."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from oracles.resizing import bilinear


def look_inside(network: nn.Module, layer: nn.Module, image: Tensor, class_id: int, region: np.ndarray):
    """Return a layer's activation and the gradient of the summed logits to it, K x (its size) each."""
    kept = {}

    def keep(_module, _inputs, output):
        kept["activation"] = output.detach().clone()
        output.register_hook(lambda gradient: kept.__setitem__("gradient", gradient.clone()))

    handle = layer.register_forward_hook(keep)
    score = network(image[None].clone().requires_grad_())[0, class_id][torch.from_numpy(region)].sum()
    handle.remove()
    score.backward()
    network.zero_grad(set_to_none=True)
    return kept["activation"][0].numpy(), kept["gradient"][0].numpy()


def weighted(weights: list[float], activation: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    cam = sum(w * a for w, a in zip(weights, activation, strict=True))
    return bilinear(np.maximum(cam, 0), *size)


def hires(activation: np.ndarray, gradient: np.ndarray, size: tuple[int, ...], pool: int, mode: str) -> np.ndarray:
    pooled = np.empty_like(gradient)
    for k in range(len(gradient)):
        for corner in itertools.product(*(range(0, length, pool) for length in gradient.shape[1:])):
            window = (k, *(slice(start, start + pool) for start in corner))
            pooled[window] = gradient[window].max() if mode == "max" else gradient[window].mean()
    return bilinear(np.maximum((pooled * activation).sum(0), 0), *size)


def dice_of_channels(
    predict: Callable[[np.ndarray], np.ndarray],
    activation: np.ndarray,
    image: Tensor,
    class_id: int,
    region: np.ndarray,
) -> list[float]:
    """Score-CAM's weights: the Dice that each channel preserves as a mask; predict gives classes."""
    weights = []
    for channel in activation:
        mask = bilinear(channel, *region.shape)
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        found = predict(image.numpy() * mask) == class_id
        weights.append(2 * (found & region).sum() / (found.sum() + region.sum()))
    return weights


def losses_of_channels(
    network: nn.Module, layer: nn.Module, image: Tensor, class_id: int, region: np.ndarray, *, n_channels: int
) -> list[float]:
    """Ablation-CAM's weights: the share of the score that is lost without each channel."""

    def score(channel: int | None) -> float:
        def remove(_module, _inputs, output):
            output = output.clone()
            if channel is not None:
                output[:, channel] = 0
            return output

        handle = layer.register_forward_hook(remove)
        with torch.no_grad():
            value = float(network(image[None])[0, class_id][torch.from_numpy(region)].sum())
        handle.remove()
        return value

    whole = score(None)
    return [(whole - score(k)) / abs(whole) for k in range(n_channels)]


def as_image(tokens: Tensor, height: int, width: int) -> Tensor:
    """N x T x C to N x C x H x W."""
    return torch.stack([t.T.reshape(-1, height, width) for t in tokens])
