"""Who made an image, under which licence, and which classes people saw in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

OWN_LICENCE = 0
UNKNOWN_LICENCE = -1

LICENCE_TEXTS = {
    1: "creativecommons.org/licenses/by-nc-sa/",
    2: "creativecommons.org/licenses/by-nc/",
    3: "creativecommons.org/licenses/by-nc-nd/",
    4: "creativecommons.org/licenses/by/",
    5: "creativecommons.org/licenses/by-sa/",
    6: "creativecommons.org/licenses/by-nd/",
    7: "flickr.com/commons/usage/",
    8: "usa.gov/copyright",
}
"""Part of the address of every licence's text, by COCO's number."""

_SHOWABLE = {OWN_LICENCE, 4, 5}


@dataclass(frozen=True)
class Credit:
    """Who made an image and under which licence.

    Attributes:
        licence: COCO's licence number; 4 (BY) and 5 (BY-SA) may be shown anywhere with attribution, 0 is our own,
            -1 is unknown.
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
        return self.licence in _SHOWABLE


@runtime_checkable
class CreditedDataset(Protocol):
    """Images with authors, and with annotations that exist apart from the label map."""

    def annotated(self, index: int) -> set[int]:
        """Classes with an object of their own in an image, also where resizing or an overlap hides it."""

    def credit(self, index: int) -> Credit:
        """Who made an image and under which licence."""
