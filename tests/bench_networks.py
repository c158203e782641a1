"""Networks for the scaling table's processes, which import this file and little else."""

from __future__ import annotations

import time

import torch
from torch import nn

from misure.models.wrapper import SegmentationModel


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
        return torch.cat([torch.full_like(images, 0.5), images * self.scale], dim=1)


def small_network(largest: int = 99) -> SegmentationModel:
    return SegmentationModel(Bright(largest))


def slow_network() -> SegmentationModel:
    time.sleep(600)
    return small_network()


def ending_network() -> SegmentationModel:
    raise SystemExit(3)
