"""Every piece that handles tensors keeps them on the device that it was given: in float32, on the CPU and on a GPU.

Without a GPU a pretended one (:mod:`pretended_cuda`) takes its place and refuses to mix devices; with one, both run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import torch
from oracles.toys import Convolutional
from pretended_cuda import CUDA, PretendedTensor, pretended_cuda
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from misure import metrics, randomness, regions
from misure.explainers import activations, extremal_perturbation, mask_optimisation, sufficient_region
from misure.explainers import make_explainer as make
from misure.explainers.perturbation import mask_scores
from misure.metrics import Blanking
from misure.models import fusion
from misure.models.compute import Compute, tf32
from misure.models.logits import to_logits
from misure.models.wrapper import FrozenNetwork, SegmentationModel, frozen
from misure.sweep import interventions, predictions
from misure.target import Target, TargetBatch, make_all_targets, make_targets, predicted_classes
from misure.training import module
from misure.training.config import LOSSES, OPTIMISERS, Recipe, dice_loss, squared_dice_loss

CPU = torch.device("cpu")
N, C, L, H, W = 2, 2, 3, 13, 17
IMAGE, MAP, MAPS = (N, C, H, W), (H, W), (N, H, W)
F32, F64, INT, BOOL = torch.float32, torch.float64, torch.int64, torch.bool


@pytest.fixture(params=["cpu", "pretended", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    with pretended_cuda() if request.param == "pretended" else nullcontext(), tf32(allowed=False):
        yield CPU if request.param == "cpu" else CUDA


@dataclass(frozen=True)
class Scene:
    """What the pieces are given, on one device; the values are the same on all."""

    device: torch.device

    def tensor(self, *shape: int, seed: int = 0) -> Tensor:
        return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype("float32")).to(self.device)

    @cached_property
    def images(self) -> Tensor:
        return self.tensor(*IMAGE)

    @cached_property
    def model(self) -> SegmentationModel:
        network = Convolutional(C, L, seed=3).eval()
        model = SegmentationModel(network, bottleneck="bottleneck", mean=(0.3, 0.6), std=(0.5, 0.7))
        return model.to(self.device)

    @cached_property
    def logits(self) -> Tensor:
        return self.lent(lambda network: network(self.images))

    @cached_property
    def targets(self) -> list[Target]:
        half = torch.ones(H, W, dtype=torch.bool)  # on the CPU, as a user's own drawing may be
        half[:, W // 2 :] = False
        return [Target.from_logits(self.logits[0], 1, half), Target.from_logits(self.logits[1], 2)]

    @cached_property
    def batch(self) -> TargetBatch:
        return TargetBatch.stack(self.targets)

    @cached_property
    def masks(self) -> Tensor:
        return self.tensor(*MAPS, seed=1).sigmoid()

    @property
    def labels(self) -> Tensor:
        return self.logits.argmax(1)

    def lent(self, work: Callable[[FrozenNetwork], Any], precision: str = "32") -> Any:
        with frozen(self.model, Compute(precision, 3), self.device) as network:
            return work(network)

    def numbers(self, *values: int) -> Tensor:
        return torch.tensor(values, device=self.device)


def optimised(scene: Scene, problem: mask_optimisation.MaskProblem, network: FrozenNetwork) -> Any:
    mask, losses = mask_optimisation.descend(network, problem, mask_optimisation.Descent(lr=0.1, n_iterations=3))
    return mask, losses, problem.seen(mask, 3)


def pruned(scene: Scene, **parameters: Any) -> Any:
    explainer = make("msr", n_iterations=3, mask_size=6, tv_weight=1e-3, **parameters)

    def work(network: FrozenNetwork) -> Any:
        problem = explainer.problem(network, scene.images, scene.batch, scene.masks > 0.3)
        return mask_optimisation.minimise(network, scene.images, lambda _: problem, explainer.descent)

    return scene.lent(work)


def stepped(scene: Scene, name: str) -> Any:
    network = nn.Conv2d(C, L, 1).to(scene.device)
    nn.init.constant_(network.weight, 0.1)
    nn.init.zeros_(network.bias)
    optimiser = Recipe(optimiser=name, lr=0.1).make_optimiser(network.parameters())
    for _ in range(2):
        optimiser.zero_grad()
        Recipe().loss_of(network(scene.images), scene.labels).backward()
        optimiser.step()
    return network.weight.detach(), network.bias.detach()


def scored(scene: Scene, network: FrozenNetwork) -> Any:
    baseline = Blanking("blur", 2).baseline(network, scene.images)
    rise = make("rise", grid=3)
    done = mask_scores(
        network,
        scene.images,
        scene.batch,
        baseline=baseline,
        make_masks=lambda k: rise.masks(k, scene.images.shape[2:]),
        numbers=range(3, 6),
    )
    images, scores, masks = (torch.cat(parts) for parts in zip(*done, strict=True))
    return images, scores, masks


def folded_logits(scene: Scene, network: FrozenNetwork) -> Tensor:
    found = fusion.foldable_layers(network.model.module, lambda: network(scene.images[:1]))
    assert found
    with fusion.folded(found), torch.no_grad():
        return network(scene.images)


def evaluated(scene: Scene, network: FrozenNetwork, **options: Any) -> Tensor:
    rows = metrics.evaluate(network, scene.images, scene.batch, scene.masks, threshold=None, **options)
    return torch.tensor([[r.dice_explained, r.perturbation_ratio, r.region_ratio] for r in rows], device=scene.device)


def without(scene: Scene, network: FrozenNetwork) -> Tensor:
    return activations.without_channels(network, scene.tensor(N, 5, 4, 5), scene.numbers(0, 3), 4)


def on_own(scene: Scene, problem_of: str, **parameters: Any) -> Any:
    explainer = make(problem_of, n_iterations=3, grid=4, **parameters)
    return scene.lent(lambda n: optimised(scene, explainer.problem(n, scene.images, scene.batch), n))


def shares(scene: Scene) -> Tensor:
    return torch.full((N,), 0.4, dtype=F64, device=scene.device)


Case = tuple[Callable[[Scene], Any], list[tuple[torch.dtype, tuple[int, ...]]]]
MINIMISED = [(F32, (N, 4, 4)), (F32, (3, N)), (F32, MAPS)]
FIELDS = [(INT, (N,)), (BOOL, MAPS), (BOOL, MAPS), (BOOL, MAPS), (F32, (N, 2, H, W))]
TARGET = [(BOOL, MAP)] * 3 + [(F32, (2, H, W))]

CASES: dict[str, Case] = {
    # metrics
    "keep": (lambda s: metrics.keep(s.images, s.masks), [(F32, IMAGE)]),
    "keep, boolean": (lambda s: metrics.keep(s.images, s.masks > 0.5, s.images.flip(3)), [(F32, IMAGE)]),
    "dice": (lambda s: metrics.dice(s.masks > 0.4, s.masks > 0.6), [(F64, (N,))]),
    "perturbation_ratio": (lambda s: metrics.perturbation_ratio(s.masks, s.masks > 0.4), [(F64, (N,))]),
    "min_max": (lambda s: metrics.min_max(s.masks), [(F32, MAPS)]),
    "evaluate": (lambda s: s.lent(lambda n: evaluated(s, n)), [(F32, (N, 3))]),
    "evaluate, blanked": (
        lambda s: s.lent(lambda n: evaluated(s, n, support=s.masks > 0.3, blanking=Blanking("black"))),
        [(F32, (N, 3))],
    ),
    "baseline, mean": (lambda s: s.lent(lambda n: Blanking("mean").baseline(n, s.images)), [(F32, (N, C, 1, 1))]),
    "baseline, black": (lambda s: s.lent(lambda n: Blanking("black").baseline(n, s.images)), [(F32, (1, C, 1, 1))]),
    "baseline, blur": (lambda s: s.lent(lambda n: Blanking("blur", 2).baseline(n, s.images)), [(F32, IMAGE)]),
    # regions and targets
    "component_at": (lambda s: regions.component_at(s.labels[0] >= 0, (3, 4)), [(BOOL, MAP)]),
    "border_of": (lambda s: regions.border_of(s.labels[0] == s.labels[0, 3, 4], 2), [(BOOL, MAP)]),
    "Target": (lambda s: [vars(t) for t in s.targets], TARGET * N),
    "Target, multi-label": (
        lambda s: vars(Target.from_logits(s.logits[0], 1, at=(0, 0), border=1, multi_label=True)),
        TARGET,
    ),
    "TargetBatch.stack": (lambda s: vars(s.batch), FIELDS),
    "TargetBatch.stack, elsewhere": (lambda s: vars(TargetBatch.stack([t.cpu() for t in s.targets], s.device)), FIELDS),
    "TargetBatch[tensor]": (lambda s: vars(s.batch[s.numbers(1, 0)]), FIELDS),
    "are_background": (lambda s: s.batch.are_background, [(BOOL, (N,))]),
    "hits": (lambda s: s.batch.hits(s.logits), [(BOOL, MAPS)]),
    "scores": (lambda s: s.batch.scores(s.logits), [(F32, MAPS)]),
    "probabilities": (lambda s: s.batch.probabilities(s.logits, 2), [(F32, (N, 2, H, W))]),
    "make_targets": (lambda s: s.lent(lambda n: [vars(t) for t in make_targets(n, s.images, 1)]), TARGET * N),
    "make_all_targets": (
        lambda s: s.lent(lambda n: vars(make_all_targets(n, s.images, s.masks > 0.2, border=2)[1][0])),
        TARGET,
    ),
    "predicted_classes": (lambda s: s.numbers(*predicted_classes(s.logits[0])), [(INT, (3,))]),
    # random numbers and masks
    "uniform": (lambda s: randomness.uniform(5, s.numbers(1, 2)[:, None], s.numbers(3, 4, 5)), [(F64, (2, 3))]),
    "integers": (lambda s: randomness.integers(0, 9, 5, s.numbers(1, 2)), [(INT, (2,))]),
    "normal": (lambda s: randomness.normal(5, s.numbers(1, 2)), [(F64, (2,))]),
    "RISE.masks": (
        lambda s: make("rise", grid=3, style="bilinear").masks(s.numbers(4, 7), s.images.shape[2:]),
        [(F32, MAPS)],
    ),
    "RISE.masks, volume": (
        lambda s: make("rise", grid=3).masks(s.numbers(4), torch.Size((5, 6, 7))),
        [(F32, (1, 5, 6, 7))],
    ),
    "RISE.draws": (
        lambda s: make("rise", grid=3, antithetic=True, stratified=True).draws(s.numbers(4, 7), 2),
        [(F64, (2, 3, 3))],
    ),
    "Occlusion.windows": (lambda s: make("occlusion").windows(s.numbers(0, 1), s.images.shape[2:]), [(BOOL, MAPS)]),
    "mask_scores": (lambda s: s.lent(lambda n: scored(s, n)), [(INT, (6,)), (F64, (6,)), (F32, (6, H, W))]),
    # dilation and optimised masks
    "footprint": (lambda s: sufficient_region.footprint(2, s.device), [(BOOL, (7, 7))]),
    "dilate": (lambda s: sufficient_region.dilate(s.masks > 0.9), [(BOOL, MAPS)]),
    "dilate, volume": (lambda s: sufficient_region.dilate(s.masks[None] > 0.9), [(BOOL, (1, *MAPS))]),
    "MSR": (pruned, [(F32, MAPS), (F32, (3, N))]),
    "MSR, variant": (
        lambda s: pruned(s, dice_target="soft", returned="best", initial_support="positive_first_channel"),
        [(F32, MAPS), (F32, (3, N))],
    ),
    "resized": (lambda s: regions.resized(s.masks, (20, 30)), [(F32, (N, 20, 30))]),
    "GridSaliency": (lambda s: on_own(s, "grid_saliency", context=True), MINIMISED),
    "MeaningfulPerturbation": (lambda s: on_own(s, "meaningful_perturbation", blur_sigma=2), MINIMISED),
    "soft_dice": (
        lambda s: mask_optimisation.soft_dice(s.batch, s.logits, mask_optimisation.segmentation(s.batch)),
        [(F32, (N, 2))],
    ),
    "total_variation": (lambda s: mask_optimisation.total_variation(s.masks, 3.0), [(F32, (N,))]),
    "smooth_maximum": (lambda s: extremal_perturbation.smooth_maximum(s.masks, 1), [(F32, MAPS)]),
    "allowed_cells": (lambda s: extremal_perturbation.allowed_cells(shares(s), s.masks > 0.4), [(INT, (N,))]),
    "keep_largest": (lambda s: extremal_perturbation.keep_largest(s.masks, s.numbers(9, 4)), [(F32, MAPS)]),
    # layers
    "activations": (lambda s: s.lent(lambda n: activations.activations(n, s.images, None)), [(F32, (N, 5, 4, 5))]),
    "activations_and_gradients": (
        lambda s: s.lent(lambda n: activations.activations_and_gradients(n, s.images, s.batch, None)),
        [(F32, (N, 5, 4, 5))] * 2,
    ),
    "without_channels": (lambda s: s.lent(lambda n: without(s, n)), [(F32, (N, 5, 4, 5))]),
    "summed_scores": (lambda s: activations.summed_scores(s.logits, s.batch), [(F64, (N,))]),
    "SegGradCAM.weights": (lambda s: make("seg_grad_cam").weights(s.images), [(F32, (N, C, 1, 1))]),
    "HiResCAM.weights": (lambda s: make("hires_cam", pool=3).weights(s.images), [(F32, IMAGE)]),
    "folded": (lambda s: s.lent(lambda n: folded_logits(s, n)), [(F32, (N, L, H, W))]),
    # the model
    "to_logits": (lambda s: to_logits({"out": s.images[:, :1, ::2, ::2]}, s.images), [(F32, (N, 2, H, W))]),
    "predict": (lambda s: s.lent(lambda n: n.predict(s.images)), [(INT, MAPS)]),
    # training
    **{
        f"loss {name}": (lambda s, name=name: Recipe(loss=name).loss_of(s.logits, s.labels), [(F32, ())])
        for name in LOSSES
    },
    "dice_loss": (lambda s: dice_loss(s.logits, s.labels), [(F32, ())]),
    "squared_dice_loss": (lambda s: squared_dice_loss(s.logits, s.labels), [(F32, ())]),
    **{
        f"optimiser {name}": (lambda s, name=name: stepped(s, name), [(F32, (L, C, 1, 1)), (F32, (L,))])
        for name in OPTIMISERS
    },
    "image_dice": (lambda s: module.image_dice(s.labels, s.labels.flip(1), L), [(F64, (N,))]),
    # the sweep
    "class counts": (lambda s: predictions._class_counts(s.labels, s.labels.flip(1), L), [(INT, (N, 3, L))]),
    "randomised": (
        lambda s: interventions.randomised(s.model, s.images[:1], 0.5, 0)(s.images).detach(),
        [(F32, (N, L, H, W))],
    ),
    "sufficient_or_whole": (
        lambda s: s.lent(lambda n: interventions.sufficient_or_whole(make("sufficient_region"), n, s.images, s.batch)),
        [(BOOL, MAPS), (INT, (N,))],
    ),
}


def tensors(made: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]


def assert_close(made: Tensor, reference: Tensor) -> None:
    """Pretending changes no bit; a GPU adds in another order, up to some hundred float32 terms rounded to 6e-8 each."""
    other_sums = made.is_cuda and not isinstance(made, PretendedTensor)
    rtol, atol = (1e-4, 1e-5) if other_sums else (0, 0)
    torch.testing.assert_close(made.cpu(), reference, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", CASES)
def test_what_is_made_stays_on_the_device(name, device):
    make_it, expected = CASES[name]
    made = tensors(make_it(Scene(device)))
    assert [(t.dtype, tuple(t.shape)) for t in made] == expected
    assert {t.device.type for t in made} == {device.type}
    for tensor, reference in zip(made, tensors(make_it(Scene(CPU))), strict=True):
        assert_close(tensor, reference)
