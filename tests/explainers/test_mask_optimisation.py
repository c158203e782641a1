"""Meaningful perturbation and grid saliency equal hand-derived Adam; both find what a toy network looks at."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from oracles import metrics
from oracles.mask_optimisation import dice_slope, lost_slope, optimised_mask
from oracles.msr import softmax
from oracles.toys import Convolutional, PerPixel, Trigger, as_numpy_network, random_images

import misure
from misure.errors import MisureError
from misure.explainers.mask_optimisation import total_variation
from misure.explainers.meaningful_perturbation import MeaningfulPerturbation

METHODS = ["meaningful_perturbation", "grid_saliency"]


def assert_equal(explanation, expected: tuple[np.ndarray, list[float]]) -> None:
    """Adam divides rounding errors of 1e-16 by its own small gradients."""
    np.testing.assert_allclose(explanation.saliency.numpy(), expected[0], rtol=0, atol=1e-8)
    np.testing.assert_allclose(explanation.curve, expected[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("perturb_with", ["blur", "blanking"])
def test_meaningful_perturbation_equals_hand_derived_adam(perturb_with, make_images):
    toy, images = Convolutional(2, seed=4).double().eval(), make_images(2, 2, 9, 12)
    settings = {"grid": 4, "lam": 0.3, "lr": 0.07, "n_iterations": 12, "tv_weight": 0.02}
    options = settings | {"jitter": 0, "perturb_with": perturb_with, "blur_sigma": 1.5, "precision": "32"}
    network = as_numpy_network(toy)
    for image in images:
        explanation = misure.explain(toy, image, 1, "meaningful_perturbation", **options)
        kind = "blur" if perturb_with == "blur" else "zero"
        fill = metrics.baseline(kind, image.numpy(), (0, 0), (1, 1), 1.5)
        score = partial(dice_slope, class_id=1, region=explanation.target.region.numpy())
        assert_equal(explanation, optimised_mask(network, image.numpy(), fill, score, start=1.0, **settings))


@pytest.mark.parametrize("context", [False, True])
def test_grid_saliency_equals_hand_derived_adam(context, make_images):
    toy, images = Convolutional(2, seed=4).double().eval(), make_images(2, 2, 9, 12)
    settings = {"grid": 3, "lam": 0.3, "lr": 0.07, "n_iterations": 12, "start": 0.5}
    network = as_numpy_network(toy)
    for image in images:
        explanation = misure.explain(toy, image, 1, "grid_saliency", context=context, precision="32", **settings)
        region = explanation.target.region.numpy()
        score = partial(lost_slope, class_id=1, region=region, usual=softmax(network(image.numpy())[0])[1])
        expected = optimised_mask(
            network, image.numpy(), np.zeros(image.shape), score, always=region if context else None, **settings
        )
        assert_equal(explanation, expected)


@pytest.mark.parametrize("method", METHODS)
def test_the_one_pixel_a_network_looks_at_is_what_stays(method, block):
    network = Trigger(block, (12, 20))
    image = torch.ones(1, 17, 23, dtype=torch.float64)
    options = {"grid": 8, "n_iterations": 60, "lam": 0.1, "precision": "32"}
    if method == "meaningful_perturbation":
        options |= {"jitter": 0, "tv_weight": 0, "perturb_with": "blanking"}  # a blurred plain image is the image
    saliency = misure.explain(network, image, 1, method, **options).saliency
    assert saliency[12, 20] > 0.5
    assert (saliency[:, :12] == 0).all()  # whatever no cell of that pixel's reaches is paid for in vain


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("meaningful_perturbation", {"grid": 6, "lam": 0.2, "jitter": 1, "perturb_with": "blanking"}),
        ("grid_saliency", {"grid": 6, "lam": 0.2}),
        ("extremal_perturbation", {"mask_size": 6, "area": 0.5}),
    ],
)
def test_volumes_are_explained(method, options):
    """Every voxel decides for itself: dark ones are paid for in vain, and a batch changes nothing."""
    volumes, options = 3 * random_images(2, 1, 4, 5, 6).sign().clamp(min=0), {"n_iterations": 30, **options}
    together = misure.explain(PerPixel(), volumes, 1, method, precision="32", **options)
    for volume, explanation in zip(volumes, together, strict=True):
        (alone,) = misure.explain(PerPixel(), volume[None], 1, method, precision="32", **options)
        torch.testing.assert_close(alone.saliency, explanation.saliency, rtol=0, atol=1e-9)  # Adam, see above
        bright = explanation.target.region
        assert explanation.saliency[bright].mean() > explanation.saliency[~bright].mean()
        if method != "extremal_perturbation":  # whose penalty grows
            assert explanation.curve[-1] < explanation.curve[0]


def test_jitter_moves_the_mask_by_keyed_steps_and_repeats_the_edge():
    explainer = MeaningfulPerturbation(jitter=2, seed=3)
    ramp = torch.arange(7.0).expand(1, 5, 7)
    moves = {tuple((explainer._moved(ramp, i)[0, 0]).tolist()) for i in range(60)}
    steps = {tuple((torch.arange(7) + s).clamp(0, 6).float().tolist()) for s in range(-2, 3)}
    assert moves == steps
    assert torch.equal(explainer._moved(ramp, 5), explainer._moved(ramp, 5))


def test_total_variation_sums_over_every_axis():
    masks = torch.zeros(2, 3, 3, 3)
    masks[1, 1, 1, 1] = 0.5
    torch.testing.assert_close(total_variation(masks, 3.0), torch.tensor([0.0, 6 * 0.125]))


@pytest.mark.parametrize("method", [*METHODS, "extremal_perturbation", "msr"])
def test_a_network_without_gradients_is_refused(method, make_images):
    toy = Convolutional(1, seed=4).double().eval().requires_grad_(False)
    with pytest.raises(MisureError, match="gives no gradients"):
        misure.explain(lambda x: toy(x.detach()), make_images(1, 1, 9, 9)[0], 1, method, precision="32")
