"""Integrated Gradients and SmoothGrad: linear networks by hand, Captum called directly, noise by its key."""

from __future__ import annotations

import sys

import pytest
import torch
from oracles.toys import Convolutional
from torch import nn

import misure
from misure.errors import MisureError

captum = pytest.importorskip("captum.attr", reason="captum is not installed")

METHODS = ("integrated_gradients", "smooth_grad")


class Linear(nn.Module):
    """The logit of class 1 is a weighted sum of each pixel's channels."""

    def forward(self, images):
        weights = images.new_tensor([3.0, -2.0]).view(1, 2, *(1,) * (images.ndim - 2))
        logit = (weights * images).sum(1)
        return torch.stack([torch.zeros_like(logit), logit], 1)


class Square(nn.Module):
    """The logit of class 1 is the pixel's square, less 1."""

    def forward(self, images):
        return torch.cat([torch.zeros_like(images), images**2 - 1], 1)


def explain(network, images, method, target=1, **options):
    return misure.explain(network, images, target, method, precision="32", **options)


@pytest.fixture(params=[(5, 7), (3, 4, 5)], ids=["image", "volume"])
def linear_case(request):
    """An image, its target (where the logit is positive) and its logit."""
    image = torch.randn(2, *request.param, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    image[0] += 0.5  # so that the mean logit is positive and part of the target lies below it
    logit = 3 * image[0] - 2 * image[1]
    return image, logit > 0, logit


@pytest.mark.parametrize("sign", ["positive", "absolute", "signed"])
@pytest.mark.parametrize("blanking", ["zero", "mean"])
def test_integrated_gradients_of_a_linear_network_begin_at_the_blanking(linear_case, blanking, sign):
    image, region, logit = linear_case
    (explanation,) = explain(Linear(), image[None], "integrated_gradients", blanking=blanking, sign=sign)
    expected = (logit - (logit.mean() if blanking == "mean" else 0)) * region
    assert (expected.min() < 0) == (blanking == "mean")
    expected = {"positive": expected.relu(), "absolute": expected.abs(), "signed": expected}[sign]
    # Captum keeps the rule's step sizes in float32; they add up to 1 but for 1e-7
    torch.testing.assert_close(explanation.saliency, expected, rtol=1e-6, atol=1e-12)


def test_integrated_gradients_equal_captum_called_directly(make_images):
    network, images = Convolutional(2, seed=4).double().eval(), make_images(2, 2, 13, 18)
    for image, explanation in zip(
        images, explain(network, images, "integrated_gradients", sign="signed", n_steps=9, batch_size=4), strict=True
    ):
        region = explanation.target.region
        direct = captum.IntegratedGradients(lambda x, region=region: network(x)[:, 1, region].sum(1))
        theirs = direct.attribute(image[None], n_steps=9)[0].sum(0).detach()
        torch.testing.assert_close(explanation.saliency, theirs, rtol=1e-9, atol=1e-12)  # float64 rounding


def test_smooth_grad_of_a_linear_network(linear_case):
    """The gradient is the same everywhere, 3 and -2 on the target, so the noise cannot matter."""
    image, region, _ = linear_case
    (explanation,) = explain(Linear(), image[None], "smooth_grad", n_samples=6)
    torch.testing.assert_close(explanation.saliency, 5.0 * region.double(), rtol=1e-12, atol=0)  # float64 rounding


def test_smooth_grad_averages_signed_gradients_over_noise_of_its_seed():
    image = torch.tensor([[[2.0, -1.5, 3.0, 0.5]]], dtype=torch.float64)
    noise, n_samples = 0.8, 16
    torch.manual_seed(11)
    drawn = torch.normal(0, torch.full((n_samples, 1, 1, 4), noise * 4.5))  # 4.5 is the image's range
    expected = (2 * (image + drawn)).mean(0)[0].abs() * torch.tensor([1, 1, 1, 0])
    explanation = explain(Square(), image, "smooth_grad", n_samples=n_samples, noise=noise, seed=11)
    torch.testing.assert_close(explanation.saliency, expected, rtol=1e-6, atol=0)  # Captum's noise is float32
    magnitudes = (2 * (image + drawn)).abs().mean(0)[0] * torch.tensor([1, 1, 1, 0])
    assert (magnitudes - expected).max() > 0.1  # the toy tells the two apart
    assert not torch.equal(explanation.saliency, explain(Square(), image, "smooth_grad", n_samples=16).saliency)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_taken_in_batches_of_the_asked_size(method, make_images):
    network, sizes = Convolutional(1, seed=4).double(), []
    handle = network.register_forward_hook(lambda _m, inputs, _o: sizes.append(len(inputs[0])))
    count = {"integrated_gradients": "n_steps", "smooth_grad": "n_samples"}[method]
    explain(network, make_images(1, 1, 13, 18), method, batch_size=3, **{count: 8})
    handle.remove()
    assert max(sizes) == 3
    assert sum(sizes) == 8 + 1 + 2  # the target, and an evaluation for each of two thresholds


@pytest.mark.parametrize("method", METHODS)
def test_a_network_that_detaches(method):
    with pytest.raises(MisureError, match="no gradient reaches the image"):
        explain(lambda x: Square()(x.detach()), torch.full((1, 3, 4), 2.0), method)


@pytest.mark.parametrize("method", METHODS)
def test_without_captum(method, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MisureError, match=rf"{method} needs the package captum: pip install 'misure\[captum\]'"):
        explain(Square(), torch.full((1, 3, 4), 2.0), method)
