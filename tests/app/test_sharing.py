"""One network for several sessions."""

from __future__ import annotations

import threading

import pytest
import torch

import misure
from misure.app.session import Session
from misure.app.worker import Run
from misure.explainers import make_explainer
from misure.progress import CancelledError


def test_visits_come_between_steps_and_change_nothing(opened, shelf) -> None:
    shared = shelf.take("bright")
    explainer = make_explainer("msr", n_iterations=40)
    undisturbed = misure.explain(shared.model, opened.scene.image, opened.target, explainer)
    run = Run(shared, opened.scene.image, opened.target, [explainer], interval=0).start()
    visitor = Session()
    seen = 0
    for view in run.views():
        if view.stage == "minimising" and seen < 3:
            visitor.look_at(shared, opened.scene.path)  # while the other run holds the network
            assert torch.equal(visitor.scene.labels, opened.scene.labels)
            seen += 1
    assert seen > 0
    assert torch.equal(run.results[0].saliency, undisturbed.saliency)


def test_waiting_for_the_network_can_be_given_up(shelf) -> None:
    shared = shelf.take("bright")
    given_up = threading.Event()

    def check() -> None:
        if given_up.is_set():
            raise CancelledError("stopped")

    def wait() -> None:
        with pytest.raises(CancelledError), shared.lent(check):
            raise AssertionError("the network was lent twice")

    with shared.lent(lambda: None):
        thread = threading.Thread(target=wait)
        thread.start()
        given_up.set()
        thread.join(timeout=20)
    assert not thread.is_alive()
    with shared.lent(check):
        pass  # free again
