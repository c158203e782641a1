"""Networks, images and targets of the benchmark's tests; the scaling table's processes import this file."""

from __future__ import annotations

import time

import torch
from torch import nn

from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel, frozen
from misure.target import Target, make_targets


class Bright(nn.Module):
    """Class 1 where a pixel is bright; counts the images that pass."""

    def __init__(self, largest: int = 99) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.largest = largest
        self.seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if max(images.shape[2:]) > self.largest:
            raise RuntimeError(f"images are larger than {self.largest}")
        self.seen += len(images)
        return torch.cat([torch.zeros_like(images), images * self.scale - 0.5], dim=1)


def small_network(largest: int = 99) -> SegmentationModel:
    return SegmentationModel(Bright(largest))


def slow_network() -> SegmentationModel:
    time.sleep(600)
    return small_network()


def ending_network() -> SegmentationModel:
    raise SystemExit(3)


def toy_model(dtype: torch.dtype = torch.float64, n_classes: int = 3) -> SegmentationModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, n_classes, 5, padding=2)
        )
    return SegmentationModel(network.to(dtype).eval(), bottleneck="2")


def toy_images(n: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(n, 1, 19, 14, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)


def toy_targets(model: SegmentationModel, images: torch.Tensor) -> list[Target]:
    with frozen(model, Compute("32", 1), images.device) as network:
        return make_targets(network, images, int(network.predict(images[:1]).flatten().mode().values))
