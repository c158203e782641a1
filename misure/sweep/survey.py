"""What a network predicts in every validation image: one pass, kept for later runs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from misure.compute import Compute
from misure.datasets.datamodule import SegmentationDataset
from misure.files import write_atomically
from misure.model import SegmentationModel, frozen


@dataclass(frozen=True)
class Survey:
    """Pixel counts by image and class, N x L each, int64.

    Attributes:
        predicted: Predicted pixels.
        true: Annotated pixels.
        overlap: Pixels that are both.
        groups: The volume, patient or image that each image belongs to.
    """

    predicted: NDArray[np.int64]
    true: NDArray[np.int64]
    overlap: NDArray[np.int64]
    groups: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write a .npz file, whole or not at all.

        Raises:
            MisureError: If the place cannot be written.
        """
        content = io.BytesIO()
        np.savez_compressed(
            content, predicted=self.predicted, true=self.true, overlap=self.overlap, groups=np.array(self.groups)
        )
        write_atomically(path, lambda partial: partial.write_bytes(content.getvalue()))

    @classmethod
    def load(cls, path: Path) -> Survey | None:
        """Read a survey; None where there is none or the file is damaged, so that it is made anew."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                groups = tuple(str(g) for g in stored["groups"])
                return cls(stored["predicted"], stored["true"], stored["overlap"], groups)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None


def take_survey(model: SegmentationModel, dataset: SegmentationDataset, compute: Compute) -> Survey:
    """Predict every image of a dataset.

    Args:
        model: The network.
        dataset: The images with their masks.
        compute: Precision and batch size.
    """
    device = model.device or torch.device("cpu")
    counts: list[Tensor] = []
    with (
        frozen(model, compute, device) as network,
        network.sustained(),
        tqdm(total=len(dataset), desc="survey", unit="image", leave=False) as bar,
    ):

        def count(part: slice) -> Tensor:
            entries = [dataset[i] for i in range(len(dataset))[part]]
            images = torch.stack([entry["image"] for entry in entries]).to(device)
            with torch.no_grad():
                logits = network(images)
            bar.update(len(entries))
            masks = torch.stack([entry["mask"] for entry in entries]).to(device)
            return _class_counts(logits.argmax(1), masks, logits.shape[1]).cpu()

        counts = [found for _, found in network.batches(dataset[0]["image"].to(device)).attempt(count, len(dataset))]
    predicted, true, overlap = torch.cat(counts).unbind(1)
    return Survey(predicted.numpy(), true.numpy(), overlap.numpy(), tuple(_groups(dataset)))


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


def _groups(dataset: SegmentationDataset) -> Sequence[str]:
    return [dataset.group(i) for i in range(len(dataset))]
