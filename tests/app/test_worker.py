"""The app without a browser: sessions, runs in threads, cancelling, sharing one network."""

import threading
import zipfile

import numpy as np
import pytest
import torch
from app_network import BLOCK, SIZE, bright_shelf, write_image
from torch.nn.functional import avg_pool2d

import misure
from misure.app.parameters import build_explainers, method_names, settings_of
from misure.app.scene import MOST_VOXELS, Cut
from misure.app.session import Session
from misure.app.worker import Run
from misure.errors import MisureError
from misure.explainers import EXPLAINERS, make_explainer
from misure.metrics import min_max
from misure.progress import CancelledError

MANY = 10**6


@pytest.fixture
def shelf(tmp_path):
    return bright_shelf(tmp_path)


@pytest.fixture
def opened(shelf, tmp_path):
    """A session at the tiny image with its larger block chosen."""
    session = Session()
    session.look_at(shelf.take("bright"), write_image(tmp_path / "blocks.png"))
    session.choose(48, 56)
    yield session
    session.close()


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
    finish(opened, again)
    assert "seg_grad_cam" in opened.explanations


def test_leaving_the_views_cancels(opened) -> None:
    run = opened.begin([make_explainer("msr", n_iterations=MANY)])
    views = run.views()
    next(views)
    views.close()  # what Gradio does when the browser goes away
    run.thread.join(timeout=20)
    assert not run.thread.is_alive()
    assert run.cancelled


def test_a_new_image_or_object_stops_and_forgets(opened, shelf, tmp_path) -> None:
    run = opened.begin([make_explainer("msr", n_iterations=MANY)])
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
    assert paths[0].parent != paths[1].parent
    other.close()
    assert not paths[1].parent.exists()
    assert paths[0].is_file()


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


def test_one_failing_method_leaves_the_others(opened) -> None:
    run = opened.begin([make_explainer("seg_grad_cam", layer="nowhere"), make_explainer("prediction")])
    finish(opened, run)
    assert list(opened.explanations) == ["prediction"]
    assert "nowhere" in opened.failures["seg_grad_cam"]


def test_the_download_holds_one_folder_per_method(opened) -> None:
    finish(opened, opened.begin([make_explainer("prediction"), make_explainer("seg_grad_cam")]))
    with zipfile.ZipFile(opened.pack()) as packed:
        names = packed.namelist()
        for method in ("prediction", "seg_grad_cam"):
            assert f"{method}/manifest.json" in names
            with packed.open(f"{method}/saliency.npy") as stream:
                assert np.array_equal(np.load(stream), opened.explanations[method].saliency.numpy())


def test_a_slice_of_a_scan(shelf, tmp_path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (pip install 'misure[images]')")
    voxels = np.zeros((64, 32, 5), np.int16)
    voxels[:, :, 3] = 100
    path = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    scene = Session().look_at(shelf.take("bright"), path, Cut(3, (0.0, 100.0)))
    assert (scene.slice_index, scene.n_slices) == (3, 5)
    assert scene.pixels.shape == (3, 32, 64)
    assert bool((scene.pixels == 1).all())
    middle = Session().look_at(shelf.take("bright"), path, Cut(None, (0.0, 100.0)))
    assert middle.slice_index == 2
    assert bool((middle.pixels == 0).all())


def test_too_large_a_scan_is_refused_by_its_header(shelf, tmp_path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (pip install 'misure[images]')")
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    header = image.header.copy()
    header.set_data_shape((1000, 1000, MOST_VOXELS // 10**6 + 1))
    path = tmp_path / "bomb.nii"
    path.write_bytes(header.binaryblock + bytes(100))
    with pytest.raises(MisureError, match="at most"):
        Session().look_at(shelf.take("bright"), path)


def test_no_image_is_one_line(shelf, tmp_path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(MisureError):
        Session().look_at(shelf.take("bright"), path)


def test_every_method_is_offered_and_made_with_its_defaults() -> None:
    assert sorted(method_names()) == sorted(EXPLAINERS)
    entered = {(s.method, s.name): s.default for name in EXPLAINERS for s in settings_of(name)}
    assert build_explainers(list(EXPLAINERS), entered) == [EXPLAINERS[name]() for name in method_names()]
    assert [s.name for s in settings_of("msr")][:3] == ["n_iterations", "lr", "lam"]
    entered["msr", "n_iterations"] = None
    with pytest.raises(MisureError, match="iterations is empty"):
        build_explainers(["msr"], entered)
