"""RISE's antithetic and stratified masks, its stopping rule, and volumes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.toys import Convolutional, PerPixel, UNet3D, random_images

import misure
from misure.explainers import RISE
from misure.explainers.random_masks import BLOCK
from misure.explainers.rise import CHECKED_EVERY
from misure.metrics import dice

PLAIN = {"antithetic": False, "control_variate": None}
SIZE = torch.Size((8, 11))
VARIANTS = [{"antithetic": a, "stratified": s} for a in (False, True) for s in (False, True)]
variants, styles = st.sampled_from(VARIANTS), st.sampled_from(["hard", "bilinear"])
probabilities = st.sampled_from([0.1, 0.3, 0.5, 0.54, 0.9])


@given(variants, styles, st.lists(st.integers(0, 5000), min_size=1, max_size=6), st.integers(0, 3))
def test_a_mask_depends_on_seed_and_number_alone(variant, style, chosen, seed):
    explainer = RISE(seed=seed, grid=3, style=style, **variant)
    together = explainer.masks(torch.tensor(chosen), SIZE)
    for number, mask in zip(chosen, together, strict=True):
        assert torch.equal(mask, explainer.masks(torch.tensor([number]), SIZE)[0])


@given(st.booleans(), styles, st.integers(0, 2000), st.integers(0, 9))
def test_antithetic_pairs_of_half_kept_cells_are_complements(stratified, style, pair, seed):
    explainer = RISE(antithetic=True, stratified=stratified, keep_probability=0.5, seed=seed, style=style, grid=4)
    masks = explainer.masks(torch.tensor([2 * pair, 2 * pair + 1]), SIZE)
    torch.testing.assert_close(masks.sum(0), torch.ones(SIZE), rtol=0, atol=1e-6)  # float32 weights


@given(probabilities, st.integers(0, 2000), st.integers(0, 9))
def test_antithetic_pairs_overlap_only_where_both_must_keep(keep, pair, seed):
    """Beyond one half no cell is dropped by both; up to one half none is kept by both."""
    first, second = RISE(antithetic=True, keep_probability=keep, seed=seed).draws(
        torch.tensor([2 * pair, 2 * pair + 1]), 2
    )
    assert torch.equal(second, 1 - first)
    both = (first < keep).int() + (second < keep).int()
    assert both.min() >= 1 if keep > 0.5 else both.max() <= 1


@given(probabilities, st.booleans(), st.integers(0, 30), st.integers(0, 9))
def test_a_stratified_block_keeps_every_cell_in_exactly_its_share(keep, antithetic, block, seed):
    explainer = RISE(stratified=True, antithetic=antithetic, keep_probability=keep, seed=seed, grid=3)
    length = BLOCK * (2 if antithetic else 1)
    draws = explainer.draws(torch.arange(block * length, (block + 1) * length), 3)
    assert torch.equal((draws < keep).sum(0), torch.full((3, 3, 3), round(keep * length)))


def test_a_share_that_does_not_divide_is_right_on_average():
    """0.33 of 50 is 16.5: every block keeps 16 or 17, each with probability one half."""
    draws = RISE(stratified=True, antithetic=False, keep_probability=0.33).draws(torch.arange(40 * BLOCK), 2)
    kept = (draws.view(40, BLOCK, -1) < 0.33).sum(1)
    assert set(kept.unique().tolist()) == {16, 17}
    assert abs(kept.double().mean() - 16.5) < 5 * 0.5 / kept.numel() ** 0.5  # five standard errors of a coin


def test_stratified_orders_differ_between_cells_blocks_and_seeds():
    strata = [
        (RISE(stratified=True, antithetic=False, seed=s).draws(torch.arange(100), 2) * BLOCK).long() for s in (0, 1)
    ]
    orders = [*strata[0].view(2, BLOCK, -1).permute(0, 2, 1).flatten(0, 1), *strata[1][:BLOCK].flatten(1).T]
    assert all(sorted(order.tolist()) == list(range(BLOCK)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == len(orders)


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.54])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_unbiased(variant, keep):
    """The mean over seeds equals the sum over all 16 masks of 2 x 2 cells, for a score that is not linear."""
    expected = torch.zeros(2, 2, dtype=torch.float64)
    for kept in itertools.product([0.0, 1.0], repeat=4):
        cells = torch.tensor(kept, dtype=torch.float64).view(2, 2)
        chance = keep ** cells.sum() * (1 - keep) ** (4 - cells.sum())
        expected += chance * _score(cells[None]) * cells / keep
    size = torch.Size((2, 2))
    maps = []
    for seed in range(150):
        explainer = RISE(grid=2, shift=False, keep_probability=keep, seed=seed, **variant)
        cells = (explainer.draws(torch.arange(30), 2) < keep).double()
        maps.append((_score(cells)[:, None, None] * cells).mean(0) / keep)
    maps = torch.stack(maps).view(150, *size)
    error = maps.std(0) / 150**0.5
    assert ((maps.mean(0) - expected).abs() < 4.5 * error + 1e-12).all()  # 4.5 standard errors, 12 x 4 values


def _score(cells):
    """One if the upper left is kept; half for the lower two together."""
    return (cells[:, 0, 0] + cells[:, 1, 0] * cells[:, 1, 1] / 2) / 1.5


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(9, 12), (5, 6, 7)], ids=["image", "volume"])
def test_maps_are_the_weighted_sum_of_the_variant_s_masks(variant, size):
    toy = (Convolutional(2, seed=4) if len(size) == 2 else UNet3D(2, seed=2)).double().eval()
    images, explainer = random_images(2, 2, *size), RISE(n_masks=31, grid=3, control_variate=None, **variant)
    masks = explainer.masks(torch.arange(31), torch.Size(size)).double()
    for image, explanation in zip(
        images, misure.explain(toy, images, 1, explainer, precision="32", batch_size=7), strict=True
    ):
        with torch.no_grad():
            hits = toy(image * masks[:, None]).argmax(1) == 1
        scores = dice(hits, explanation.target.region.expand_as(hits))
        expected = torch.tensordot(scores, masks, 1) / (31 * 0.54)
        torch.testing.assert_close(explanation.saliency, expected, rtol=0, atol=1e-12)  # the order of a sum


def expected_stop(explainer: RISE, network, image) -> int:
    """How many masks the rule takes, from the whole list of weighted masks."""
    masks = explainer.masks(torch.arange(explainer.n_masks), image.shape[1:]).double()
    region = network(image[None]).argmax(1) == 1
    with torch.no_grad():
        hits = network(image[None] * masks[:, None]).argmax(1) == 1
    weighted = (dice(hits, region.expand_as(hits))[:, None, None] * masks / explainer.keep_probability).numpy()
    for n in range(2 * CHECKED_EVERY, explainer.n_masks, CHECKED_EVERY):
        means = weighted[:n].reshape(-1, CHECKED_EVERY, *region.shape[1:]).mean(axis=1)
        error = np.sqrt((means.var(axis=0, ddof=1) / len(means)).mean())
        mean = weighted[:n].mean(axis=0)
        if error <= explainer.tolerance * (mean.max() - mean.min()):
            return n
    return explainer.n_masks


def test_each_image_stops_by_itself_at_the_standard_error():
    """The map is the plain one of as many masks, and neither batch mates nor the batch size matter."""
    toy, images = PerPixel(), torch.zeros(3, 1, 9, 12, dtype=torch.float64)
    for image, rows, columns in zip(images, (2, 4, 9), (3, 6, 7), strict=True):
        image[0, :rows, :columns] = 1
    explainer = RISE(n_masks=1200, grid=3, tolerance=0.07, **PLAIN)
    stops = [expected_stop(explainer, toy, image) for image in images]
    assert len(set(stops)) > 1
    assert min(stops) < 1200
    together = misure.explain(toy, images, 1, explainer, precision="32", batch_size=37)
    for image, stop, explanation in zip(images, stops, together, strict=True):
        alone = misure.explain(toy, image, 1, explainer, precision="32", batch_size=64)
        plain = misure.explain(toy, image, 1, "rise", n_masks=stop, grid=3, precision="32", **PLAIN)
        assert torch.equal(explanation.saliency, alone.saliency)
        assert torch.equal(explanation.saliency, plain.saliency)


def test_a_map_without_noise_stops_at_the_first_look(make_images):
    seen = []

    def network(images):
        seen.append(len(images))
        return torch.stack([torch.zeros_like(images[:, 0]), images[:, 0]], 1)

    options = {"keep_probability": 1, "tolerance": 0.0, "batch_size": 50, "precision": "32"}
    misure.explain(network, make_images(1, 1, 5, 5)[0], 1, "rise", n_masks=1000, **options)
    assert 200 <= sum(seen) < 210  # two hundred masks, the prediction and the metrics


def test_a_tolerance_that_is_never_met_takes_all_masks(make_images):
    toy, (image,) = Convolutional(1, seed=4).double().eval(), make_images(1, 1, 9, 9)
    options = {"n_masks": 250, "grid": 3, "precision": "32"}
    plain, stubborn = (misure.explain(toy, image, 1, "rise", tolerance=t, **options) for t in (None, 0.0))
    torch.testing.assert_close(stubborn.saliency, plain.saliency, rtol=0, atol=1e-12)  # other batches of the network
