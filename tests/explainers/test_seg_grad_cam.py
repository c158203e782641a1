"""Seg-Grad-CAM of a pooled layer and of a map without support; test_cam compares it with oracles."""

from __future__ import annotations

import numpy as np
import torch
from oracles.toys import HandSet
from torch import nn

import misure


def explain(network, images, target=1, layer="features", **options):
    return misure.explain(network, images, target, "seg_grad_cam", layer=layer, precision="32", **options)


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
