"""Watching an explanation while it is made, and stopping it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from misure.errors import MisureError


@dataclass(frozen=True)
class Progress:
    """The state of an explanation that is being made.

    Attributes:
        stage: The kind of steps: ``"explaining"`` when a method begins, then the method's own, such as ``"dilating"``,
            ``"minimising"`` or ``"masking"``, and ``"evaluating"`` once its maps are there.
        done: Steps of the stage that are done.
        total: Steps of the stage, or None where that is not known beforehand.
        masks: float or bool, N x H x W: the maps as they are now, or None where there are none yet. They belong to
            the explainer, which goes on writing into them: copy what is kept.
        start: Number of the first mask's image in the batch.
    """

    stage: str
    done: int
    total: int | None = None
    masks: Tensor | None = None
    start: int = 0


Watch = Callable[[Progress], None]
"""Called between steps, in the explaining thread; whatever it raises ends the explanation, and the network comes
back as it was lent."""


class CancelledError(MisureError):
    """Raised by a watcher to stop an explanation."""
