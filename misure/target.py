"""What is explained. The same object goes to explainers and to metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from misure.errors import MisureError, did_you_mean
from misure.model import FrozenNetwork, SegmentationModel


class EmptyTargetError(MisureError):
    """The class was not predicted, or not inside the region; a sweep skips and counts such samples."""


@dataclass(frozen=True)
class Target:
    """A class within a region of one image, with the reference prediction frozen.

    Attributes:
        class_id: The class ``l`` that is explained.
        region: bool, H x W: the pixels predicted as that class and inside the chosen region.
        ignored: bool, H x W: pixels predicted as that class outside the region. They count neither
            for nor against a perturbed prediction.
        background: bool, H x W: the pixels predicted as class 0.
        reference: 2 x H x W, the reference probabilities of background (class 0) and of the class.
    """

    class_id: int
    region: Tensor
    ignored: Tensor
    background: Tensor
    reference: Tensor

    @classmethod
    def from_logits(cls, logits: Tensor, class_id: int, region: Tensor | None = None) -> Target:
        """Freeze the reference prediction.

        Args:
            logits: L x H x W, on the unperturbed image.
            class_id: 0..L-1.
            region: bool, H x W; None means the whole predicted class.

        Raises:
            EmptyTargetError: If no pixel is left to explain.
            MisureError: If the class does not exist or the region has another shape.
        """
        if not 0 <= class_id < len(logits):
            raise MisureError(f"class {class_id} does not exist: the network has classes 0 to {len(logits) - 1}")
        predicted = logits.argmax(0)
        chosen = predicted == class_id
        if not chosen.any():
            present = torch.unique(predicted).tolist()
            raise EmptyTargetError(f"class {class_id} was not predicted in this image; predicted classes: {present}")
        if region is None:
            region = chosen
        elif region.shape != chosen.shape:
            raise MisureError(f"the region has shape {tuple(region.shape)}, the image {tuple(chosen.shape)}")
        else:
            region = chosen & region.to(chosen.device, torch.bool)
        if not region.any():
            raise EmptyTargetError(f"class {class_id} was not predicted inside the region: choose another region")
        reference = logits.softmax(0)[[0, class_id]]
        return cls(class_id, region, chosen & ~region, predicted == 0, reference)

    @property
    def size(self) -> int:
        """Number of pixels that are explained."""
        return int(self.region.sum())

    @property
    def confidence(self) -> float:
        """Mean reference probability of the class over the region, 0..1."""
        return float(self.reference[1][self.region].mean())

    def cpu(self) -> Target:
        """Return the same target with its tensors on the CPU."""
        tensors = (self.region, self.ignored, self.background, self.reference)
        return Target(self.class_id, *(t.cpu() for t in tensors))


@dataclass(frozen=True)
class TargetBatch:
    """Targets of N images as tensors, for batched arithmetic.

    Attributes:
        class_ids: int64, N.
        regions: bool, N x H x W.
        counted: bool, N x H x W; False on ignored pixels.
        backgrounds: bool, N x H x W.
        references: N x 2 x H x W.
    """

    class_ids: Tensor
    regions: Tensor
    counted: Tensor
    backgrounds: Tensor
    references: Tensor

    @classmethod
    def stack(cls, targets: Sequence[Target], device: torch.device | None = None) -> TargetBatch:
        """Stack single targets of equal image size."""
        device = device or targets[0].region.device
        return cls(
            torch.tensor([t.class_id for t in targets], device=device),
            torch.stack([t.region for t in targets]).to(device),
            ~torch.stack([t.ignored for t in targets]).to(device),
            torch.stack([t.background for t in targets]).to(device),
            torch.stack([t.reference for t in targets]).to(device),
        )

    def __getitem__(self, part: slice | Tensor) -> TargetBatch:
        return TargetBatch(**{f.name: getattr(self, f.name)[part] for f in fields(self)})

    def hits(self, logits: Tensor) -> Tensor:
        """Say where perturbed images are predicted as their class: bool, N x H x W."""
        shape = (-1, *(1,) * (logits.ndim - 2))
        return (logits.argmax(1) == self.class_ids.view(shape)) & self.counted

    def scores(self, logits: Tensor) -> Tensor:
        """Return the logits of each image's own class, N x H x W; gradients pass through."""
        return logits[torch.arange(len(logits), device=logits.device), self.class_ids]

    def probabilities(self, logits: Tensor, passes: int = 1) -> Tensor:
        """Return the probabilities of background and of each image's own class, N x 2 x H x W.

        Args:
            logits: N x L x H x W.
            passes: How often softmax is applied.
        """
        probabilities = logits
        for _ in range(passes):
            probabilities = probabilities.softmax(1)
        return torch.stack([probabilities[:, 0], self.scores(probabilities)], 1)


def make_targets(
    network: FrozenNetwork,
    images: Tensor,
    target: int | str | None,
    region: Tensor | None = None,
) -> list[Target]:
    """Predict the unperturbed images and freeze one target each.

    Args:
        network: The frozen network.
        images: N x C x H x W.
        target: A class index, a class name, or None where a single foreground class is predicted.
        region: bool, H x W or N x H x W; None means the whole predicted class.

    Raises:
        MisureError: See :meth:`Target.from_logits`; also if ``target`` is None and ambiguous.
    """
    if region is not None and region.ndim == images.ndim - 2:
        region = region.expand(len(images), *region.shape)

    @torch.no_grad()
    def predict(part: slice) -> list[Target]:
        return [
            Target.from_logits(
                logits, _class_index(network.model, target, logits), None if region is None else region[part.start + i]
            )
            for i, logits in enumerate(network(images[part]))
        ]

    done = network.batches(images[0]).attempt(predict, len(images))
    return [single for _, part in done for single in part]


def _class_index(model: SegmentationModel, target: int | str | None, logits: Tensor) -> int:
    if isinstance(target, str):
        names = model.class_names or ()
        if target not in names:
            raise MisureError(f"the network has no class named {target!r}{did_you_mean(target, names)}")
        return names.index(target)
    if target is not None:
        return int(target)
    present = [c for c in torch.unique(logits.argmax(0)).tolist() if c != 0]
    if len(present) == 1:
        return int(present[0])
    if not present:
        raise EmptyTargetError("only background was predicted: there is no object to explain")
    raise MisureError(f"several classes are predicted: choose one with target=..., out of {present}")
