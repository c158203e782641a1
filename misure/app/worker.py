"""Explanations in a thread of their own: watched through a queue, stopped between two steps."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from misure.api import explain
from misure.app.sharing import SharedNetwork
from misure.errors import told
from misure.explainers.base import Explainer
from misure.explanation import Explanation
from misure.progress import CancelledError, Progress
from misure.target import Target

INTERVAL = 0.3
"""Seconds between two views of the same stage."""

DILATING = "dilating"
"""Stage 1's name in its progress; its few steps are all shown."""


@dataclass(frozen=True)
class View:
    """What can be seen of a running explanation.

    Attributes:
        method: Name of the explainer.
        number: Its place among the methods of the run, from 1.
        methods: How many methods the run has.
        stage: As in :class:`misure.progress.Progress`; ``"waiting"`` while another session has the network.
        done: Steps of the stage that are done.
        total: Steps of the stage, or None.
        mask: The map as it was then, on the CPU, H x W or smaller; None where there is none.
        left: Seconds until the stage ends, or None where that is not known.
        sufficient: bool, H x W on the CPU: the newest map of stage 1, where the method has such a stage.
    """

    method: str
    number: int
    methods: int
    stage: str
    done: int = 0
    total: int | None = None
    mask: Tensor | None = None
    left: float | None = None
    sufficient: Tensor | None = None


class Run:
    """One or more methods explaining one target, one after the other.

    Args:
        network: The network; the run holds it alone, but for the moments in which it gives way.
        image: float, C x H x W, in the network's input space.
        target: What is explained.
        explainers: The methods.
        interval: Seconds between two views of a stage.

    Attributes:
        results: Finished explanations; read it when :meth:`views` has ended.
        failures: What went wrong, by method.
        cancelled: Whether the run was stopped.
    """

    def __init__(
        self,
        network: SharedNetwork,
        image: Tensor,
        target: Target,
        explainers: Sequence[Explainer],
        interval: float = INTERVAL,
    ) -> None:
        self.network, self.image, self.target = network, image, target
        self.explainers = tuple(explainers)
        self.interval = interval
        self.results: list[Explanation] = []
        self.failures: dict[str, str] = {}
        self.cancelled = False
        self._stop = threading.Event()
        self._views: queue.SimpleQueue[View | None] = queue.SimpleQueue()
        self._error: Exception | None = None
        self.thread = threading.Thread(target=self._work, name="misure explanation", daemon=True)

    def start(self) -> Run:
        """Begin, and return the run."""
        self.thread.start()
        return self

    def cancel(self) -> None:
        """Stop before the next step; the network is given back by the thread itself."""
        self._stop.set()

    def views(self) -> Iterator[View]:
        """Yield the newest view whenever there is one, until the run has ended.

        Leaving the iteration early cancels the run.

        Raises:
            Exception: What went wrong in the thread, if it was no user's error.
        """
        try:
            while (view := self._newest()) is not None:
                yield view
        finally:
            self.cancel()
        self.thread.join()
        if self._error is not None:
            raise self._error

    def _newest(self) -> View | None:
        """Wait for a view and skip those that newer ones of the same stage have overtaken."""
        view = self._views.get()
        while view is not None and not self._views.empty():
            newer = self._views.get()
            if newer is None:
                self._views.put(None)  # the end, to be found by the next call
                return view
            view = newer
        return view

    def _work(self) -> None:
        try:
            self._show_stage(0, "waiting")
            with self.network.lent(self.check):
                for place in range(len(self.explainers)):
                    self._explain(place)
        except CancelledError:
            self.cancelled = True
        except Exception as error:  # noqa: BLE001 - raised again in the thread that reads the views
            self._error = error
        finally:
            self._views.put(None)

    def _explain(self, place: int) -> None:
        explainer = self.explainers[place]
        self.check()
        self._show_stage(place, "preparing")
        try:
            made = explain(self.network.model, self.image, self.target, explainer, watch=_Watcher(self, place))
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the other methods may still be able to explain
            self.failures[explainer.name] = told(error)
        else:
            self.results.append(made)

    def check(self) -> None:
        """Raise CancelledError if the run was stopped."""
        if self._stop.is_set():
            raise CancelledError("stopped")

    def _show_stage(self, place: int, stage: str) -> None:
        self.show(View(self.explainers[place].name, place + 1, len(self.explainers), stage))

    def show(self, view: View) -> None:
        """Put a view where :meth:`views` finds it."""
        self._views.put(view)


class _Watcher:
    """Sees one method's steps in the explaining thread: stops them, lets visitors in, shows them now and then."""

    def __init__(self, run: Run, place: int) -> None:
        self.run, self.place = run, place
        self.stage = ""
        self.began = self.shown = 0.0
        self.first = 0  # steps that were done when the stage was first seen
        self.sufficient: Tensor | None = None

    def __call__(self, progress: Progress) -> None:
        self.run.check()
        self.run.network.give_way()
        now = time.monotonic()
        if progress.stage != self.stage:
            self.stage, self.began, self.first, self.shown = progress.stage, now, progress.done, -self.run.interval
        if now - self.shown >= self.run.interval or progress.stage == DILATING or progress.done == progress.total:
            self.shown = now
            self.run.show(self._view_of(progress, now - self.began))

    def _view_of(self, progress: Progress, seconds: float) -> View:
        mask = None if progress.masks is None else progress.masks[0].detach().cpu().clone()
        if progress.stage == DILATING:
            self.sufficient = mask
        left, since = None, progress.done - self.first
        if progress.total and since > 0:
            left = seconds / since * (progress.total - progress.done)
        explainers = self.run.explainers
        return View(
            explainers[self.place].name,
            self.place + 1,
            len(explainers),
            progress.stage,
            progress.done,
            progress.total,
            None if mask is None else mask.float(),
            left,
            self.sufficient,
        )
