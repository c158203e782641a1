"""Stage 1: dilation, and the number of dilations a network needs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import metrics
from oracles.sufficient_region import BALL, FOOTPRINT, sufficient_region
from oracles.toys import Convolutional, PerPixel, Trigger, as_numpy_predict
from scipy.ndimage import binary_dilation

import misure
from misure.errors import MisureError
from misure.explainers import MSR, MeaningfulPerturbation, Occlusion
from misure.explainers.sufficient_region import dilate, footprint

DISK = np.hypot(*np.ogrid[-3:4, -3:4]) <= 3

maps = arrays(bool, st.tuples(st.just(2), st.integers(1, 12), st.integers(1, 12)))
volumes = arrays(bool, st.tuples(st.just(2), *[st.integers(1, 8)] * 3))


@given(maps | volumes, st.sampled_from([("ellipse", FOOTPRINT), ("disk", DISK)]))
def test_dilation_equals_scipy(masks, shape):
    expected = np.stack([binary_dilation(mask, shape[1] if mask.ndim == 2 else BALL) for mask in masks])
    assert np.array_equal(dilate(torch.from_numpy(masks), shape=shape[0]).numpy(), expected)


@pytest.mark.parametrize(("shape", "pixels", "n"), [("ellipse", FOOTPRINT, 33), ("disk", DISK, 29)])
def test_a_single_pixel_becomes_the_footprint(shape, pixels, n):
    point = torch.zeros(1, 9, 9, dtype=torch.bool)
    point[0, 4, 4] = True
    assert np.array_equal(dilate(point, shape=shape)[0, 1:8, 1:8].numpy(), pixels)
    assert dilate(point, shape=shape).sum() == pixels.sum() == n


@pytest.mark.parametrize(("radius", "widths"), [(1, (1, 3, 1)), (2, (1, 5, 5, 5, 1)), (3, (1, 5, 7, 7, 7, 5, 1))])
def test_the_footprint_is_opencv_s_ellipse(radius, widths):
    side = 2 * radius + 1
    rows = [[abs(column - radius) <= width // 2 for column in range(side)] for width in widths]
    assert footprint(2, radius).tolist() == rows


def test_reduced_images_get_smaller_lengths():
    half = MSR(mask_size=56, blur_sigma=3).at_scale(0.5)
    assert (half.mask_size, half.dilation_radius, half.blur_sigma, half.lr) == (28, 1, 1.5, MSR().lr)
    assert MSR(blur_sigma=5).at_scale(0.25).blur_sigma == MSR(blur_sigma=5.0).at_scale(0.25).blur_sigma == 1.25
    assert json.dumps(MSR(blur_sigma=5).at_scale(1.0).blur_sigma) == "5"
    assert Occlusion().at_scale(0.5).stride == Occlusion().stride // 2
    assert MSR().at_scale(1) == MSR()
    assert MSR().at_scale(0.01).mask_size == 2
    assert [MSR(mask_size=side).at_scale(0.2857).mask_size for side in (56, 112, 224)] == [16, 32, 64]
    assert MeaningfulPerturbation(jitter=0).at_scale(0.5).jitter == 0


def explain(network, images, **parameters):
    return misure.explain(network, images, target=1, method="sufficient_region", precision="32", **parameters)


def test_a_network_that_looks_at_single_pixels_needs_no_dilation(make_images):
    for explanation in explain(PerPixel(0.3), make_images(3, 1, 11, 8)):
        assert explanation.n_dilations == 0
        assert torch.equal(explanation.sufficient_region, explanation.target.region)
        assert torch.equal(explanation.saliency != 0, explanation.target.region)
        assert (explanation.dice_explained, explanation.perturbation_ratio) == (1, 1)


@pytest.mark.parametrize(("distance", "needed"), [(0, 0), (1, 1), (3, 1), (4, 2), (6, 2), (7, 3), (12, 4)])
def test_a_network_that_needs_k_dilations_gets_k(block, distance, needed):
    network = Trigger(block, (8, 8 + distance))  # 8 is the block's last column, a dilation adds 3 columns
    explanation = explain(network, torch.ones(1, 17, 23, dtype=torch.float64))
    assert explanation.n_dilations == needed
    assert explanation.dice_explained == 1
    expected = binary_dilation(block.numpy(), FOOTPRINT, iterations=needed) if needed else block.numpy()
    assert np.array_equal(explanation.sufficient_region.numpy(), expected)


@pytest.mark.parametrize("blanking", ["zero", "black", "mean", "blur", "author_code"])
@pytest.mark.parametrize(("size", "columns"), [((13, 17), 17), ((24, 9), 9), ((15, 14), 7)])
def test_stage_one_equals_the_oracle(blanking, size, columns, make_images):
    """Also within a region: pixels of the class outside it count neither way."""
    toy, images = Convolutional(2, seed=3).double().eval(), make_images(4, 2, *size)
    mean, std, part = (0.3, 0.6), (0.5, 0.7), torch.arange(size[1]).expand(size) < columns
    model = misure.SegmentationModel(toy, mean=mean, std=std)
    explanations = explain(model, images, blanking=blanking, blur_sigma=1.3, tau=0.8, region=part)
    for image, explanation in zip(images.numpy(), explanations, strict=True):
        predict, fill = (
            as_numpy_predict(toy),
            metrics.baseline("black" if blanking == "author_code" else blanking, image, mean, std, 1.3),
        )
        region = (predict(image) == 1) & part.numpy()
        assert np.array_equal(explanation.target.region.numpy(), region)
        mask, steps = sufficient_region(predict, image, 1, region=region, fill=fill, tau=0.8)
        assert explanation.n_dilations == steps
        assert np.array_equal(explanation.sufficient_region.numpy(), mask)
    assert max(e.n_dilations for e in explanations) > 0


@pytest.mark.parametrize(("tau", "needed"), [(0.3, 0), (0.5, 1), (0.6, 1)])
def test_the_dice_has_to_exceed_tau(tau, needed):
    def network(
        images,
    ):  # on the image alone: 3 pixels; without the fourth pixel only 1 of them, Dice 2 / (1 + 3) = 0.5
        whole = (images[:, 0, 0, 3] > 0.5).double().view(-1, 1)
        logit = torch.cat([whole * 0 + 1, 2 * whole - 1, 2 * whole - 1, whole * 0 - 1], 1)[:, None]
        return torch.stack([torch.zeros_like(logit), logit], 1)

    assert explain(network, torch.ones(1, 1, 4, dtype=torch.float64), tau=tau).n_dilations == needed


def test_a_network_that_is_not_deterministic_is_named(block):
    class Moody:
        calls = 0

        def __call__(self, images):
            self.calls += 1
            switch = torch.where(block, 1.0 if self.calls == 1 else -1.0, -1.0).expand(len(images), -1, -1)
            return torch.stack([torch.zeros_like(switch), switch], 1)

    with pytest.raises(MisureError, match="not deterministic in evaluation mode"):
        explain(Moody(), torch.ones(1, 17, 23))


def test_a_target_of_another_network_is_named():
    images = torch.rand(1, 1, 17, 23, generator=torch.Generator().manual_seed(0))
    target = explain(PerPixel(0.2), images[0]).target
    with pytest.raises(MisureError, match=r"the target was made on another network or at another precision: make it"):
        misure.explain(PerPixel(0.9), images[0], target, "sufficient_region", precision="32")


@pytest.mark.parametrize("tau", [1, 1.5])
def test_a_dice_that_cannot_be_exceeded_is_refused(tau):
    with pytest.raises(MisureError, match="can never be exceeded"):
        misure.EXPLAINERS["sufficient_region"](tau=tau)


@settings(max_examples=15)
@given(needed=st.integers(0, 14), others=st.lists(st.integers(0, 14), max_size=3), batch_size=st.integers(1, 9))
def test_steps_tried_together_give_the_sequential_result(needed, others, batch_size):
    """The network wants a bright pixel 3 k columns right of the object: k dilations, found in batches of any size."""
    region = torch.zeros(9, 60, dtype=torch.bool)
    region[3:6, 5:9] = True
    images = torch.zeros(1 + len(others), 1, 9, 60, dtype=torch.float64)
    for image, k in zip(images, [needed, *others], strict=True):
        image[0, 4, 8 + 3 * k] = 1
        image[0, 4, 5 + 3 * k : 8 + 3 * k] = -1  # a step too far hides nothing: only the first that suffices counts
    largest = 0

    def network(x):
        nonlocal largest
        largest = max(largest, len(x))
        switch = x[:, 0, 4, 8:].amax(1) - 0.5
        return torch.stack([torch.zeros(len(x), 9, 60), torch.where(region, switch.view(-1, 1, 1), -1.0)], 1)

    found = explain(network, images, batch_size=batch_size)
    assert [e.n_dilations for e in found] == [needed, *others]
    assert largest <= batch_size  # never more masked images in memory than a batch


def test_a_dice_that_falls_again_does_not_hide_the_first_step_that_suffices():
    """Step 3 suffices, steps 4 to 7 do not, step 8 does again: tried together, the answer is still 3."""
    region = torch.zeros(5, 60, dtype=torch.bool)
    region[1:4, 2:4] = True

    def network(x):
        width = (x[:, 0, 2] != 0).sum(1)  # 2 columns and 3 more to the right with every dilation, 2 at the left once
        step = torch.div(width - 4, 3, rounding_mode="floor")
        good = (step == 3) | (step >= 8)
        logit = torch.where(region, torch.where(good, 1.0, -1.0).view(-1, 1, 1), -1.0)
        return torch.stack([torch.zeros_like(logit), logit], 1)

    found = explain(network, torch.ones(1, 5, 60, dtype=torch.float64), batch_size=16)
    assert found.n_dilations == 3
