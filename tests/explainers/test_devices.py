"""Explanations with unusual options, and what training computes, give on a GPU in float32 what they give on the CPU.

Without a GPU a pretended one (:mod:`pretended_cuda`) takes its place and refuses to mix devices; with one, both run.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from oracles.toys import Convolutional, UNet3D
from pretended_cuda import CUDA, PretendedTensor, pretended_cuda
from torch import Tensor, nn

import misure
from misure import regions
from misure.models.compute import tf32
from misure.models.wrapper import SegmentationModel
from misure.target import Target, TargetBatch
from misure.training.config import LOSSES, OPTIMISERS, Recipe
from misure.training.task import image_dice

HALF = torch.arange(17).expand(13, 17) < 9
"""A region on the CPU, as a user's own drawing may be."""


@pytest.fixture(params=["pretended", pytest.param("cuda", marks=pytest.mark.cuda)])
def _gpu(request):
    with pretended_cuda() if request.param == "pretended" else nullcontext(), tf32(allowed=False):
        yield


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype("float32"))


def convolutional(output: str = "tensor", **options: Any) -> SegmentationModel:
    network = Convolutional(2, 3, output=output, seed=3).eval()
    return SegmentationModel(network, bottleneck="bottleneck", mean=(0.3, 0.6), std=(0.5, 0.7), **options)


def half(dtype: torch.dtype) -> SegmentationModel:
    model = convolutional()
    return SegmentationModel(model.network.to(dtype), bottleneck="bottleneck")


def volumetric() -> SegmentationModel:
    return SegmentationModel(UNet3D(2, seed=2).eval(), bottleneck="bottleneck")


def is_real() -> bool:
    return not isinstance(torch.zeros(1, device=CUDA), PretendedTensor)


def assert_close(made: Tensor, reference: Tensor) -> None:
    """Pretending changes no bit; a GPU adds in another order, which moves maps by up to 3e-6 of their scale.

    Where that moves a pixel's predicted class, one of some dozen Dice scores changes by about a hundredth.
    """
    scale = float(reference.double().abs().max()) or 1.0
    torch.testing.assert_close(made.cpu(), reference.cpu(), rtol=0, atol=1e-3 * scale if is_real() else 0)


RISE = {"n_masks": 12, "grid": 3}
MASK = {"n_iterations": 3, "grid": 4}
VARIANT = {"dice_target": "soft", "returned": "best", "initial_support": "positive_first_channel"}
MSR = {"n_iterations": 3, "mask_size": 6, "tv_weight": 1e-3}


