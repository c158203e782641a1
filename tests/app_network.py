"""A network for the app's tests: bright pixels, averaged over 3 x 3, are the object; it counts its passes."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from misure import SegmentationModel
from misure.app.networks import Offer, Shelf
from misure.explaining.network import NamedNetwork

HOSTILE = "<img src=x onerror=alert(1)>"
"""A class name that must stay a text on the page."""

BLOCK = (slice(32, 64), slice(32, 80))
SIZE = (96, 128)


class Bright(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv2d(3, 2, 3, padding=1)
        self.passes = 0
        with torch.no_grad():
            self.blur.weight.zero_()
            self.blur.weight[1] = 10 / 27
            self.blur.bias.copy_(torch.tensor([0.0, -5.0]))

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        return self.blur(images)


def bright_shelf(outputs: Path) -> Shelf:
    def load() -> NamedNetwork:
        names = ["background", HOSTILE]
        return NamedNetwork(SegmentationModel(Bright(), class_names=names, bottleneck="blur", in_channels=3), {})

    return Shelf([Offer("bright", load, "toy-bright")], outputs)


def write_image(path: Path) -> Path:
    """Write a black image with a bright block and a smaller one apart from it."""
    array = np.zeros((*SIZE, 3), np.uint8)
    array[BLOCK] = 220
    array[70:90, 100:120] = 220
    Image.fromarray(array).save(path)
    return path
