"""Handlers of the page's controls, between Gradio's values and a session."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from misure.app import cards, pictures
from misure.app.networks import Shelf
from misure.app.parameters import build_explainers
from misure.app.scene import Cut
from misure.app.session import Session
from misure.app.worker import Run
from misure.errors import MisureError
from misure.io.images import is_nifti
from misure.plotting import Pixels
from misure.reliability import ReliabilityModel

FIRST_WINDOW = "CT, abdomen (-125 to 275)"
WINDOWS = {
    FIRST_WINDOW: (-125.0, 275.0),
    "CT, bone (-450 to 1050)": (-450.0, 1050.0),
    "CT, lung (-1350 to 150)": (-1350.0, 150.0),
    "the scan's own range": None,
}
"""Values of a scan that become black and white."""


def warning(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Show a user's error as a message and leave the page as it was; Gradio logs whatever else goes wrong."""

    @functools.wraps(handler)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except MisureError as error:
            gr.Warning(_message(error), title="That does not work")
            return gr.skip()

    return wrapper


def _message(error: MisureError) -> str:
    """Write an error for the page: as text, and without the folder that uploads are kept in."""
    return escape(re.sub(rf"{re.escape(get_upload_folder())}/\w+/", "", str(error)))


@dataclass(frozen=True)
class Handlers:
    """The page's handlers; what belongs to one user is in the session that each is handed.

    Attributes:
        shelf: The networks.
        examples: Image files to choose from.
        settings: Method and parameter of every input on the page, in order.
    """

    shelf: Shelf
    examples: Sequence[Path]
    settings: Sequence[tuple[str, str]]

    @warning
    def open_first(self, session: Session, network: str) -> tuple[Any, ...]:
        """Show the first example."""
        return self._look(session, network, self.examples[0] if self.examples else None)

    @warning
    def open_example(self, session: Session, network: str, window: str, event: gr.SelectData) -> tuple[Any, ...]:
        """Show an example, a scan's middle slice in the window that is chosen."""
        return self._look(session, network, self.examples[int(event.index)], Cut(None, WINDOWS[window]))

    @warning
    def open_upload(self, session: Session, network: str, window: str, upload: str) -> tuple[Any, ...]:
        """Show an uploaded image likewise."""
        return self._look(session, network, Path(upload), Cut(None, WINDOWS[window]))

    @warning
    def look_again(self, session: Session, network: str, window: str, index: float) -> tuple[Any, ...]:
        """Show the same image as another network sees it, or another window of a scan."""
        path = session.scene.path if session.scene else None
        return self._look(session, network, path, Cut(int(index), WINDOWS[window]))

    @warning
    def look_at_slice(self, session: Session, network: str, window: str, index: float) -> tuple[Any, ...]:
        """Show another slice; its slider, which may be moving on, is left alone."""
        path = session.scene.path if session.scene else None
        shown = self._look(session, network, path, Cut(int(index), WINDOWS[window]))
        picture, legend, _row, _window, _slices, *choice = shown
        return picture, legend, *choice

    def _look(self, session: Session, network: str, path: Path | None, cut: Cut | None = None) -> tuple[Any, ...]:
        """Return picture, legend, the scan's row, window and slice, choice, live view, comparison, download."""
        shared = self.shelf.take(network)
        if path is None:
            return None, "", gr.skip(), gr.skip(), gr.skip(), *self._choice(session)
        scene = session.look_at(shared, path, cut or Cut(None, WINDOWS[FIRST_WINDOW]))
        picture = pictures.prediction_picture(scene.pixels, scene.labels)
        is_scan = is_nifti(path)
        window = next(name for name, values in WINDOWS.items() if values == scene.window) if is_scan else gr.skip()
        last = scene.n_slices - 1
        slices = gr.update(maximum=max(1, last), value=scene.slice_index, interactive=last > 0)
        return picture, cards.legend(scene), gr.update(visible=is_scan), window, slices, *self._choice(session)

    @warning
    def click(self, session: Session, extent: Any, event: gr.SelectData) -> tuple[Any, ...]:
        """Choose the object at a pixel of the picture."""
        factor = pictures.enlargement(session.shown().labels.shape)
        column, row = (int(place) // factor for place in event.index)
        session.choose(row, column, extent)
        return self._target_picture(session), *self._choice(session)

    @warning
    def change_extent(self, session: Session, extent: Any) -> tuple[Any, ...]:
        """Choose more or less at the same pixel."""
        if session.choose_again(extent) is None:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), gr.skip()
        return self._target_picture(session), *self._choice(session)

    def _target_picture(self, session: Session) -> Pixels | None:
        scene, target = session.scene, session.target
        if scene is None or target is None:
            return None
        return pictures.prediction_picture(scene.pixels, scene.labels, target.region)

    def _choice(self, session: Session) -> tuple[Any, ...]:
        return cards.chosen(session), "", cards.comparison(session, 0, None, None), gr.update(interactive=False)

    def explain(
        self, session: Session, methods: list[str], more: list[str], threshold: float, *entered: Any
    ) -> Iterator[Any]:
        """Run the chosen methods and show them at work: live view, comparison, download, both buttons."""
        run = self._begin(session, [*methods, *more], entered)
        if not isinstance(run, Run):  # a user's error, which was shown
            yield gr.skip()
            return
        idle = (gr.update(interactive=True), gr.update(interactive=False))
        busy = (gr.update(interactive=False), gr.update(interactive=True))
        history: list[float] = []
        stage = None
        for view in run.views():
            if (view.method, view.stage) != stage:
                stage, history = (view.method, view.stage), []
            if view.sufficient is not None and view.mask is not None:
                history.append(100 * float(view.mask.mean()))
            if run is session.run:
                yield cards.live(session, view, history), gr.skip(), gr.skip(), *busy
        if not session.collect(run):
            yield gr.skip(), gr.skip(), gr.skip(), *idle
            return
        end = cards.ended(run.cancelled, run.failures, len(run.results))
        yield end, cards.comparison(session, threshold, None, None), gr.skip(), *idle
        yield end, self._compared(session, threshold), self._download(session), *idle

    @warning
    def _begin(self, session: Session, methods: list[str], entered: Sequence[Any]) -> Run:
        return session.begin(build_explainers(methods, dict(zip(self.settings, entered, strict=True))))

    def cancel(self, session: Session) -> None:
        """Stop the run; :meth:`explain` then says so."""
        session.cancel()

    def compare(self, session: Session, threshold: float) -> Iterator[str]:
        """Cut the maps at another threshold: first the pictures, then with their metrics."""
        if session.explanations:
            yield cards.comparison(session, threshold, None, None)
            yield self._compared(session, threshold)

    @warning
    def _compared(self, session: Session, threshold: float) -> str:
        return cards.comparison(session, threshold, session.measure(threshold), self._reliability(session))

    def _reliability(self, session: Session) -> ReliabilityModel | None:
        if session.scene is None or session.target is None:
            return None
        return self.shelf.reliability(session.scene.network.name, session.scene.class_label(session.target.class_id))

    @warning
    def _download(self, session: Session) -> Any:
        packed = session.pack()
        return gr.update(value=None if packed is None else str(packed), interactive=packed is not None)
