"""RISE: masks by number alone, and maps that equal a loop over them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import metrics
from oracles.rise import rise, rise_mask
from oracles.toys import Convolutional, Trigger, as_numpy_predict

import misure
from misure.explainers import RISE

PLAIN = {"antithetic": False, "control_variate": None}
"""The paper's sum."""

SIZES = [(14, 21), (13, 17), (9, 30), (5, 6), (97, 130), (5, 7, 10)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("style", ["hard", "bilinear"])
def test_masks_equal_the_stretched_and_cropped_grid(style, shift, size):
    explainer = RISE(style=style, shift=shift, grid=4, seed=11, antithetic=False)
    masks = explainer.masks(torch.arange(6), torch.Size(size)).numpy()
    for number, mask in enumerate(masks):
        expected = rise_mask(number, size, seed=11, grid=4, keep=0.54, style=style, shift=shift)
        np.testing.assert_allclose(mask, expected, rtol=0, atol=0 if style == "hard" else 1e-6)  # float32 rounding


def test_a_network_that_looks_at_one_cell(block):
    """The score of a mask is one exactly where it keeps that cell: the map is the mean of those masks."""
    explainer = RISE(n_masks=300, grid=4, shift=False, **PLAIN)
    network = Trigger(block, (12, 20))
    explanation = misure.explain(network, torch.ones(1, 17, 23, dtype=torch.float64), target=1, method=explainer)
    masks = explainer.masks(torch.arange(300), torch.Size((17, 23))).double()
    kept = masks[masks[:, 12, 20] == 1]
    torch.testing.assert_close(
        explanation.saliency, kept.sum(0) / (300 * 0.54), rtol=0, atol=1e-12
    )  # the order of a sum
    cell = (masks == masks[:, 12:13, 20:21]).all(0)
    assert torch.equal(explanation.saliency == explanation.saliency.max(), cell)
    assert 0 < cell.sum() <= 7 * 8


@pytest.mark.parametrize("blanking", ["zero", "mean", "blur"])
@pytest.mark.parametrize("style", ["hard", "bilinear"])
def test_maps_equal_a_loop_over_masks(style, blanking, make_images):
    toy, images = Convolutional(2, seed=4).double().eval(), make_images(2, 2, 13, 18)
    settings = {"seed": 5, "grid": 3, "style": style, "shift": True}
    half = torch.arange(18).expand(13, 18) < 11
    options = {"n_masks": 40, "keep_probability": 0.6, "blanking": blanking, "blur_sigma": 1.5, **settings, **PLAIN}
    explanations = misure.explain(toy, images, 1, "rise", region=half, **options)
    predict = as_numpy_predict(toy)
    for image, explanation in zip(images.numpy(), explanations, strict=True):
        fill = metrics.baseline(blanking, image, (0, 0), (1, 1), 1.5)
        region = (predict(image) == 1) & half.numpy()
        expected = rise(predict, image, 1, region=region, fill=fill, n_masks=40, keep=0.6, **settings)
        tolerance = 1e-12 if style == "hard" else 1e-6  # masks are float32: exact for zeros and ones only
        np.testing.assert_allclose(explanation.saliency.numpy(), expected, rtol=0, atol=tolerance)


def test_a_keep_probability_of_one_keeps_everything(make_images):
    explanation = misure.explain(
        Convolutional(seed=4).double(), make_images(1, 1, 9, 9)[0], 1, "rise", n_masks=3, keep_probability=1
    )
    assert torch.equal(explanation.saliency, torch.ones(9, 9, dtype=torch.float64))
