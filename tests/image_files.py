"""Tiny image files and a tiny network that finds bright pixels, for the readers and the command line."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from misure.models.checkpoint import CheckpointInfo, save_checkpoint
from misure.models.unet import build_unet

CLASSES = ("background", "bright", "never")


class Bright(nn.Module):
    """Class 1 where the mean over 3 pixels a side, over all channels, is above one half; class 2 nowhere."""

    def __init__(self, channels: int = 1, dimensions: int = 2) -> None:
        super().__init__()
        kind = nn.Conv2d if dimensions == 2 else nn.Conv3d
        self.mean = kind(channels, 3, 3, padding=1)
        with torch.no_grad():
            self.mean.weight.zero_()
            self.mean.weight[1] = 1 / self.mean.weight[1].numel()
            self.mean.bias.copy_(torch.tensor([0.5, 0.0, -1.0]))

    def forward(self, images):
        return self.mean(images)


def bright_square(side=24, channels=1):
    """C x side x side in [0, 1]: dark with a bright 8 x 8 square."""
    image = torch.full((channels, side, side), 0.05)
    image[:, 6:14, 9:17] = 1.0
    return image


def write_png(path, pixels):
    """Write C x H x W in [0, 1] with 8 bits."""
    values = (pixels.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(path)
    return path


def random_rgb(height=6, width=9, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_checkpoint(path, data=None):
    """Write a checkpoint of this project's: a random U-Net for one channel, with what is said of its training data."""
    arguments = {"encoder": "mobilenet_v2", "in_channels": 1, "classes": 3, "pretrained": None}
    torch.manual_seed(0)
    network = build_unet(**arguments)
    info = CheckpointInfo(
        name="triangle-tiny-smoke",
        network={"_target_": "misure.models.unet.build_unet", **arguments},
        bottleneck="encoder",
        class_names=CLASSES,
        in_channels=1,
        data=data or {},
        metrics={},
        training={},
        versions={},
    )
    save_checkpoint(path, network, info)
    return path
