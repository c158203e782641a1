"""Explanations in a thread of their own, cancelled between two steps."""

from __future__ import annotations

from misure.explainers import make_explainer

MANY = 10**6


def test_a_cancelled_run_ends_its_thread_and_passes_nothing_more(opened, shelf) -> None:
    network = shelf.take("bright").model.module
    run = opened.begin([make_explainer("msr", n_iterations=MANY), make_explainer("rise", n_masks=9)])
    views = run.views()
    while next(views).stage != "minimising":
        pass
    opened.cancel()
    rest = list(views)
    run.thread.join(timeout=20)
    assert not run.thread.is_alive()
    passes = network.passes
    assert run.cancelled
    assert not run.results
    assert "rise" not in {view.method for view in rest}
    assert all(p.requires_grad for p in network.parameters()), "the network was not given back"
    assert network.passes == passes
    again = opened.begin([make_explainer("seg_grad_cam")])
    assert list(again.views())
    assert [made.method for made in again.results] == ["seg_grad_cam"]


def test_leaving_the_views_cancels(opened) -> None:
    run = opened.begin([make_explainer("msr", n_iterations=MANY)])
    views = run.views()
    next(views)
    views.close()  # what Gradio does when the browser goes away
    run.thread.join(timeout=20)
    assert not run.thread.is_alive()
    assert run.cancelled
