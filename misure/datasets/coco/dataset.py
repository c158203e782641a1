"""COCO-2017 in its official layout: photographs with the eight classes of the paper."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from misure.datasets.coco.images import MOST_PIXELS, check_image, fitted, fitted_labels, label_map, read_rgb
from misure.datasets.coco.protocol import (
    VOC_NAMES,
    annotated_classes,
    choose_images,
    class_ids,
    credit_of,
    read_annotations,
)
from misure.datasets.coco.source import CocoFiles, locate
from misure.datasets.coco.values import Identity
from misure.datasets.credit import OWN_LICENCE, Credit
from misure.datasets.synthetic.scenes import SceneSpec
from misure.errors import MisureError, some
from misure.io.download import file_digest
from misure.io.reading import ImageFileError, reading
from misure.validation import Count, Ordinal, Whole, check

Split = Literal["train", "val"]

NATIVE_SIDE = 520
"""Shorter side at ``resize="native"``, as in torchvision's evaluation of DeepLabV3."""


class _Resize:
    """Sides of images, or their own size."""

    def __contains__(self, value: object) -> bool:
        return value == "native" or value in Whole(1, 2**14)

    def __str__(self) -> str:
        return "a number of pixels, such as 224, or native"


class CocoDataset(Dataset[dict[str, Tensor]]):
    """Photographs in which at least one of some classes is annotated.

    Each entry is a dict of ``image`` (float32, 3 x H x W, normalised), ``mask`` (int64, H x W, VOC labels, 255
    where objects overlap and on crowds) and ``index``. Images without an annotation of the classes do not belong to
    the dataset. What is damaged or missing is left out, with a warning that names it: see ``left_out``.

    Args:
        split: ``"val"``, or ``"train"``, which only generated scenes have.
        data_root: Folder whose ``coco`` has ``annotations`` and ``val2017``.
        classes: VOC labels that are explained.
        images_per_class: How many images of each class are drawn.
        resize: Side of the square that images are squashed to (the paper: 224), or ``"native"``: aspect kept,
            shorter side 520.
        mean: Per channel, subtracted from values in [0, 1].
        std: Per channel, divisor after that.
        seed: Of the drawing.
        scenes: What generated scenes look like; None means photographs.
        stand_in: Where scenes are generated.

    Attributes:
        left_out: Reasons by what is left out: a drawn ``image`` that is missing or cannot be used, an ``annotation``
            that belongs to no image or cannot be drawn.

    Raises:
        MisureError: If the data is absent, or no image can be used.
    """

    class_names: Sequence[str] = tuple(VOC_NAMES)

    def __init__(
        self,
        split: Split,
        data_root: Path | str,
        classes: Sequence[str],
        images_per_class: Count,
        resize: Annotated[int | str, _Resize()] = 224,
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        seed: Ordinal = 0,
        scenes: SceneSpec | None = None,
        stand_in: Path | str | None = None,
    ) -> None:
        if resize != "native" and (not isinstance(resize, int) or isinstance(resize, bool) or resize < 1):
            raise MisureError(f"resize={resize} is neither a number of pixels, such as 224, nor native")
        check("images_per_class", images_per_class, Whole(1))
        self.split = split
        self.resize = resize
        self.files: CocoFiles = locate(Path(data_root), split, scenes, Path(stand_in) if stand_in else None)
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)
        self._coco, annotations = read_annotations(self.files.annotations)
        self._labels = class_ids(classes)
        chosen = choose_images(self._coco, self._labels, images_per_class, seed)
        unusable = {image: reason for image in chosen if (reason := self._fault(image))}
        self._ids = [image for image in chosen if image not in unusable]
        self.left_out = {"image": list(unusable.values()), "annotation": annotations}
        self._report()

    @property
    def source(self) -> str:
        """Where the images come from, and how much is left out."""
        left_out = "; left out: " + ", ".join(self._counts()) if any(self.left_out.values()) else ""
        return f"{len(self)} {self.files.source}{left_out}"

    @property
    def stand_in(self) -> bool:
        """Whether the images are generated scenes."""
        return self.files.stand_in

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the images: size, normalisation, annotations and files (16 hex digits)."""
        files = [self._digest(image) for image in self._ids]
        identity = [self.split, self.resize, self.mean.tolist(), self.std.tolist(), self._labels, self._ids, files]
        text = json.dumps([*identity, file_digest(self.files.annotations)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def group(self, index: int) -> str:
        """The image's file: objects of one photograph are not independent."""
        return self._path(self._ids[index]).name

    def annotated(self, index: int) -> set[int]:
        """VOC labels with an object of their own in an image, before resizing and overlaps hide any."""
        return annotated_classes(self._coco, self._ids[index])

    def credit(self, index: int) -> Credit:
        """Who made an image and under which licence."""
        credit = credit_of(self._coco, self._coco.imgs[self._ids[index]])
        return replace(credit, licence=OWN_LICENCE) if self.stand_in else credit

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        entry = self._coco.imgs[self._ids[index]]
        pixels = read_rgb(self._path(entry["id"]), (entry["width"], entry["height"]))
        size = self._size(entry["width"], entry["height"])
        labels = fitted_labels(label_map(self._coco, entry["id"]), size)
        return {
            "image": (fitted(pixels, size) - self.mean) / self.std,
            "mask": torch.tensor(labels, dtype=torch.int64),
            "index": torch.tensor(index),
        }

    def _size(self, width: int, height: int) -> tuple[int, int]:
        if isinstance(self.resize, int):
            return self.resize, self.resize
        scale = NATIVE_SIDE / min(width, height)
        return round(height * scale), round(width * scale)

    def _path(self, image_id: Identity) -> Path:
        return self.files.images / str(self._coco.imgs[image_id]["file_name"])

    def _digest(self, image_id: Identity) -> str:
        path = self._path(image_id)
        with reading(path, "it was there before: put it back, or run this again"):
            return file_digest(path)

    def _fault(self, image_id: Identity) -> str | None:
        """Say why an image cannot be used, if so."""
        entry = self._coco.imgs[image_id]
        height, width = self._size(entry["width"], entry["height"])
        if height * width > MOST_PIXELS:
            return f"{entry['file_name']}: it would become {width} x {height}"
        try:
            check_image(self._path(image_id), (entry["width"], entry["height"]))
        except ImageFileError as error:
            return str(error).removeprefix(f"{self.files.images}{os.sep}")
        return None

    def _counts(self) -> list[str]:
        return [f"{len(of)} {kind}{'s' * (len(of) > 1)}" for kind, of in self.left_out.items() if of]

    def _report(self) -> None:
        """Warn of what is left out; raise if nothing remains."""
        named = [some(reasons) for reasons in self.left_out.values() if reasons]
        if not self._ids:
            unusable = self.left_out["image"]
            why = f"none can be used ({some(unusable)})" if unusable else "no image has one of the classes"
            raise MisureError(f"{self.files.images}: {why}; run misure prepare dataset=coco")
        if named:
            counted = [f"{count} ({reasons})" for count, reasons in zip(self._counts(), named, strict=True)]
            warnings.warn(f"{self.files.images}: left out: {', '.join(counted)}", stacklevel=3)
