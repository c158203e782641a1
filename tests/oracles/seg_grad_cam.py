"""Seg-Grad-CAM of one image with hooks and loops over channels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from oracles.resizing import bilinear


def seg_grad_cam(network: nn.Module, layer: nn.Module, image: Tensor, class_id: int, region: np.ndarray) -> np.ndarray:
    """Explain one image (C x H x W) for a network that returns logits of the image's size."""
    kept: dict[str, Tensor] = {}

    def keep_activation(_module, _inputs, output):
        kept["activation"] = output.detach().clone()
        output.register_hook(lambda gradient: kept.__setitem__("gradient", gradient.clone()))

    handle = layer.register_forward_hook(keep_activation)
    logits = network(image[None].clone().requires_grad_())[0]
    handle.remove()
    score = sum(logits[class_id, y, x] for y, x in np.argwhere(region))
    score.backward()
    network.zero_grad(set_to_none=True)
    activation, gradient = kept["activation"][0].numpy(), kept["gradient"][0].numpy()
    cam = np.zeros(activation.shape[1:])
    for k in range(len(activation)):
        cam += gradient[k].mean() * activation[k]
    return bilinear(np.where(cam > 0, cam, 0.0), *region.shape)


def as_image(tokens: Tensor, height: int, width: int) -> Tensor:
    return torch.stack([t.T.reshape(-1, height, width) for t in tokens])
