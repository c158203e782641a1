"""Extremal perturbation: the asked area is kept exactly, and what matters is what stays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.toys import Convolutional, Trigger

import misure
from misure.explainers.extremal_perturbation import keep_largest, smooth_maximum


def explain(network, image, **options):
    settings = {"mask_size": 8, "n_iterations": 30, "precision": "32", **options}
    return misure.explain(network, image, 1, "extremal_perturbation", **settings)


@pytest.mark.parametrize("area", [0.1, 0.33, 0.5, 1.0])
@pytest.mark.parametrize("area_of", ["sufficient_region", "object"])
def test_the_asked_area_is_never_exceeded(area, area_of, make_images):
    toy = Convolutional(1, seed=4).double().eval()
    for image in make_images(2, 1, 12, 15):
        explanation = explain(toy, image, area=area, area_of=area_of)
        whole = explanation.target.region if area_of == "object" else explanation.sufficient_region
        kept = explanation.saliency > 0
        assert 0 < kept.sum() <= max(1, round(area * int(whole.sum())))
        assert explanation.sufficient_region[kept].all()


def test_a_quarter_of_the_object_holds_the_pixel_that_decides(block):
    """The whole object stands or falls with one pixel of it."""
    image = torch.ones(1, 17, 23, dtype=torch.float64)
    explanation = explain(Trigger(block, (8, 6)), image, area=0.25, radius=0, mask_size=23, n_iterations=60)
    assert explanation.saliency[8, 6] > 0.5
    assert explanation.dice_explained == 1
    assert explanation.perturbation_ratio <= 0.25


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=12), st.integers(0, 12))
def test_keep_largest_is_a_stable_sort(values, count):
    kept = keep_largest(torch.tensor([values]), torch.tensor([count]))[0].tolist()
    chosen = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    assert kept == [v if i in chosen else 0.0 for i, v in enumerate(values)]


def test_the_smooth_maximum_of_zeros_and_ones_is_a_dilation():
    mask = torch.zeros(1, 7, 7, dtype=torch.float64)
    mask[0, 3, 3] = 1
    expected = torch.zeros(7, 7, dtype=torch.float64)
    expected[3, 2:5] = expected[2:5, 3] = 1
    torch.testing.assert_close(smooth_maximum(mask, 1)[0], expected, rtol=0, atol=1e-6)  # a smooth maximum
    assert torch.equal(smooth_maximum(mask, 0), mask)
