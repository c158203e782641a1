"""Who made an image, under which licence, and which classes people saw in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Credit:
    """Who made an image and under which licence.

    Attributes:
        licence: COCO's licence number; 4 (BY) and 5 (BY-SA) may be shown anywhere with attribution, 0 is our own.
        licence_name: Its name.
        licence_url: Its text.
        url: The image's page or file at its source.
    """

    licence: int
    licence_name: str
    licence_url: str
    url: str

    @property
    def showable(self) -> bool:
        """Whether the image may be shown anywhere if it is attributed."""
        return self.licence in {0, 4, 5}


@runtime_checkable
class CreditedDataset(Protocol):
    """Images with authors, and with annotations that exist apart from the label map."""

    def annotated(self, index: int) -> set[int]:
        """Classes with an object of their own in an image, also where resizing or an overlap hides it."""

    def credit(self, index: int) -> Credit:
        """Who made an image and under which licence."""
