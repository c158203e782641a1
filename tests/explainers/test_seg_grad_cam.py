"""Seg-Grad-CAM against hand-set weights, an oracle and the grad-cam package."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from oracles.seg_grad_cam import seg_grad_cam
from oracles.toys import Convolutional, HandSet
from torch import nn

import misure


def explain(network, images, target=1, layer="features", **options):
    return misure.explain(network, images, target, "seg_grad_cam", layer=layer, precision="32", **options)


def test_hand_set_weights():
    image = torch.tensor([[[1.0, -1.0, 2.0], [-3.0, 0.5, -0.5]]], dtype=torch.float64)
    explanation = explain(HandSet().double(), image)
    n_region, n_pixels = 3, 6  # the target is where 5 x > 0
    expected = torch.relu(n_region / n_pixels * (3 * image[0] + -1 * -2 * image[0]))
    torch.testing.assert_close(explanation.saliency, expected, rtol=0, atol=1e-15)  # float64 rounding


def test_hand_set_weights_with_a_region_and_a_pooled_layer():
    class Pooled(HandSet):
        def forward(self, images):
            coarse = nn.functional.avg_pool2d(self.features(images), 2)
            return self.head(nn.functional.interpolate(coarse, scale_factor=2, mode="nearest"))

    network = Pooled().double()
    network.pool = nn.Identity()
    image = torch.ones(1, 2, 4, dtype=torch.float64)
    region = torch.tensor([[True, False, False, False], [True, True, False, False]])
    explanation = explain(network, image, region=region)
    # d logit / d A^k at full size: every target pixel spreads its weight evenly over its 2 x 2 block
    alpha = np.array([3.0, -1.0]) * 3 / 8
    torch.testing.assert_close(
        explanation.saliency, torch.full((2, 4), alpha[0] * 1 + alpha[1] * -2, dtype=torch.float64), rtol=0, atol=1e-15
    )  # float64 rounding


def test_a_map_that_is_zero_everywhere_stays_zero():
    image = torch.tensor([[[-1.0, -2.0]]], dtype=torch.float64)
    explanation = explain(HandSet(-1.0).double(), image)
    assert explanation.target.size == 2

    class Opposed(HandSet):
        def forward(self, images):
            logits = self.head(self.features(images))
            return logits + torch.tensor([0.0, 100.0], dtype=logits.dtype).view(1, 2, 1, 1)

    explanation = explain(Opposed().double(), image)
    assert torch.equal(explanation.saliency, torch.zeros(1, 2, dtype=torch.float64))
    assert [(e.dice_explained, e.perturbation_ratio) for e in explanation.evaluations] == [(1, 0), (1, 0)]


@pytest.mark.parametrize("layer", ["features.0", "features.1", "features.2", "bottleneck", "head"])
@pytest.mark.parametrize("size", [(13, 17), (8, 21)])
def test_maps_equal_the_oracle_at_every_layer(layer, size, make_images):
    """Also where the next layer works in place: features.1 goes into an in-place ReLU."""
    toy, images = Convolutional(2, seed=4).double().eval(), make_images(3, 2, *size)
    explanations = explain(toy, images, layer=layer)
    plain = Convolutional(2, seed=4).double().eval()
    plain.features[2].inplace = False
    for image, explanation in zip(images, explanations, strict=True):
        region = (toy(image[None])[0].argmax(0) == 1).numpy()
        expected = seg_grad_cam(plain, plain.get_submodule(layer), image, 1, region)
        np.testing.assert_allclose(explanation.saliency.numpy(), expected, rtol=1e-9, atol=1e-12)  # float64 rounding
        assert expected.max() > 0


@pytest.mark.parametrize("layer", ["features", "bottleneck"])
def test_maps_equal_the_grad_cam_package(layer, make_images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other packages warn about while they are imported
        from pytorch_grad_cam.base_cam import BaseCAM
        from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
    toy, images = Convolutional(3, seed=6).eval(), make_images(2, 3, 16, 24).float()

    class Plain(BaseCAM):
        def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
            return grads.mean(axis=(2, 3))

    explanations = explain(toy, images, 1, layer=layer)
    targets = [SemanticSegmentationTarget(1, e.target.region.float().numpy()) for e in explanations]
    with Plain(toy, [toy.get_submodule(layer)]) as cam:
        theirs = cam(images, targets)
    for explanation, their in zip(explanations, theirs, strict=True):
        ours = explanation.saliency.numpy()
        assert ours.max() > 0
        ours = (ours - ours.min()) / (ours.max() - ours.min())
        # float32, their own 1e-7 in the denominators, and OpenCV's 11-bit bilinear weights
        np.testing.assert_allclose(ours, their, rtol=0, atol=2e-3)
