"""The Triangle dataset (paper 4.1, after Riva et al. 2022): three items in a triangle among distractors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from misure.datasets.fashion_mnist import Items, Split, load_items
from misure.errors import MisureError
from misure.randomness import integers, normal, uniform
from misure.validation import Ordinal, Side, Weight, Whole, check_fields

CLASS_NAMES = ("background", "triangle")
_SPLIT_KEY: dict[Split, int] = {"train": 0, "val": 1}
_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
_MAX_ATTEMPTS = 1000

# What a draw is for: the second-to-last part of its random key.
_ANCHOR, _CORNER, _ITEM, _JITTER, _DISTRACTOR, _NOISE = range(6)


@dataclass(frozen=True)
class TriangleLayout:
    """What a Triangle image looks like. Lengths are in pixels.

    Attributes:
        canvas: Side of the square black image.
        item: Side of a clothing item (28 is native; others are resized bilinearly).
        side: Side of the square whose corners carry the triangle.
        anchor_low: Smallest coordinate of the square's first corner, which lies on the diagonal.
        anchor_high: Largest such coordinate.
        distractors: Number of items outside the triangle.
        classes: Fashion-MNIST classes of triangle items and distractors alike.
        jitter: Largest displacement of a triangle item along each axis.
        noise: Standard deviation of the half-normal noise on black pixels, for values in [0, 1].
    """

    canvas: Side = 224
    item: Side = 28
    side: Side = 100
    anchor_low: Ordinal = 28
    anchor_high: Ordinal = 96
    distractors: Annotated[int, Whole(0, 1000)] = 5
    classes: tuple[Annotated[int, Whole(0, 9)], ...] = (0, 1, 2)
    jitter: Ordinal = 0
    noise: Weight = 0.0

    def __post_init__(self) -> None:
        check_fields(self, {name: f"layout.{name}" for name in self.__dataclass_fields__})
        object.__setattr__(self, "classes", tuple(self.classes))
        before, after = self.item // 2 + self.jitter, self.item - self.item // 2 + self.jitter
        if self.anchor_low < before or self.anchor_high + self.side + after > self.canvas:
            raise MisureError(
                f"triangle items would leave the {self.canvas} px canvas: reduce anchor_high, side or jitter"
            )
        if self.anchor_low > self.anchor_high:
            raise MisureError(f"anchor_low={self.anchor_low} is above anchor_high={self.anchor_high}: swap them")
        if not self.classes:
            raise MisureError("layout.classes is empty: name at least one Fashion-MNIST class, 0 to 9")


class TriangleDataset(Dataset[dict[str, Tensor]]):
    """Images made on demand from (seed, split, index) alone.

    Each entry is a dict of ``image`` (float32, 1 x H x W in [0, 1]), ``mask`` (int64, H x W, 1 on
    non-black pixels of the triangle's items) and ``index``.

    Args:
        split: ``"train"`` or ``"val"``; the two use disjoint items.
        size: Number of images.
        data_root: Folder that is searched first for Fashion-MNIST.
        layout: Geometry and content.
        seed: Same seed, same images.
        download: Whether Fashion-MNIST may be downloaded.
    """

    class_names: Sequence[str] = CLASS_NAMES
    stand_in = False

    def __init__(
        self,
        split: Split,
        size: Annotated[int, Whole(1, 10**9)],
        data_root: Path | str,
        layout: TriangleLayout | None = None,
        seed: Ordinal = 0,
        *,
        download: bool = True,
    ) -> None:
        self.split = split
        self.size = size
        self.layout = layout or TriangleLayout()
        self.seed = seed
        self.items: Items = load_items(split, self.layout.classes, Path(data_root), download=download)

    @property
    def source(self) -> str:
        """Where the clothing items came from."""
        return self.items.source

    @property
    def fingerprint(self) -> str:
        """Identity of the data: layout, seed, split and the very items used (16 hex digits)."""
        identity = [asdict(self.layout), self.seed, self.split, self.items.fingerprint]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def group(self, index: int) -> str:
        """Every image is a group of its own."""
        return str(index)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.size:
            raise IndexError(f"sample {index} of {self.size}")
        layout = self.layout
        key = (self.seed, _SPLIT_KEY[self.split], index)
        image = torch.zeros(layout.canvas, layout.canvas)
        mask = torch.zeros(layout.canvas, layout.canvas, dtype=torch.int64)
        corners = self._triangle(key)
        for number, corner in enumerate([*corners, *self._distractors(key, corners)]):
            top, left = corner
            item = self._item(key, number)
            window = (slice(top, top + layout.item), slice(left, left + layout.item))
            image[window] = torch.maximum(image[window], item)
            if number < len(corners):
                mask[window] = torch.maximum(mask[window], (item > 0).to(torch.int64))
        if layout.noise:
            pixels = torch.arange(layout.canvas**2)
            noise = normal(*key, _NOISE, pixels).abs().mul(layout.noise).clamp(max=1).view_as(image)
            image = torch.where(image > 0, image, noise.to(image.dtype))
        return {"image": image[None], "mask": mask, "index": torch.tensor(index)}

    def _triangle(self, key: tuple[int, ...]) -> list[tuple[int, int]]:
        """Top-left positions of the three triangle items."""
        layout = self.layout
        anchor = int(integers(layout.anchor_low, layout.anchor_high, *key, _ANCHOR))
        missing = int(integers(0, 3, *key, _CORNER))
        shifts = integers(-layout.jitter, layout.jitter, *key, _JITTER, torch.arange(8)).view(4, 2).tolist()
        start = anchor - layout.item // 2
        return [
            (start + row * layout.side + down, start + column * layout.side + right)
            for corner, ((row, column), (down, right)) in enumerate(zip(_CORNERS, shifts, strict=True))
            if corner != missing
        ]

    def _distractors(self, key: tuple[int, ...], taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Top-left positions of the distractors; none overlaps a triangle item's box."""
        layout = self.layout
        attempts = torch.arange(2 * _MAX_ATTEMPTS)
        places = integers(0, layout.canvas - layout.item, *key, _DISTRACTOR, attempts).view(-1, 2)
        gaps = (places[:, None] - torch.tensor(taken)[None]).abs().amax(-1)
        free = places[(gaps >= layout.item).all(1)][: layout.distractors]
        if len(free) < layout.distractors:
            raise MisureError(f"no room for {layout.distractors} distractors on {layout.canvas} px: use fewer")
        return [(int(row), int(column)) for row, column in free]

    def _item(self, key: tuple[int, ...], number: int) -> Tensor:
        choice = int(uniform(*key, _ITEM, number) * len(self.items.images))
        item = self.items.images[choice].to(torch.float32) / 255
        if item.shape[-1] != self.layout.item:
            size = (self.layout.item, self.layout.item)
            item = interpolate(item[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        return item
