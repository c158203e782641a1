"""Turns of threads at one network: a second one is lent it after the first, or while that one's watcher looks on."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(eq=False)
class _Turn:
    parts: frozenset[int]
    thread: int
    is_paused: bool = False


class Turns:
    """Who has which modules. Turns at a module are nested: one that was paused goes on after those begun meanwhile."""

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)  # where the other threads are gone

    def _renew(self) -> None:
        self._change = threading.Condition()
        self._turns: list[_Turn] = []

    @contextmanager
    def taken(self, parts: Iterable[object]) -> Iterator[None]:
        """Wait until no other thread works with any of some parts, and have them alone."""
        mine = _Turn(frozenset(map(id, parts)), threading.get_ident())
        with self._change:
            self._change.wait_for(lambda: all(turn.is_paused for turn in self._rivals(mine)))
            self._turns.append(mine)
        try:
            yield
        finally:
            with self._change:
                self._turns = [turn for turn in self._turns if turn is not mine]
                self._change.notify_all()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let other threads have what this one has, and wait until they have given it back."""
        with self._change:
            mine = [t for t in self._turns if t.thread == threading.get_ident() and not t.is_paused]
            self._set_paused(mine, paused=True)
        try:
            yield
        finally:
            with self._change:
                self._change.wait_for(lambda: not any(self._later_rivals(turn) for turn in mine))
                self._set_paused(mine, paused=False)

    def _set_paused(self, turns: list[_Turn], *, paused: bool) -> None:
        for turn in turns:
            turn.is_paused = paused
        self._change.notify_all()

    def _rivals(self, mine: _Turn) -> list[_Turn]:
        return [turn for turn in self._turns if turn.thread != mine.thread and turn.parts & mine.parts]

    def _later_rivals(self, mine: _Turn) -> list[_Turn]:
        later = self._turns[self._turns.index(mine) :] if mine in self._turns else []
        return [turn for turn in self._rivals(mine) if turn in later]


TURNS = Turns()
"""Those of this process."""
