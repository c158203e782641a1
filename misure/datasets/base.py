"""What every dataset offers, and the parts of a curriculum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class SegmentationDataset(Protocol):
    """What every dataset of the project offers. Entries hold ``image`` (C x H x W) and ``mask`` (H x W)."""

    @property
    def source(self) -> str:
        """Where the images came from, in one line."""

    @property
    def fingerprint(self) -> str:
        """Identity of the images, 16 hexadecimal digits."""

    @property
    def stand_in(self) -> bool:
        """Whether the images were generated in place of data that is absent."""

    def group(self, index: int) -> str:
        """Name the volume, patient or image that an entry belongs to: entries of one group are not independent."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Stage:
    """A part of a curriculum.

    Attributes:
        until: Share of the training budget at which the stage ends.
        dataset: The images of this part.
    """

    until: float
    dataset: SegmentationDataset