@pytest.mark.parametrize(
    ("model", "method", "options"),
    [
        (convolutional, "rise", {**RISE, "antithetic": True, "stratified": True, "region": HALF}),
        (convolutional, "rise", {**RISE, "style": "bilinear", "blanking": "blur", "blur_sigma": 2, "tolerance": 0.1}),
        (convolutional, "msr", {**MSR, **VARIANT, "blanking": "black"}),
        (convolutional, "msr", {**MSR, "target": 0, "border": 2}),
        (convolutional, "occlusion", {"window": 6, "stride": 5, "blanking": "mean"}),
        (convolutional, "meaningful_perturbation", {**MASK, "blur_sigma": 2}),
        (convolutional, "grid_saliency", {**MASK, "context": True}),
        (convolutional, "extremal_perturbation", {"n_iterations": 3, "mask_size": 6, "area_of": "object"}),
        (convolutional, "hires_cam", {"pool": 3, "pool_mode": "mean"}),
        (convolutional, "sufficient_region", {"at": (3, 4), "target": None}),
        (convolutional, "prediction", {"target": "all", "border": 1}),
        (lambda: convolutional("quarter"), "score_cam", {"score": "logit"}),
        (lambda: convolutional("sigmoid", multi_label=True), "msr", {**MSR, "target": 0}),
        (lambda: half(torch.bfloat16), "msr", MSR),
        (lambda: half(torch.float16), "integrated_gradients", {"n_steps": 3}),
        (lambda: half(torch.float16), "extremal_perturbation", {"n_iterations": 3, "mask_size": 6}),
        (volumetric, "rise", RISE),
        (volumetric, "msr", MSR),
        (volumetric, "sufficient_region", {"at": (0, 0, 0), "target": None, "border": 1}),
        (volumetric, "occlusion", {"window": 3, "stride": 2}),
        (volumetric, "ablation_cam", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.usefixtures("_gpu")
def test_an_explanation_is_that_of_the_cpu(model, method, options):
    image = random(2, 4, 9, 8) if model is volumetric else random(2, 13, 17)
    options = {"target": 1, "precision": "32", "batch_size": 3, **options}
    explained = []
    for place in ("cpu", CUDA):
        one_or_all = misure.explain(model().to(place), image.to(place), method=method, **options)
        explained.append(one_or_all if isinstance(one_or_all, list) else [one_or_all])
    for reference, made in zip(*explained, strict=True):
        assert made.saliency.dtype == torch.float32
        if not (is_real() and method == "extremal_perturbation"):  # rounding moves where a sorted list is cut
            assert_close(made.saliency, reference.saliency)
            assert_close(torch.tensor(made.curve or (0,)), torch.tensor(reference.curve or (0,)))
        assert made.n_dilations == reference.n_dilations
        for one, other in zip(made.evaluations, reference.evaluations, strict=True):
            assert one.dice_explained == pytest.approx(other.dice_explained, abs=0.1 if is_real() else 0)


@pytest.mark.usefixtures("_gpu")
def test_targets_and_regions_stay_on_the_device():
    logits = random(3, 13, 17)
    target, on_cpu = Target.from_logits(logits.to(CUDA), 1, HALF), Target.from_logits(logits, 1, HALF)
    made = TargetBatch.stack([target])[torch.tensor([0, 0], device=CUDA)]
    reference = TargetBatch.stack([on_cpu, on_cpu])
    for name, tensor in vars(reference).items():
        if isinstance(tensor, Tensor):
            assert vars(made)[name].is_cuda
            assert_close(vars(made)[name], tensor)
    assert TargetBatch.stack([on_cpu], CUDA).regions.is_cuda
    for whole in (regions.component_at(target.region | True, (3, 4)), regions.border_of(target.region, 2)):
        assert whole.is_cuda


def trained(recipe: Recipe, images: Tensor, labels: Tensor) -> list[Tensor]:
    network = nn.Conv2d(2, 3, 1).to(images.device)
    nn.init.constant_(network.weight, 0.1)
    nn.init.zeros_(network.bias)
    optimiser = recipe.make_optimiser(network.parameters())
    for _ in range(2):
        optimiser.zero_grad()
        loss = recipe.loss_of(network(images), labels)
        loss.backward()
        optimiser.step()
    return [loss.detach(), *(parameter.detach() for parameter in network.parameters())]


@pytest.mark.parametrize(
    "recipe",
    [*(Recipe(loss=name) for name in LOSSES), *(Recipe(optimiser=name, lr=0.1) for name in OPTIMISERS)],
    ids=str,
)
@pytest.mark.usefixtures("_gpu")
def test_losses_and_optimisers_are_those_of_the_cpu(recipe):
    images, labels = random(2, 2, 13, 17), random(2, 3, 13, 17, seed=1).argmax(1)
    made = trained(recipe, images.to(CUDA), labels.to(CUDA))
    for tensor, reference in zip(made, trained(recipe, images, labels), strict=True):
        assert tensor.is_cuda
        assert tensor.dtype == torch.float32
        assert_close(tensor, reference)
    dice = image_dice(labels.to(CUDA), labels.flip(1).to(CUDA), 3)
    assert dice.is_cuda
    assert_close(dice, image_dice(labels, labels.flip(1), 3))
