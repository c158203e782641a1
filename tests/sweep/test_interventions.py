"""Interventions: weights drawn anew on a copy, another class, and stage 1 where nothing suffices."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.toys import PerPixel
from sweep_runs import experiment, runner_of, toy_setup
from torch import Tensor, nn

from misure.errors import MisureError
from misure.explainers import make_explainer
from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel, frozen
from misure.paper.extensions.sanity import sanity_table
from misure.paper.material import Material
from misure.paper.published import PAIRS
from misure.paper.query import latest_run
from misure.sweep.interventions import NOTHING, Intervention, Interventions, other_class, randomised
from misure.sweep.plan import merge
from misure.sweep.recorder import Recorder
from misure.sweep.records import RecordStore
from misure.target import EmptyTargetError, make_targets


class Reversed(nn.Module):
    """Registers its last layer first; class 1 where the image is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(2, 2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.body = nn.Conv2d(1, 2, 3, padding=1)
        with torch.no_grad():
            self.body.weight.zero_()
            self.body.weight[:, 0, 1, 1] = torch.tensor([0.0, 1.0])
            self.body.bias.zero_()
            self.norm.running_mean.fill_(0.25)
            self.head.weight[:] = torch.tensor([[0.0, -4.0], [0.0, 4.0]])[..., None, None]
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.body(images)))


IMAGE = torch.zeros(1, 1, 24, 24)
IMAGE[0, 0, 8:14, 8:14] = 0.9


@pytest.fixture
def model() -> SegmentationModel:
    return SegmentationModel(Reversed().eval(), bottleneck="body", in_channels=1)


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    state = after.state_dict()
    return {name for name, tensor in before.state_dict().items() if not torch.equal(tensor, state[name])}


def test_weights_are_drawn_from_the_output_on_and_the_original_stays(model):
    before = copy.deepcopy(model.network)
    third, two_thirds, whole = (randomised(model, IMAGE, share, 0).module for share in (0.33, 0.66, 1.0))
    assert changed(before, model.network) == set()
    assert changed(before, third) == {"head.weight"}  # its bias was 0 already
    assert changed(before, two_thirds) == {"head.weight", "norm.running_mean"}
    assert changed(before, whole) == {"head.weight", "norm.running_mean", "body.weight"}
    assert torch.equal(third.head.weight, whole.head.weight)
    assert torch.equal(whole.norm.running_mean, torch.zeros(2))


def test_weights_depend_on_the_seed_alone(model):
    torch.manual_seed(5)
    first = randomised(model, IMAGE, 1.0, 3).module
    torch.manual_seed(6)
    state = torch.get_rng_state()
    assert changed(first, randomised(model, IMAGE, 1.0, 3).module) == set()
    assert torch.equal(torch.get_rng_state(), state)
    assert "body.weight" in changed(first, randomised(model, IMAGE, 1.0, 4).module)


def test_weights_have_the_scale_of_he():
    wide = SegmentationModel(nn.Sequential(nn.Conv2d(8, 256, 5), nn.Conv2d(256, 2, 1)))
    weight = randomised(wide, torch.zeros(1, 8, 9, 9), 1.0, 0).module[0].weight
    # 51,200 draws: the estimated deviation is within 0.3 % of the true one (one standard error)
    assert float(weight.detach().std()) == pytest.approx((2 / 200) ** 0.5, rel=0.02)


def test_one_copy_serves_until_another_is_wanted(model):
    interventions = Interventions()
    explainer = make_explainer("rise", n_masks=2)
    half = Intervention(randomised=0.5)
    first, same = interventions.apply(half, model, explainer, IMAGE, 0)
    assert same is explainer
    assert interventions.apply(half, model, explainer, IMAGE, 0)[0] is first
    assert interventions.apply(NOTHING, model, explainer, IMAGE, 0) == (model, explainer)
    assert interventions.apply(Intervention(randomised=1.0), model, explainer, IMAGE, 0)[0] is not first


def test_a_callable_has_no_weights():
    with pytest.raises(MisureError, match="no weights to randomise"):
        randomised(SegmentationModel(lambda images: images), IMAGE, 1.0, 0)


