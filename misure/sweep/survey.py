"""What a network predicts in every validation image: one pass, kept for later runs."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from misure.compute import Compute
from misure.datasets.datamodule import SegmentationDataset
from misure.files import write_atomically
from misure.model import SegmentationModel, frozen

_ARRAYS = ("predictions", "predicted", "true", "overlap")


@dataclass(frozen=True)
class Survey:
    """What a network predicts in N images of one size, with L classes (at most 256).

    Attributes:
        predictions: The predicted class of every pixel, uint8, N x H x W.
        predicted: Predicted pixels by image and class, int64, N x L.
        true: Annotated pixels, N x L.
        overlap: Pixels that are both, N x L.
        groups: The volume, patient or image that each image belongs to.
    """

    predictions: NDArray[np.uint8]
    predicted: NDArray[np.int64]
    true: NDArray[np.int64]
    overlap: NDArray[np.int64]
    groups: tuple[str, ...]

    def of_group(self, name: str) -> NDArray[np.uint8]:
        """Return the predictions in one volume, in the order of its slices: Z x H x W."""
        return self.predictions[[group == name for group in self.groups]]

    def save(self, path: Path) -> None:
        """Write a .npz file, whole or not at all.

        Raises:
            MisureError: If the place cannot be written.
        """
        content = io.BytesIO()
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        np.savez_compressed(content, groups=np.array(self.groups), **dict[str, Any](arrays))
        write_atomically(path, lambda partial: partial.write_bytes(content.getvalue()))

    @classmethod
    def load(cls, path: Path) -> Survey | None:
        """Read a survey; None where there is none or the file is damaged, so that it is made anew."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                groups = tuple(str(g) for g in stored["groups"])
                return cls(**{name: stored[name] for name in _ARRAYS}, groups=groups)
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
    with (
        frozen(model, compute, device) as network,
        network.sustained(),
        tqdm(total=len(dataset), desc="survey", unit="image", leave=False) as bar,
    ):

        def look(part: slice) -> tuple[Tensor, Tensor]:
            entries = [dataset[i] for i in range(len(dataset))[part]]
            images = torch.stack([entry["image"] for entry in entries]).to(device)
            with torch.no_grad():
                logits = network(images)
            bar.update(len(entries))
            masks = torch.stack([entry["mask"] for entry in entries]).to(device)
            predictions = logits.argmax(1)
            return predictions.cpu(), _class_counts(predictions, masks, logits.shape[1]).cpu()

        seen = [found for _, found in network.batches(dataset[0]["image"].to(device)).attempt(look, len(dataset))]
    predicted, true, overlap = torch.cat([counts for _, counts in seen]).unbind(1)
    labels = torch.cat([predictions for predictions, _ in seen]).numpy()
    groups = tuple(dataset.group(i) for i in range(len(dataset)))
    return Survey(labels.astype(np.uint8), predicted.numpy(), true.numpy(), overlap.numpy(), groups)


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
