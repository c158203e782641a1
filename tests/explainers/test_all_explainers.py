"""One tester for every explainer on every kind of network, at odd sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_type_hints

import numpy as np
import pytest
import torch
from models.test_lending import snapshot
from oracles.cams import as_image
from oracles.toys import Convolutional, Shifts, Tokens
from torch import Tensor

import misure
from misure.explainers import make_explainer
from misure.explanation import Explanation
from misure.models.compute import Compute

SIZES = [(13, 17), (22, 9)]
N_IMAGES = 3
PARAMETERS: dict[str, dict] = {
    "msr": {"n_iterations": 12, "mask_size": 8, "tv_weight": 1e-3},
    "msr_fast": {"n_iterations": 5, "mask_size": 8},
    "sufficient_region": {},
    "rise": {"n_masks": 12, "grid": 3, "style": "bilinear"},
    "seg_grad_cam": {},
    "hires_cam": {"pool": 2},
    "score_cam": {},
    "ablation_cam": {},
    "integrated_gradients": {"n_steps": 7},
    "smooth_grad": {"n_samples": 5},
    "occlusion": {"window": 6, "stride": 4},
    "meaningful_perturbation": {"n_iterations": 8, "grid": 4, "jitter": 1, "blur_sigma": 2},
    "grid_saliency": {"n_iterations": 8, "grid": 4},
    "extremal_perturbation": {"n_iterations": 8, "mask_size": 8, "area": 0.4},
    "prediction": {},
    "random_map": {},
}
CAPTUM = ("integrated_gradients", "smooth_grad")
UNBOUNDED = ("seg_grad_cam", "hires_cam", "score_cam", "ablation_cam", *CAPTUM)
HIGHEST = {"rise": 2 / 0.54, **dict.fromkeys(UNBOUNDED, float("inf"))}
LOWEST = {"rise": -1 / 0.54}
"""A score in [0, 1] minus its prediction, times a mask, added to the mean score."""


@dataclass
class Case:
    """A network as a user has it, the module inside, and images."""

    model: misure.SegmentationModel
    module: torch.nn.Module
    images: Tensor
    target: int


def tokens(channels: int, size: tuple[int, int]) -> misure.SegmentationModel:
    return misure.SegmentationModel(
        Tokens(channels, seed=1), bottleneck="mixer", reshape=lambda t: as_image(t, *Tokens.grid(*size))
    )


def convolutional(output: str) -> Callable[[int, tuple[int, int]], misure.SegmentationModel]:
    return lambda channels, size: misure.SegmentationModel(
        Convolutional(channels, output=output, seed=3), bottleneck="bottleneck"
    )


NETWORKS = {
    "shifts": lambda channels, size: misure.SegmentationModel(Shifts(channels), bottleneck="bottleneck"),
    "tensor": convolutional("tensor"),
    "dict": convolutional("dict"),
    "quarter": convolutional("quarter"),
    "sigmoid": convolutional("sigmoid"),
    "tokens": tokens,
}


def make_case(kind: str, channels: int, size: tuple[int, int]) -> Case:
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(N_IMAGES, channels, *size, dtype=torch.float64, generator=generator)
    model = NETWORKS["tensor" if kind == "callable" else kind](channels, size)
    module = model.module.double()
    module.eval()
    predicted = model(images).argmax(1)
    everywhere = [c for c in range(1, 3) if (predicted == c).any(-1).any(-1).all()]
    if kind == "callable":
        model = misure.SegmentationModel(module.forward)
    module.train()
    if kind == "callable":
        module.eval()
    return Case(model, module, images, everywhere[0])


EVERYWHERE = pytest.mark.parametrize(
    ("kind", "method"),
    [
        (kind, method)
        for kind in (*NETWORKS, "callable")
        for method in sorted(misure.EXPLAINERS)
        if kind != "callable" or not misure.EXPLAINERS[method].needs_layer  # see test_layers_of_a_plain_callable
    ],
)
"""Every explainer on every network it can explain."""


@pytest.fixture(params=sorted(misure.EXPLAINERS))
def method(request) -> str:
    return request.param


@pytest.fixture
def case(kind) -> Case:
    """Every other kind of network has the other channels and size."""
    return make_case(kind, *((1, SIZES[0]) if [*NETWORKS, "callable"].index(kind) % 2 else (3, SIZES[1])))


def explain(case: Case, method: str, images: Tensor | None = None, **options) -> list[Explanation]:
    images = case.images if images is None else images
    if method in CAPTUM:
        pytest.importorskip("captum", reason="captum is not installed")
    return misure.explain(
        case.model, images, case.target, method, **{"precision": "32", **options}, **PARAMETERS[method]
    )


def assert_same(one: Explanation, other: Explanation, *, exactly: bool = True) -> None:
    """Compare everything but the time and the batch, to the last bit or to float64 rounding."""
    assert one.evaluations == other.evaluations
    assert one.n_dilations == other.n_dilations
    tolerance = 0 if exactly else 1e-9  # AdamW divides rounding errors of 1e-16 by its own small gradients
    torch.testing.assert_close(one.saliency, other.saliency, rtol=0, atol=tolerance)
    torch.testing.assert_close(one.curve, other.curve, rtol=0, atol=tolerance)


def test_every_parameter_but_switches_and_layers_is_checked(method):
    cls = misure.EXPLAINERS[method]
    hints = get_type_hints(cls)
    checked = [name for name in cls.parameter_names() if hints[name] not in {bool, str | None}]
    assert {"blanking", "blur_sigma", "seed", "thresholds"} <= set(checked)
    for name in checked:
        with pytest.raises(misure.MisureError, match=f"{'lambda' if name == 'lam' else name}=nonsense is not"):
            cls(**{name: "nonsense"})


@EVERYWHERE
def test_maps_are_finite_have_the_image_s_size_and_stay_in_range(case, method):
    before = snapshot(case.module)
    explanations = explain(case, method)
    assert snapshot(case.module) == before
    for explanation in explanations:
        saliency = explanation.saliency
        assert saliency.shape == case.images.shape[2:]
        assert saliency.dtype == case.images.dtype
        assert saliency.isfinite().all()
        assert saliency.min() >= LOWEST.get(method, 0)
        assert saliency.max() <= HIGHEST.get(method, 1)
        assert len(explanation.evaluations) == max(1, len(explanation.parameters["thresholds"]))
        for evaluation in explanation.evaluations:
            assert 0 <= evaluation.dice_explained <= 1
            assert 0 <= evaluation.binary_dice_explained <= 1
            assert 0 <= evaluation.region_ratio <= evaluation.perturbation_ratio
        if explanation.sufficient_region is not None:
            assert explanation.sufficient_region[explanation.target.region].all()


def test_without_thresholds_the_map_itself_is_the_mask_and_scaled_only_where_it_is_none(method, monkeypatch):
    seen, evaluate = [], misure.explainers.base.evaluate
    monkeypatch.setattr(
        "misure.explainers.base.evaluate",
        lambda *args, **options: [seen.append(args[3]), evaluate(*args, **options)][1],
    )
    explanations = explain(make_case("tensor", 3, SIZES[0]), method, thresholds=())
    for mask, explanation in zip(seen[0], explanations, strict=True):
        if method in (*UNBOUNDED, "rise", "occlusion"):
            assert (mask.min(), mask.max()) == (0, 1)
        else:
            assert torch.equal(mask, explanation.saliency)


@EVERYWHERE
def test_neither_repeating_nor_batches_nor_memory_layouts_change_a_map(case, method, kind):
    """Convolutions may take sums in another order, so float64 rounding is allowed where there are any."""
    whole = explain(case, method, batch_size=64)
    torch.manual_seed(99)
    for one, other in zip(explain(case, method, batch_size=64), whole, strict=True):
        assert_same(one, other)
    for size in (2, 5):
        for one, other in zip(explain(case, method, batch_size=size), whole, strict=True):
            assert_same(one, other, exactly=kind == "shifts")
    for image, explanation in zip(case.images, whole, strict=True):
        assert_same(explain(case, method, image, batch_size=1), explanation, exactly=kind == "shifts")
    explainer, targets = make_explainer(method, **PARAMETERS[method]), [e.target for e in whole]
    for images in (case.images, case.images.contiguous(memory_format=torch.channels_last)):
        turned = explainer.explain(case.model, images, targets, Compute("32", channels_last=True))
        for one, other in zip(turned, whole, strict=True):
            torch.testing.assert_close(one.saliency, other.saliency, rtol=0, atol=1e-9)


def test_statistics_of_the_batch_are_those_of_one_image(method):
    """Batch normalisation without statistics of its own takes the batch's, also in evaluation mode."""
    case = make_case("tensor", 1, SIZES[0])
    case.module.features[1] = torch.nn.BatchNorm2d(6, track_running_stats=False, dtype=torch.float64)
    for image, explanation in zip(case.images, explain(case, method, batch_size=8), strict=True):
        assert_same(explain(case, method, image, batch_size=2), explanation)


