"""Occlusion: windows that cover the image, and losses that equal a loop over them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import metrics
from oracles.occlusion import occlusion
from oracles.toys import Convolutional, Trigger, UNet3D, as_numpy_predict, random_images

import misure
from misure.errors import MisureError
from misure.explainers.occlusion import Occlusion

sides = st.integers(1, 30)


def test_a_network_that_looks_at_one_pixel(block):
    """Only windows over that pixel lose anything, and they lose everything: the map is their share at each pixel."""
    network = Trigger(block, (12, 20))
    explain = {"target": 1, "method": "occlusion", "precision": "32"}
    image = torch.ones(1, 17, 23, dtype=torch.float64)
    tiled = misure.explain(network, image, window=4, stride=4, **explain).saliency
    expected = torch.zeros(17, 23, dtype=torch.float64)
    expected[12:16, 20:23] = 1
    assert torch.equal(tiled, expected)
    overlapping = misure.explain(network, image, window=4, stride=2, **explain).saliency
    assert overlapping[12, 20] == 1  # every window that covers it loses all
    assert overlapping[12, 18] == 0.5  # one of two along the row: columns 18 to 21, not 16 to 19
    assert overlapping[9, 20] == 0


@pytest.mark.parametrize(("window", "stride"), [(4, 4), (5, 2), (3, 1), (40, 7)])
@pytest.mark.parametrize(("size", "blanking"), [((9, 12), "zero"), ((9, 12), "mean"), ((4, 5, 6), "zero")], ids=str)
def test_maps_equal_a_loop_over_windows(window, stride, size, blanking):
    toy = Convolutional(2, seed=4) if len(size) == 2 else UNet3D(2, seed=2)
    toy, images, half = toy.double().eval(), random_images(2, 2, *size), torch.arange(size[-1]).expand(size) < 4
    options = {"region": half, "window": window, "stride": stride, "blanking": blanking, "precision": "32"}
    explanations = misure.explain(toy, images, 1, "occlusion", **options)
    predict = as_numpy_predict(toy)
    for image, explanation in zip(images.numpy(), explanations, strict=True):
        fill = metrics.baseline(blanking, image, (0, 0), (1, 1), 1.0)
        region = (predict(image) == 1) & half.numpy()
        expected = occlusion(predict, image, 1, region=region, fill=fill, window=window, stride=stride)
        np.testing.assert_allclose(explanation.saliency.numpy(), expected, rtol=0, atol=1e-12)  # order of a sum


@given(st.lists(sides, min_size=2, max_size=3), sides, st.data())
def test_windows_cover_every_pixel_and_none_lies_outside(size, window, data):
    explainer = Occlusion(window=window, stride=data.draw(st.integers(1, window)))
    counts = [len(explainer._starts(length)) for length in size]
    windows = explainer.windows(torch.arange(int(np.prod(counts))), torch.Size(size))
    assert windows.any(0).all()
    assert windows.flatten(1).any(1).all()
    assert (windows.flatten(1).sum(1) <= window ** len(size)).all()


def test_passes_are_those_of_the_usual_image():
    explainer = Occlusion(window=16, stride=8)
    assert explainer.passes == (27 * 27, 0)


def test_a_stride_beyond_the_window_is_refused():
    with pytest.raises(MisureError, match="stride=9 leaves out pixels between windows of 8"):
        Occlusion(window=8, stride=9)