@pytest.mark.parametrize("method", ["sufficient_region", "msr"])
def test_a_network_that_never_suffices_gets_the_whole_image(model, method):
    never = copy.deepcopy(model)
    torch.nn.init.zeros_(never.network.head.weight)
    never.network.head.bias.data = torch.tensor([1.0, 0.0])
    with frozen(model, Compute(precision="32"), torch.device("cpu")) as network:
        targets = make_targets(network, IMAGE, 1)
    explainer = make_explainer(method, **({"n_iterations": 3} if method == "msr" else {}))
    with pytest.raises(MisureError, match="not deterministic"):
        explainer.explain(never, IMAGE, targets)
    _, tolerant = Interventions().apply(Intervention(randomised=1.0), model, explainer, IMAGE, 0)
    (found,) = tolerant.explain(never, IMAGE, targets)
    assert found.method == method
    assert found.parameters == explainer.parameters
    assert found.sufficient_region.all()
    # an object at rows and columns 8 to 13 reaches 3 pixels further with each step, straight but not in corners
    assert 4 <= found.n_dilations <= 8
    assert found.evaluations[0].dice_explained == 0


@pytest.mark.parametrize("method", ["sufficient_region", "msr"])
def test_where_the_whole_image_suffices_nothing_differs(model, method):
    explainer = make_explainer(method, **({"n_iterations": 3} if method == "msr" else {}))
    with frozen(model, Compute(precision="32"), torch.device("cpu")) as network:
        targets = make_targets(network, IMAGE, 1)
    _, tolerant = Interventions().apply(Intervention(randomised=1.0), model, explainer, IMAGE, 0)
    (expected,), (found,) = (e.explain(model, IMAGE, targets) for e in (explainer, tolerant))
    assert torch.equal(found.saliency, expected.saliency)
    assert found.n_dilations == expected.n_dilations


class Areas(nn.Module):
    """Predicts class 0, 1 and 2 at values of 0, 1 and 2."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([-(images - c).abs() for c in range(4)], 1)


def _other(image: Tensor, class_id: int) -> int:
    with frozen(SegmentationModel(Areas()), Compute(precision="32"), torch.device("cpu")) as network:
        return other_class(network, image, class_id)


def test_other_class_is_the_largest_other_object_else_the_background():
    image = torch.zeros(1, 1, 8, 8)
    image[..., :2, :2] = 1
    assert _other(image, 1) == 0
    image[..., 4:6, :1] = 2
    assert _other(image, 1) == 2
    image[..., 6:, :] = 3
    assert _other(image, 1) == 3
    with pytest.raises(EmptyTargetError, match="nothing but class 2"):
        _other(torch.full((1, 1, 8, 8), 2.0), 2)
    with pytest.raises(EmptyTargetError, match="class 3 was not predicted"):
        _other(torch.zeros(1, 1, 8, 8), 3)


@given(st.floats(0.001, 1))
def test_text_is_read_back(share):
    text = Intervention(randomised=share).text
    assert Intervention.of(text).text == text
    assert Intervention.of(Intervention(other_target=True).text) == Intervention(other_target=True)
    assert Intervention.of("none") == Intervention.of("") == NOTHING


@pytest.mark.parametrize("text", ["randomised_0", "randomised_1.5", "randomised_x", "randomised_nan", "other", "0.5"])
def test_unknown_interventions_are_refused(text):
    with pytest.raises(MisureError, match="is not known"):
        Intervention.of(text)


@pytest.mark.usefixtures("hydra")
def test_run_and_table(tmp_path: Path, model) -> None:
    """Records of every intervention stand beside their twins and are compared with them."""
    recorder = Recorder(RecordStore(tmp_path / "records"), replace(toy_setup(), load=lambda: model))
    planned = [
        experiment("n_samples=1", f"explainer={method}", f"intervention={change}")
        for method in ("seg_grad_cam", "sufficient_region")
        for change in ("none", "randomised_1", "other_target")
    ]
    assert len(merge([*planned, *planned])) == len(planned)
    assert planned[1].label.endswith("randomised_1")
    before = copy.deepcopy(model.network)
    runner = runner_of(recorder)
    runner.run(planned)
    assert runner.counts.done == 6
    assert changed(before, model.network) == set()
    run = latest_run(recorder.store.load(), "smoke")
    other = run[run["intervention"] == "other_target"]
    assert set(other["explained_class"]) == {0}
    assert set(other["class_id"]) == {1}
    assert set(other["truth_dice"]) == {1.0}
    frame = sanity_table(Material(run, "smoke", recorder.store.maps_folder, run.iloc[:0], PAIRS[:1]))
    assert list(frame["intervention"]) == ["randomised_1", "other_target"] * 2
    assert set(frame["n_samples"]) == {1}


def test_plain_pixels_have_no_parameters_to_draw():
    assert randomised(SegmentationModel(PerPixel()), IMAGE, 1.0, 0).module is not None
