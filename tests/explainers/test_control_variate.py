"""RISE's control variates: the plain sum's expectation, with less noise."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.rise import regression_map
from torch import Tensor

from misure.config import build
from misure.explainers import RISE
from misure.explainers.control_variate import linear_part
from misure.explainers.random_masks import _blended

SIZE = torch.Size((6, 5))
KEEP = 0.4


def every_mask(explainer: RISE) -> tuple[Tensor, Tensor, Tensor]:
    """All masks of 3 x 3 cells at all shifts, with their features and chances."""
    cells = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9)), dtype=torch.float64).view(-1, 3, 3)
    chances = KEEP ** cells.sum((1, 2)) * (1 - KEEP) ** (9 - cells.sum((1, 2)))
    masks = []
    for offsets in itertools.product(range(2 if explainer.shift else 1), repeat=2):
        weights = [explainer._weights(torch.tensor([o]), n).double() for o, n in zip(offsets, SIZE, strict=True)]
        masks.append(_blended(cells, weights))
    together = torch.cat(masks)
    pools = explainer._pools(SIZE, cells)
    features = torch.einsum("bh,khw,cw->kbc", pools[0], together, pools[1]).flatten(1)
    return together, features, chances.repeat(len(masks)) / len(masks)


@pytest.mark.parametrize("style", ["hard", "bilinear"])
@pytest.mark.parametrize("shift", [False, True])
def test_any_slopes_leave_the_expectation_of_the_plain_sum(style, shift):
    """Over all masks, for a score that is not linear; float64 sums of 2048 terms are right to 1e-12."""
    explainer = RISE(grid=3, keep_probability=KEEP, style=style, shift=shift)
    masks, features, chances = every_mask(explainer)
    generator = torch.Generator().manual_seed(0)
    scores = masks.flatten(1)[:, 3] * masks.flatten(1)[:, 17] + 0.3 * masks.mean((1, 2)).square()
    plain = torch.einsum("k,khw->hw", chances * scores, masks) / KEEP
    for scale in (0.0, 1.0, 50.0):
        slopes = scale * torch.randn(1, features.shape[1], generator=generator, dtype=torch.float64)
        noisy = torch.einsum("k,khw->hw", chances * (scores - 7 - (features - KEEP) @ slopes[0]), masks - KEEP)
        made = (chances * scores).sum() + (explainer._explained(slopes, SIZE)[0] + noisy) / KEEP
        torch.testing.assert_close(made, plain, rtol=0, atol=1e-12 * max(1, scale))


VARIANTS = st.fixed_dictionaries(
    {
        "antithetic": st.booleans(),
        "stratified": st.booleans(),
        "shift": st.booleans(),
        "style": st.sampled_from(["hard", "bilinear"]),
        "keep_probability": st.sampled_from([0.2, 0.5, 0.54, 1]),
        "grid": st.integers(1, 4),
        "control_variate": st.sampled_from(["mean", "regression"]),
        "seed": st.integers(0, 3),
    }
)
SIZES = st.sampled_from([(7, 9), (3, 4, 5)])


@settings(max_examples=40)
@given(VARIANTS, SIZES, st.sampled_from([1, 2, 8, 31, 110]))
def test_constant_scores_give_a_constant_map_and_others_are_finite(variant, size, n_masks):
    explainer, size = RISE(**variant), torch.Size(size)
    constant = explainer.map_of(torch.full((1, n_masks), 0.3, dtype=torch.float64), size)
    assert torch.equal(constant, torch.full_like(constant, 0.3))
    scores = torch.rand(2, n_masks, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    maps = explainer.map_of(scores, size)
    assert maps.isfinite().all()
    assert torch.equal(maps[1], explainer.map_of(scores[1:], size)[0])  # whatever is in the batch


@settings(max_examples=15)
@given(VARIANTS.filter(lambda v: not v["stratified"] and v["keep_probability"] < 1), SIZES, st.sampled_from([9, 40]))
def test_maps_equal_refits_without_each_group(variant, size, n_masks):
    """Closed forms against loops; small penalties leave 1e-7 of the squares, so 1e-7 of float64's digits are left."""
    explainer, size = RISE(**{**variant, "control_variate": "regression", "style": "hard"}), torch.Size(size)
    numbers = torch.arange(n_masks)
    features, masks = explainer.features(numbers, size), explainer.masks(numbers, size).double().flatten(1)
    scores = (masks[:, :5].mean(1) * masks[:, 3] + masks.mean(1)) / 2
    identity = torch.eye(features.shape[1], dtype=torch.float64)
    covariance = explainer._explained(identity, size).flatten(1).T
    expected = regression_map(
        scores.numpy(), masks.numpy(), features.numpy(), covariance.numpy(),
        keep=explainer.keep_probability, group=2 if explainer.antithetic else 1,
    )  # fmt: skip
    made = explainer.map_of(scores[None], size)[0].flatten().numpy()
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("antithetic", "stratified"), list(itertools.product([False, True], repeat=2)))
def test_a_score_that_is_linear_in_the_mask_leaves_hardly_any_noise(antithetic, stratified):
    size, weight = torch.Size((12, 12)), torch.linspace(-1, 1, 144, dtype=torch.float64)
    limit, errors = None, {}
    for control_variate in ("regression", "mean"):
        explainer = RISE(grid=3, antithetic=antithetic, stratified=stratified, control_variate=control_variate)
        pooled = explainer.features(torch.arange(400), size)
        slopes = weight[: pooled.shape[1]][None]
        limit = 0.5 + explainer._explained(slopes, size)[0] / 0.54
        made = explainer.map_of(0.5 + ((pooled - 0.54) @ slopes.T).T, size)[0]
        moved = made - limit
        errors[control_variate] = float((moved - moved.mean()).norm() / (limit - limit.mean()).norm())
    assert errors["regression"] < 1e-3
    assert errors["regression"] < errors["mean"] / 20


