"""What there is of a dataset before anything is downloaded, prepared or generated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from misure.errors import AbsentError


class NoImagesError(AbsentError):
    """The images of a dataset are not here, whatever the network."""


@dataclass(frozen=True)
class Available:
    """What a dataset's images will be taken from; finding that out changes nothing.

    Attributes:
        state: Whether they are real, generated in their place, or cannot be had as things are.
        source: What they are, in one line; where they are absent, what to do.
        offline: Arguments with which the dataset can be built without a download, preparation or generation; None
            where it cannot.
        download: What will be downloaded, with its size; empty for nothing.
        to_write: Bytes that will be generated or prepared, roughly.
        fetch: Downloads it ahead, as workers may have no internet; None where using the dataset downloads nothing.
    """

    state: Literal["real", "stand-in", "absent"]
    source: str
    offline: Mapping[str, Any] | None = None
    download: str = ""
    to_write: int = 0
    fetch: Callable[[], object] | None = field(default=None, compare=False)

    def require(self) -> None:
        """Raise a NoImagesError that says what to do, if the images cannot be had."""
        if self.state == "absent":
            raise NoImagesError(self.source)
