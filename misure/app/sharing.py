"""One network lent to several sessions: an explanation at a time, with predictions of others between its steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from misure.models.wrapper import SegmentationModel

_LOOK_EVERY = 0.1
"""Seconds between two looks whether waiting was given up."""


class SharedNetwork:
    """A network and whose turn it is.

    Lending a network for explanation changes it until it is given back (see :func:`misure.models.wrapper.frozen`), so
    explanations come one after the other. Short visits, such as a prediction, need not wait for the end of one: they
    get the network between two steps, and are over before the next.

    Args:
        name: As the user knows it.
        model: The network.
        channels: Image channels it takes.
        size: Side or sides of the images it takes, where it takes no other.
    """

    def __init__(
        self, name: str, model: SegmentationModel, channels: int = 3, size: int | list[int] | None = None
    ) -> None:
        self.name = name
        self.model = model
        self.channels = channels
        self.size = size
        self._turn = threading.Condition()
        self._lent = False  # an explanation has the network, also while it gives way
        self._in_use = False  # somebody's pass is going on
        self._visitors = 0  # visits that wait or go on

    @contextmanager
    def lent(self, check: Callable[[], None]) -> Iterator[None]:
        """Hold the network for an explanation.

        Args:
            check: Called while waiting; what it raises ends the waiting.
        """
        with self._turn:
            while self._lent or self._in_use:
                check()
                self._turn.wait(_LOOK_EVERY)
            self._lent = self._in_use = True
        try:
            yield
        finally:
            with self._turn:
                self._lent = self._in_use = False
                self._turn.notify_all()

    def give_way(self) -> None:
        """Let visitors in; called by the explanation between two steps."""
        with self._turn:
            if self._visitors:
                self._in_use = False
                self._turn.notify_all()
                self._turn.wait_for(lambda: not self._visitors)
                self._in_use = True

    @contextmanager
    def visited(self) -> Iterator[SegmentationModel]:
        """Hold the network for a few passes, at the latest when the step that is going on has ended."""
        with self._turn:
            self._visitors += 1
            self._turn.wait_for(lambda: not self._in_use)
            self._in_use = True
        try:
            yield self.model
        finally:
            with self._turn:
                self._in_use = False
                self._visitors -= 1
                self._turn.notify_all()
