"""A session: what a click takes, what is explained, compared and kept apart."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch
from app_network import BLOCK, SIZE, write_image
from torch.nn.functional import avg_pool2d

import misure
from misure.app.session import Session
from misure.errors import MisureError
from misure.explainers import make_explainer
from misure.metrics import min_max


def finish(session, run):
    views = list(run.views())
    session.collect(run)
    return views


def test_a_click_takes_the_object_its_border_or_its_class(opened) -> None:
    image = opened.scene.image[None]
    predicted = (10 * avg_pool2d(image.mean(1), 3, 1, 1) > 5)[0]
    assert torch.equal(opened.scene.labels > 0, predicted)
    block = torch.zeros(SIZE, dtype=torch.bool)
    block[BLOCK] = True
    whole = opened.choose_again("class")
    assert torch.equal(whole.region, predicted)
    alone = opened.choose_again("object")
    assert torch.equal(alone.region, predicted & block)
    border = opened.choose_again("border")
    assert not bool((border.region & ~alone.region).any())
    assert 0 < border.size < alone.size


def test_background_and_outside_are_refused(opened) -> None:
    with pytest.raises(MisureError, match="nothing was predicted there"):
        opened.choose(0, 0)
    with pytest.raises(MisureError, match="outside the image"):
        opened.choose(0, SIZE[1])
    with pytest.raises(MisureError, match="no method"):
        opened.begin([])
    with pytest.raises(MisureError, match="no image"):
        Session().choose(0, 0)


def test_a_run_gives_what_explain_gives(opened, shelf) -> None:
    methods = [make_explainer("msr", n_iterations=4), make_explainer("rise", n_masks=9)]
    run = opened.begin(methods)
    views = finish(opened, run)
    assert {view.method for view in views} <= {"msr", "rise"}
    for method in methods:
        direct = misure.explain(shelf.take("bright").model, opened.scene.image, opened.target, method)
        assert torch.equal(opened.explanations[method.name].saliency, direct.saliency)
        assert opened.explanations[method.name].evaluations == direct.evaluations


def test_every_map_is_cut_and_measured_at_one_threshold(opened) -> None:
    finish(opened, opened.begin([make_explainer("rise", n_masks=9), make_explainer("seg_grad_cam")]))
    threshold = 0.35
    measured = opened.measure(threshold)
    assert set(measured) == {"rise", "seg_grad_cam"}
    for name, made in opened.explanations.items():
        mask = min_max(made.saliency[None])[0] > threshold
        assert torch.equal(opened.masks(threshold)[name], mask)
        assert measured[name].perturbation_ratio == pytest.approx(int(mask.sum()) / opened.target.size)
        kept = opened.scene.image * mask
        hits = (10 * avg_pool2d(kept.mean(0)[None], 3, 1, 1) > 5)[0]
        hits &= ~made.target.ignored
        overlap = 2 * int((hits & made.target.region).sum()) / int(hits.sum() + made.target.region.sum())
        assert measured[name].dice_explained == pytest.approx(overlap)


def test_a_new_image_or_object_stops_and_forgets(opened, shelf, tmp_path) -> None:
    run = opened.begin([make_explainer("msr", n_iterations=10**6)])
    opened.choose(80, 110)
    list(run.views())
    assert run.cancelled
    assert not opened.collect(run)
    assert opened.explanations == {}
    finish(opened, opened.begin([make_explainer("prediction")]))
    opened.look_at(shelf.take("bright"), write_image(tmp_path / "blocks.png"))
    assert opened.explanations == {}
    assert opened.target is None


def test_two_sessions_do_not_mix(opened, shelf, tmp_path) -> None:
    other = Session()
    other.look_at(shelf.take("bright"), write_image(tmp_path / "blocks.png"))
    other.choose(80, 110)
    first = opened.begin([make_explainer("msr", n_iterations=6)])
    second = other.begin([make_explainer("msr", n_iterations=6)])
    finish(other, second)
    finish(opened, first)
    for session in (opened, other):
        alone = misure.explain(shelf.take("bright").model, session.scene.image, session.target, n_iterations=6)
        assert torch.equal(session.explanations["msr"].saliency, alone.saliency)
    assert opened.target.size != other.target.size
    paths = [session.pack() for session in (opened, other)]
    with zipfile.ZipFile(paths[0]) as packed, packed.open("msr/saliency.npy") as stream:
        assert np.array_equal(np.load(stream), opened.explanations["msr"].saliency.numpy())
    other.close()
    assert not paths[1].parent.exists()
    assert paths[0].is_file()


def test_one_failing_method_leaves_the_others(opened) -> None:
    run = opened.begin([make_explainer("seg_grad_cam", layer="nowhere"), make_explainer("prediction")])
    finish(opened, run)
    assert list(opened.explanations) == ["prediction"]
    assert "nowhere" in opened.failures["seg_grad_cam"]


def test_a_method_that_raises_whatever_it_likes_leaves_the_others(opened, monkeypatch) -> None:
    def faulty(*_: object) -> None:
        raise KeyError("window")

    monkeypatch.setattr("misure.explainers.baselines.RandomMap.saliency_maps", faulty)
    run = opened.begin([make_explainer("random_map"), make_explainer("prediction")])
    finish(opened, run)
    assert list(opened.explanations) == ["prediction"]
    assert "fails in random_map (KeyError: 'window')" in opened.failures["random_map"]
