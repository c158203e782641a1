"""COCO-2017 in its official layout: photographs with the eight classes of the paper."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from misure.datasets.coco_images import UnreadableImageError, fitted, fitted_labels, label_map, read_rgb
from misure.datasets.coco_protocol import (
    VOC_NAMES,
    annotated_classes,
    choose_images,
    class_ids,
    credit_of,
    load_annotations,
)
from misure.datasets.coco_source import Location, locate
from misure.datasets.credit import Credit
from misure.datasets.scenes import SceneSpec
from misure.download import file_digest
from misure.errors import MisureError

Split = Literal["train", "val"]

NATIVE_SIDE = 520
"""Shorter side at ``resize="native"``, as in torchvision's evaluation of DeepLabV3."""

_NAMED = 3
"""How many skipped images a warning names."""


class CocoDataset(Dataset[dict[str, Tensor]]):
    """Photographs in which at least one of some classes is annotated.

    Each entry is a dict of ``image`` (float32, 3 x H x W, normalised), ``mask`` (int64, H x W, VOC labels, 255
    where objects overlap and on crowds) and ``index``. An annotated image whose file is missing or damaged is
    skipped with a warning; images without an annotation of the classes do not belong to the dataset.

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

    Raises:
        MisureError: If the data is absent, or no image can be used.
    """

    class_names: Sequence[str] = tuple(VOC_NAMES)

    def __init__(
        self,
        split: Split,
        data_root: Path | str,
        classes: Sequence[str],
        images_per_class: int,
        resize: int | str = 224,
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        seed: int = 0,
        scenes: SceneSpec | None = None,
        stand_in: Path | str | None = None,
    ) -> None:
        if resize != "native" and (not isinstance(resize, int) or isinstance(resize, bool) or resize < 1):
            raise MisureError(f"resize={resize} is neither a number of pixels, such as 224, nor native")
        self.split = split
        self.resize = resize
        self.location: Location = locate(Path(data_root), split, scenes, Path(stand_in) if stand_in else None)
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)
        self._coco = load_annotations(self.location.annotations)
        self._labels = class_ids(classes)
        chosen = choose_images(self._coco, self._labels, images_per_class, seed)
        self.skipped: dict[str, str] = {}
        self._ids = [image for image in chosen if self._is_usable(image)]
        self._report_skipped(len(chosen))

    @property
    def source(self) -> str:
        """Where the images come from, and how many are left out."""
        left_out = f", {len(self.skipped)} left out" if self.skipped else ""
        return f"{len(self)} {self.location.source}{left_out}"

    @property
    def stand_in(self) -> bool:
        """Whether the images are generated scenes."""
        return self.location.stand_in

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the images: size, normalisation, annotations and files (16 hex digits)."""
        files = [file_digest(self._path(image)) for image in self._ids]
        identity = [self.split, self.resize, self.mean.tolist(), self.std.tolist(), self._labels, self._ids, files]
        text = json.dumps([*identity, file_digest(self.location.annotations)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def group(self, index: int) -> str:
        """The image's file: objects of one photograph are not independent."""
        return self._path(self._ids[index]).name

    def annotated(self, index: int) -> set[int]:
        """VOC labels with an object of their own in an image, before resizing and overlaps hide any."""
        return annotated_classes(self._coco, self._ids[index])

    def credit(self, index: int) -> Credit:
        """Who made an image and under which licence."""
        return credit_of(self._coco, self._coco.imgs[self._ids[index]])

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        image = read_rgb(self._path(self._ids[index]))
        size = self._size(image.width, image.height)
        labels = fitted_labels(label_map(self._coco, self._ids[index]), size)
        return {
            "image": (fitted(image, size) - self.mean) / self.std,
            "mask": torch.tensor(labels, dtype=torch.int64),
            "index": torch.tensor(index),
        }

    def _size(self, width: int, height: int) -> tuple[int, int]:
        if isinstance(self.resize, int):
            return self.resize, self.resize
        scale = NATIVE_SIDE / min(width, height)
        return round(height * scale), round(width * scale)

    def _path(self, image_id: int) -> Path:
        return self.location.images / str(self._coco.imgs[image_id]["file_name"])

    def _is_usable(self, image_id: int) -> bool:
        """Decode an image once; a file that cannot be used is remembered with its reason."""
        entry = self._coco.imgs[image_id]
        try:
            read_rgb(self._path(image_id), (entry["width"], entry["height"]))
        except UnreadableImageError as error:
            self.skipped[str(entry["file_name"])] = str(error)
            return False
        return True

    def _report_skipped(self, n_chosen: int) -> None:
        reasons = list(self.skipped.values())
        more = f" and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
        named = "; ".join(reasons[:_NAMED]) + more
        if not self._ids:
            why = f"none of {n_chosen} images can be used ({named})" if reasons else "no image has one of the classes"
            raise MisureError(f"{self.location.images}: {why}; run scripts/prepare_data.py dataset=coco")
        if reasons:
            message = f"{len(reasons)} of {n_chosen} COCO images are left out: {named}"
            warnings.warn(message, stacklevel=3)
