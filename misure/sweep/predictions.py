"""A network's predictions in every validation image: one pass, kept for later runs."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from misure.datasets.base import SegmentationDataset
from misure.datasets.credit import CreditedDataset
from misure.errors import MisureError
from misure.evaluation.volumes import VolumeDataset
from misure.io.atomic import write_atomically
from misure.io.reading import reading
from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel, frozen

_ARRAYS = {"labels": "predictions"} | {name: name for name in ("predicted", "true", "overlap", "annotated", "showable")}
"""Attributes by their names in files."""


@dataclass(frozen=True)
class Predictions:
    """A network's predictions in N images, with L classes (at most 256).

    Attributes:
        labels: The predicted class of every pixel of volumes, whose slices are of one size: uint8,
            N x H x W; empty for other datasets.
        predicted: Predicted pixels by image and class, int64, N x L.
        true: Annotated pixels, N x L.
        overlap: Pixels that are both, N x L.
        annotated: Whether a class is annotated, bool, N x L; resizing can hide small objects from ``true``.
        showable: Whether an image may be shown anywhere, bool, N.
        groups: The volume, patient or image that each image belongs to.
    """

    labels: NDArray[np.uint8]
    predicted: NDArray[np.int64]
    true: NDArray[np.int64]
    overlap: NDArray[np.int64]
    annotated: NDArray[np.bool_]
    showable: NDArray[np.bool_]
    groups: tuple[str, ...]

    def of_group(self, name: str) -> NDArray[np.uint8]:
        """Return the predictions in one volume, in the order of its slices: Z x H x W."""
        return self.labels[[group == name for group in self.groups]]

    def save(self, path: Path) -> None:
        """Write a .npz file, whole or not at all.

        Raises:
            MisureError: If the place cannot be written.
        """
        content = io.BytesIO()
        arrays = {stored: getattr(self, name) for name, stored in _ARRAYS.items()}
        np.savez_compressed(content, groups=np.array(self.groups), **dict[str, Any](arrays))
        write_atomically(path, lambda partial: partial.write_bytes(content.getvalue()))

    @classmethod
    def load(cls, path: Path) -> Predictions | None:
        """Read predictions; None where there is none or the file is damaged, so that it is made anew."""
        with (
            suppress(MisureError),
            reading(path, "it is made anew"),
            path.open("rb") as stream,
            np.load(stream, allow_pickle=False) as file,
        ):
            groups = tuple(str(group) for group in file["groups"])
            return cls(**{name: file[stored] for name, stored in _ARRAYS.items()}, groups=groups)
        return None


def predict_all(model: SegmentationModel, dataset: SegmentationDataset, compute: Compute) -> Predictions:
    """Predict every image of a dataset.

    Args:
        model: The network.
        dataset: The images with their masks.
        compute: Precision and batch size.
    """
    device = model.device or torch.device("cpu")
    volumes = isinstance(dataset, VolumeDataset)
    with (
        frozen(model, compute, device) as network,
        tqdm(total=len(dataset), desc="predicting", unit="image", leave=False) as bar,
    ):

        @torch.no_grad()
        def look(part: slice) -> tuple[list[Tensor], list[Tensor]]:
            predictions, counts = [], []
            for images, masks in stacks(dataset[i] for i in range(len(dataset))[part]):
                logits = network(images.to(device), unperturbed=True)
                labels = logits.argmax(1)
                counts.append(_class_counts(labels, masks.to(device), logits.shape[1]).cpu())
                predictions += [labels.to("cpu", torch.uint8)] if volumes else []
                bar.update(len(images))
            return predictions, counts

        labels, counts = network.map(look, len(dataset), dataset[0]["image"].to(device))
    predicted, true, overlap = torch.cat(counts).unbind(1)
    annotated, showable = _credited(dataset, true.numpy() > 0)
    return Predictions(
        labels=torch.cat(labels).numpy() if labels else np.empty((0, 0, 0), np.uint8),
        predicted=predicted.numpy(),
        true=true.numpy(),
        overlap=overlap.numpy(),
        annotated=annotated,
        showable=showable,
        groups=tuple(dataset.group(i) for i in range(len(dataset))),
    )


def stacks(entries: Iterable[dict[str, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Stack images and masks of neighbouring entries that are of one size."""
    for _, alike in groupby(entries, key=lambda entry: entry["image"].shape):
        same = list(alike)
        yield torch.stack([entry["image"] for entry in same]), torch.stack([entry["mask"] for entry in same])


def _credited(dataset: SegmentationDataset, seen: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Annotated classes (N x L) and images that may be shown (N); by default what is seen in the masks, and all."""
    showable = np.ones(len(seen), np.bool_)
    credited: object = dataset
    if not isinstance(credited, CreditedDataset):
        return seen, showable
    annotated = np.zeros_like(seen)
    for index in range(len(seen)):
        annotated[index, [c for c in credited.annotated(index) if c < seen.shape[1]]] = True
        showable[index] = credited.credit(index).showable
    return annotated, showable


def _class_counts(predicted: Tensor, masks: Tensor, n_classes: int) -> Tensor:
    """Count predicted, true and common pixels per class: N x 3 x L."""
    offset = n_classes * torch.arange(len(predicted), device=predicted.device).view(-1, 1, 1)
    total = n_classes * len(predicted)
    valid = masks < n_classes  # 255 marks pixels without a label

    def per_class(labels: Tensor, chosen: Tensor) -> Tensor:
        return torch.bincount((labels + offset)[chosen], minlength=total).view(-1, n_classes)

    everywhere = torch.ones_like(valid)
    return torch.stack(
        [per_class(predicted, everywhere), per_class(masks, valid), per_class(masks, valid & (predicted == masks))], 1
    )
