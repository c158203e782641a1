"""Winograd's algorithm against the direct convolution."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import conv2d

import misure
from misure.models.compute import Compute
from misure.models.winograd import Convolution, LentConvolution, _blocks, convolve, transform_weight, winograd
from misure.models.wrapper import SegmentationModel, frozen

# A few hundred float64 operations per output, each correct to 1e-16, on values of order one.
ROUNDING = 1e-12


@pytest.mark.parametrize("size", [(4, 4), (5, 9), (8, 8), (13, 6), (1, 3)])
@pytest.mark.parametrize("channels", [(1, 1), (3, 5)])
def test_convolve_equals_the_direct_convolution(size, channels):
    x = torch.rand(2, channels[0], *size, dtype=torch.float64)
    weight = torch.rand(channels[1], channels[0], 3, 3, dtype=torch.float64) - 0.5
    bias = torch.rand(channels[1], dtype=torch.float64)
    result = convolve(x, transform_weight(weight), bias)
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result, conv2d(x, weight, bias, padding=1), rtol=0, atol=ROUNDING)


def test_gradient_equals_the_direct_convolutions():
    layer = nn.Conv2d(3, 4, 3, padding=1).double()
    x = torch.rand(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    outward = torch.rand(2, 4, 6, 7, dtype=torch.float64)
    (ours,) = torch.autograd.grad((Convolution.apply(x, LentConvolution(layer)) * outward).sum(), x)
    (direct,) = torch.autograd.grad((layer(x) * outward).sum(), x)
    torch.testing.assert_close(ours, direct, rtol=0, atol=ROUNDING)


def wide_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 2, 1)
    )


def test_network_agrees_and_is_given_back(monkeypatch):
    network = wide_network().eval()
    x = torch.rand(16, 1, 16, 20)  # 5120 pixels: enough to pay at once
    direct = network(x)
    used = []
    monkeypatch.setattr("misure.models.winograd.convolve", lambda *a, **k: used.append(1) or convolve(*a, **k))
    with torch.no_grad(), winograd(network):
        fast = network(x)
    assert used, "the wide convolution was not replaced"
    # F(4 x 4, 3 x 3) loses about two digits of float32's seven.
    torch.testing.assert_close(fast, direct, rtol=0, atol=1e-4 * float(direct.detach().abs().max()))
    assert all("_conv_forward" not in vars(module) for module in network.modules())
    assert torch.equal(network(x), direct)


@torch.no_grad()
def test_weights_are_transformed_when_enough_pixels_were_seen(monkeypatch):
    """Directly for 15 images of 320 pixels; the sixteenth reaches 5000."""
    network = wide_network().eval()
    used = []
    monkeypatch.setattr("misure.models.winograd.convolve", lambda *a, **k: used.append(1) or convolve(*a, **k))
    for _ in range(2):  # the count begins anew
        with winograd(network):
            for _ in range(15):
                network(torch.rand(1, 1, 16, 20))
            assert not used
            network(torch.rand(1, 1, 16, 20))
        assert len(used) == 1
        used.clear()


def test_given_back_after_an_exception():
    network = wide_network()
    with pytest.raises(ZeroDivisionError), winograd(network):
        1 / 0  # noqa: B018
    assert all("_conv_forward" not in vars(module) for module in network.modules())


@pytest.mark.parametrize(("wanted", "used"), [(True, True), (False, False)])
def test_sustained_follows_the_setting(wanted, used):
    network = wide_network()
    with (
        frozen(SegmentationModel(network), Compute(winograd=wanted, precision="32"), torch.device("cpu")) as lent,
        lent.sustained(),
    ):
        assert ("_conv_forward" in vars(network[2])) is used


@pytest.mark.parametrize("method", ["rise", "msr"])
def test_explanations_agree(method, monkeypatch):
    monkeypatch.setattr("misure.models.winograd._PAYS_AFTER", 0)
    network = wide_network()
    image = torch.rand(1, 16, 20)
    target = int(network(image[None]).argmax(1).flatten().mode().values)
    parameters = {"rise": {"n_masks": 16}, "msr": {"n_iterations": 3, "mask_size": 16}}[method]
    fast, direct = (
        misure.explain(network, image, target, method, winograd=w, precision="32", **parameters) for w in (True, False)
    )
    # Three steps are too few for stage 2 to amplify rounding; RISE's Dice changes by at most a pixel in a mask.
    torch.testing.assert_close(fast.saliency, direct.saliency, rtol=0, atol=1e-2)


def test_unknown_setting_is_refused():
    with pytest.raises(misure.MisureError, match="winograd=perhaps"):
        Compute(winograd="perhaps")


@pytest.mark.parametrize("largest", [1, 1500, 6000, 1 << 23])
def test_result_does_not_depend_on_how_tiles_are_blocked(monkeypatch, largest):
    x = torch.rand(3, 2, 13, 9, dtype=torch.float64)
    weight = torch.rand(4, 2, 3, 3, dtype=torch.float64) - 0.5
    monkeypatch.setattr("misure.models.winograd._BLOCK_BYTES", (largest, largest))
    expected = conv2d(x, weight, torch.arange(4.0, dtype=torch.float64), padding=1)
    result = convolve(x, transform_weight(weight), torch.arange(4.0, dtype=torch.float64))
    torch.testing.assert_close(result, expected, rtol=0, atol=ROUNDING)


@given(*(st.integers(1, high) for high in (5, 9, 300, 2000)))
def test_blocks_cover_every_tile_once(n, down, row_values, weight_values):
    covered = torch.zeros(n, down)
    for images, rows in _blocks(n, down, row_values, weight_values, 1 << 12):
        covered[images, rows] += 1
    assert bool((covered == 1).all())