def test_too_few_masks_fall_back_to_the_mean():
    scores = torch.tensor([[0.1, 0.5, 0.9]], dtype=torch.float64)
    part = linear_part(scores, torch.rand(3, 4, dtype=torch.float64), 100)
    torch.testing.assert_close(part.residuals, scores - 0.5)
    assert not part.slopes.any()


def test_tolerance_looks_at_the_corrected_map():
    """A nearly linear score: the corrected map settles at the first look, the plain one does not."""
    taken = {}
    for control_variate in ("regression", "mean", None):
        explainer = RISE(grid=3, n_masks=1000, tolerance=0.03, antithetic=False, control_variate=control_variate)
        pooled = explainer.features(torch.arange(1000), SIZE)
        scores = 0.5 + 0.1 * ((pooled - 0.54) @ torch.linspace(-1, 1, pooled.shape[1], dtype=torch.float64))
        masks, taken[control_variate] = explainer.masks(torch.arange(1000), SIZE).double(), 1000
        for n in range(200, 1000, 100):
            parts = (scores[:n, None, None] * masks[:n]).view(-1, 100, *SIZE).sum(1)
            if explainer._is_settled(parts.sum(0)[None], parts.square().sum(0)[None], scores[None, :n], n, SIZE):
                taken[control_variate] = n
                break
    assert taken["regression"] == 200
    assert taken["regression"] < taken["mean"] < taken[None]


def test_the_tables_keep_the_plain_sum_and_ones_own_network_gets_the_defaults():
    with initialize_config_dir(str(Path("configs").resolve()), version_base=None):
        paper = build(compose("run", ["explainer=rise", "profile=paper"]).explainer)
        own = build(compose("explain", ["explainer=rise", "image=x.png"]).explainer)
    assert (paper.n_masks, paper.antithetic, paper.stratified, paper.control_variate) == (2000, False, False, None)
    assert own == RISE()
