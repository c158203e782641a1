"""Baselines: the prediction itself and a random map."""

from __future__ import annotations

import numpy as np
import torch
from oracles.metrics import binarise, dice, perturbation_ratio
from oracles.randomness import uniform
from oracles.toys import Convolutional, PerPixel, as_numpy_predict

import misure
from misure.explainers import PredictionMap
from misure.models.compute import Compute


def test_the_prediction_is_a_map_of_ratio_one(make_images):
    for explanation in misure.explain(Convolutional(seed=8).double(), make_images(2, 1, 9, 14), 1, "prediction"):
        assert torch.equal(explanation.saliency, explanation.target.region.double())
        assert explanation.perturbation_ratio == 1


def test_the_prediction_explains_a_network_of_single_pixels(make_images):
    explanation = misure.explain(PerPixel(0.2), make_images(1, 1, 9, 14)[0], method="prediction")
    assert explanation.dice_explained == 1


def test_a_map_is_cut_above_its_threshold_not_at_it(make_images):
    explanation = misure.explain(PerPixel(0.2), make_images(1, 1, 9, 14)[0], method="prediction", thresholds=(0, 1))
    assert [e.perturbation_ratio for e in explanation.evaluations] == [1, 0]


def test_half_precision_images_do_not_decide_for_the_next_of_a_network_without_parameters(make_images):
    """Of ready targets, so that misure.explain does not come between."""
    images, seen = make_images(1, 1, 9, 14).half(), []

    def network(x):
        seen.append(x.dtype)
        return torch.cat([-x, x], 1)

    model, target = misure.SegmentationModel(network), misure.explain(PerPixel(0), images[0].float(), 1).target
    found = {}
    for dtype in (torch.float16, torch.float32, torch.bfloat16, torch.float64):
        seen.clear()
        (explanation,) = PredictionMap().explain(model, images.to(dtype), [target], Compute("32"))
        found[dtype] = (explanation.precision, {*seen}, explanation.image.dtype)
    assert found == {
        torch.float16: ("fp16", {torch.float16}, torch.float32),
        torch.float32: ("32", {torch.float32}, torch.float32),
        torch.bfloat16: ("bf16", {torch.bfloat16}, torch.float32),
        torch.float64: ("32", {torch.float64}, torch.float64),
    }


def test_the_random_map_is_keyed_by_seed_and_pixel(make_images):
    images = make_images(2, 1, 6, 7)
    explanations = misure.explain(PerPixel(0.2), images, method="random_map", seed=3)
    expected = np.array([[uniform(3, 7 * y + x) for x in range(7)] for y in range(6)])
    predict = as_numpy_predict(PerPixel(0.2))
    for image, explanation in zip(images.numpy(), explanations, strict=True):
        assert np.array_equal(explanation.saliency.numpy(), expected)
        for evaluation, threshold in zip(explanation.evaluations, (0.2, 0.4), strict=True):
            binary = binarise(expected, threshold)
            assert evaluation.dice_explained == dice(predict(image * binary) == 1, predict(image) == 1)
            assert evaluation.perturbation_ratio == perturbation_ratio(binary, predict(image) == 1)