def test_layers_of_a_plain_callable():
    case = make_case("callable", 1, SIZES[0])
    within, direct = (
        explain(case, "seg_grad_cam", layer="bottleneck"),
        explain(make_case("tensor", 1, SIZES[0]), "seg_grad_cam"),
    )
    for one, other in zip(within, direct, strict=True):
        assert_same(one, other)
    case.model = misure.SegmentationModel(lambda images: torch.cat([-images, images, images], 1))
    with pytest.raises(misure.MisureError, match=r"plain callable, not an nn\.Module, so it has no layers"):
        explain(case, "seg_grad_cam")


def test_the_network_comes_back_after_a_failure_inside_it(method):
    case = make_case("tensor", 1, SIZES[0])
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == N_IMAGES + 1:  # the first after the reference predictions
            raise ArithmeticError("the network broke")

    handle = case.module.bottleneck.register_forward_pre_hook(fail)
    before = snapshot(case.module)
    with pytest.raises(misure.MisureError, match=rf"fails in {method} \(ArithmeticError: the network broke\)"):
        explain(case, method, batch_size=1)
    assert snapshot(case.module) == before
    handle.remove()


def test_running_out_of_memory_changes_nothing_but_the_batch(method):
    case = make_case("tensor", 1, SIZES[0])
    expected = explain(case, method, batch_size=64)

    def crowd(_module, inputs):
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = case.module.bottleneck.register_forward_pre_hook(crowd)
    with pytest.warns(RuntimeWarning, match="out of memory: going on with batches of"):
        explanations = explain(case, method, batch_size=3)
    handle.remove()
    for one, other in zip(explanations, expected, strict=True):
        assert_same(one, other, exactly=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_type_is_explained_as_in_float32(method, dtype, tmp_path):
    """By the float32 network's targets: pixels on the border of classes are predicted otherwise with fewer digits."""
    full, case = make_case("tensor", 1, SIZES[0]), make_case("tensor", 1, SIZES[0])
    full.module.float()
    case.module.to(dtype)
    expected = explain(full, method, case.images.float())
    explainer, targets = make_explainer(method, **PARAMETERS[method]), [e.target for e in expected]
    for one, other in zip(explainer.explain(case.model, case.images.to(dtype), targets), expected, strict=True):
        assert one.saliency.dtype == one.image.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert one.saliency.isfinite().all()
        if method in {"msr", "msr_fast", "extremal_perturbation"}:
            assert abs(one.dice_explained - other.dice_explained) < 0.1
        elif method in CAPTUM:
            both = torch.stack([one.saliency.flatten().double(), other.saliency.flatten().double()])
            assert both.corrcoef()[0, 1] > 0.95
        else:
            scale = float(other.saliency.max())
            torch.testing.assert_close(one.saliency.float() / scale, other.saliency / scale, rtol=0, atol=0.1)
    one.save(tmp_path / "saved")
    assert np.array_equal(np.load(tmp_path / "saved" / "saliency.npy"), one.saliency.numpy())


def test_an_explanation_keeps_its_own_numbers_alone(method):
    """Neither the batch nor a graph stays alive behind one image's share."""
    for explanation in explain(make_case("tensor", 3, SIZES[0]), method):
        tensors = [*vars(explanation).values(), *vars(explanation.target).values()]
        for tensor in (t for t in tensors if isinstance(t, Tensor)):
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
            assert tensor.grad_fn is None


def test_bfloat16_gives_nearly_the_same_map(method):
    """Sixteen bits keep about two decimal places; stage 2 is compared by its metrics alone."""
    case = make_case("tensor", 1, SIZES[0])
    case.module.float()
    images = case.images.float()
    explanations = explain(case, method, images)
    explainer, targets = make_explainer(method, **PARAMETERS[method]), [e.target for e in explanations]
    for low, full in zip(explainer.explain(case.model, images, targets, Compute("bf16")), explanations, strict=True):
        assert (low.precision, full.precision) == ("bf16", "32")
        if method in {"msr", "msr_fast", "extremal_perturbation"}:
            assert abs(low.dice_explained - full.dice_explained) < 0.1
        elif method in CAPTUM:  # the few pixels whose ReLU was rounded to its other side get another gradient
            assert torch.stack([low.saliency.flatten(), full.saliency.flatten()]).corrcoef()[0, 1] > 0.98
        else:
            scale = full.saliency.max()
            torch.testing.assert_close(low.saliency / scale, full.saliency / scale, rtol=0, atol=0.05)
