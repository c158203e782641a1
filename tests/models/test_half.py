"""Half-precision networks: float32 outside, and gradients that float16 cannot hold."""

from __future__ import annotations

import pytest
import torch
from oracles.toys import Convolutional
from torch import nn

import misure
from misure.evaluation.curves import explanation_curves
from misure.metrics import Blanking
from misure.models.compute import Compute
from misure.models.half import with_gradients_in_range
from misure.models.wrapper import SegmentationModel, frozen

CPU = torch.device("cpu")
IMAGE = torch.randn(1, 12, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float16, "fp16"), (torch.bfloat16, "bf16")])
@pytest.mark.parametrize("given", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_network_gets_its_own_type_and_everything_else_is_float32(dtype, precision, given):
    seen = []
    network = Convolutional(1).to(dtype).eval()
    network.features[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].dtype))
    explanation = misure.explain(network, IMAGE.to(given), "all", "rise", n_masks=4)[0]
    assert set(seen) == {dtype}
    tensors = (explanation.saliency, explanation.image, explanation.target.reference)
    assert [tensor.dtype for tensor in tensors] == [torch.float32] * 3
    assert explanation.precision == precision
    curves = explanation_curves(
        SegmentationModel(network), explanation, Blanking(), Compute("32"), n_levels=3, n_steps=2
    )
    assert curves["curve_dice"][-1] == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_callable_without_parameters_gets_half_precision_images_as_they_were_given(dtype):
    seen = []

    def network(images):
        seen.append(images.dtype)
        return torch.cat([-images, images], 1)

    explanation = misure.explain(network, IMAGE.to(dtype), 1, "rise", n_masks=4)
    assert set(seen) == {dtype}
    assert explanation.saliency.dtype == torch.float32


def test_a_body_in_bfloat16_inside_a_float32_network():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.body = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 3, 1).bfloat16()

        def forward(self, x):
            return self.body(self.stem(x).bfloat16())

    explanation = misure.explain(Mixed(), IMAGE, "all", "msr", n_iterations=2, mask_size=8, precision="32")[0]
    assert (explanation.saliency.dtype, explanation.precision) == (torch.float32, "32")


@pytest.mark.parametrize("factor", [1e-9, 1e-6, 1e-3, 1.0])
def test_gradients_below_float16_s_range_arrive(factor):
    images = IMAGE[None].expand(2, 1, 12, 16).clone().requires_grad_()
    logits = with_gradients_in_range(lambda x: (x.half() * 3).float(), images)
    weights = torch.tensor([factor, factor * 1e-3]).view(2, 1, 1, 1)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), images)
    # Eleven bits of float16.
    torch.testing.assert_close(gradient, (3 * weights).expand_as(images), rtol=1e-3, atol=0)


def test_a_saturated_float16_network_is_explained_as_in_float32():
    """A Dice's gradient, over many pixels of high confidence, is below the smallest float16."""

    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1)
            nn.init.constant_(self.conv.bias, 0)
            with torch.no_grad():
                self.conv.weight[:, 0, 0, 0], self.conv.bias[1] = torch.tensor([0.0, 22.0]), -11

        def forward(self, x):
            return self.conv(x)

    image = torch.zeros(1, 96, 96)
    image[:, 4:90, 4:90] = 1
    options = {"n_iterations": 3, "mask_size": 96, "lam": 1e-4, "clamp_low": 0, "precision": "32"}
    full, half = (misure.explain(net, image, 1, "msr", **options) for net in (Sure(), Sure().half()))
    torch.testing.assert_close(half.saliency, full.saliency, rtol=0, atol=1e-2)
    torch.testing.assert_close(half.curve, full.curve, rtol=0, atol=1e-3)


@pytest.mark.parametrize("bfloat16", ["slow", "fast"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_nothing_is_folded_or_measured_in_half_precision(dtype, bfloat16):
    with frozen(SegmentationModel(Convolutional(1).to(dtype)), Compute(), CPU) as network:
        choice = network.settle(IMAGE)
        assert (choice.reason, dict(choice.seconds)) == ("the network's own type", {})
        with network.folded(IMAGE):
            assert "forward" not in vars(network.model.network.features[1])


def test_one_image_in_half_precision_does_not_decide_for_the_next():
    def network(x):
        return torch.cat([1 - x, x], 1) - 0.5

    model, image = misure.SegmentationModel(network), torch.tensor([[[0.0, 1.0, 1.0]]])
    found = [
        misure.explain(model, image.to(dtype), 1, "prediction").precision
        for dtype in (torch.float32, torch.float16, torch.float32, torch.float64)
    ]
    assert found == ["32", "fp16", "32", "32"]
