"""The adapter finds logits in any output, and a lent network comes back exactly as it was."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracles.resizing import bilinear
from oracles.toys import Convolutional, PerPixel
from torch import nn

from misure.errors import MisureError
from misure.models.compute import Compute
from misure.models.logits import to_logits
from misure.models.wrapper import SegmentationModel, frozen

CPU = torch.device("cpu")
IMAGES = torch.zeros(2, 1, 8, 12)
LOGITS = torch.arange(2 * 3 * 8 * 12).view(2, 3, 8, 12).float()


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        {"out": LOGITS, "aux": None},
        {"logits": LOGITS},
        SimpleNamespace(logits=LOGITS),
        (LOGITS, "features"),
        [LOGITS],
        {"out": SimpleNamespace(logits=(LOGITS,))},
    ],
)
def test_logits_are_found_in_every_kind_of_output(output):
    assert to_logits(output, IMAGES) is LOGITS


@pytest.mark.parametrize("drop_channel", [False, True])
def test_one_channel_becomes_two_logits_whose_softmax_is_the_sigmoid(drop_channel):
    z = torch.linspace(-3, 3, 2 * 8 * 12, dtype=torch.float64).view(2, 1, 8, 12)
    logits = to_logits(z[:, 0] if drop_channel else z, IMAGES)
    assert logits.shape == (2, 2, 8, 12)
    torch.testing.assert_close(logits.softmax(1)[:, 1], z[:, 0].sigmoid(), rtol=0, atol=1e-15)  # float64 rounding


def test_small_logits_are_upsampled_bilinearly():
    small = torch.randn(2, 3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = to_logits(small, IMAGES)
    expected = bilinear(small[1, 2].numpy(), 8, 12)
    np.testing.assert_allclose(got[1, 2].numpy(), expected, rtol=0, atol=1e-14)  # float64 rounding


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"mask": LOGITS}, r"returned dict with keys \['mask'\]"),
        ("logits", "returned str; expected logits"),
        ([], "returned list"),
        (None, "returned NoneType"),
        (LOGITS[:1], r"shape \(1, 3, 8, 12\) for images \(2, 1, 8, 12\)"),
        (LOGITS[0, 0, 0], "expected N x classes x H x W"),
    ],
)
def test_other_outputs_are_refused_in_one_line(output, message):
    with pytest.raises(MisureError, match=message) as caught:
        to_logits(output, IMAGES)
    assert "\n" not in str(caught.value)


def test_a_layer_is_found_by_name_and_the_bottleneck_is_the_default():
    toy = Convolutional()
    model = SegmentationModel(toy, bottleneck="bottleneck")
    assert model.layer("features.0") is toy.features[0]
    assert model.layer() is toy.bottleneck


@pytest.mark.parametrize(
    ("network", "name", "message"),
    [
        (Convolutional(), "botleneck", "no layer 'botleneck'; close names: bottleneck"),
        (Convolutional(), "features.9", "no layer 'features.9'; close names: features.3"),
        (Convolutional(), None, "no layer is named"),
        (lambda x: x, "head", "a plain callable"),
    ],
)
def test_unknown_layers_are_refused(network, name, message):
    with pytest.raises(MisureError, match=message):
        SegmentationModel(network).layer(name)


def snapshot(network: nn.Module) -> dict:
    """Everything about a network and the random state that must survive."""
    return {
        "training": [m.training for m in network.modules()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in network.modules()
        ],
        "requires_grad": [p.requires_grad for p in network.parameters()],
        "storage": [(id(p), p.data_ptr(), p.stride()) for p in network.parameters()],
        "grad": [(id(p.grad), None if p.grad is None else p.grad.tolist()) for p in network.parameters()],
        "values": {name: value.tolist() for name, value in network.state_dict().items()},
        "torch": torch.random.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
        "grad_mode": torch.is_grad_enabled(),
    }


def lived_in() -> Convolutional:
    """A network in the middle of training: mixed flags, hooks, gradients and frozen weights."""
    toy = Convolutional()
    toy.train()
    toy.features[1].eval()
    toy.head.bias.requires_grad_(requires_grad=False)
    toy.head.register_forward_hook(lambda *_: None)
    toy(torch.randn(2, 1, 9, 9, generator=torch.Generator().manual_seed(0))).sum().backward()
    return toy


def disturb(network) -> None:
    """Use the network, and every source of randomness."""
    assert not network.model.module.training
    assert not any(p.requires_grad for p in network.model.module.parameters())
    network(torch.ones(2, 1, 9, 9))
    network.batches(torch.ones(1, 9, 9))
    torch.rand(3)
    np.random.random()  # noqa: NPY002
    random.random()


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_lent_network_comes_back_exactly_as_it_was(channels_last):
    toy = lived_in()
    before = snapshot(toy)
    with frozen(SegmentationModel(toy), Compute("32", channels_last=channels_last), CPU) as network:
        lent = toy.features[0].weight
        assert lent.is_contiguous(memory_format=torch.channels_last) or not channels_last
        disturb(network)
    assert snapshot(toy) == before


def test_it_also_comes_back_after_an_exception():
    toy = lived_in()
    before = snapshot(toy)

    def fail() -> None:
        with frozen(SegmentationModel(toy), Compute("32"), CPU) as network:
            disturb(network)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert snapshot(toy) == before


def test_training_goes_on_where_it_was():
    toy = lived_in()
    optimiser = torch.optim.SGD(toy.parameters(), lr=0.1)
    before = toy.features[0].weight.clone()
    with frozen(SegmentationModel(toy), Compute("32"), CPU):
        pass
    optimiser.step()
    torch.testing.assert_close(toy.features[0].weight, before - 0.1 * toy.features[0].weight.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_logits_have_the_images_type(dtype, precision):
    with frozen(SegmentationModel(Convolutional().to(dtype)), Compute(precision), CPU) as network:
        assert network(torch.zeros(1, 1, 8, 8, dtype=dtype)).dtype == dtype


def test_a_caller_s_autocast_does_not_lower_the_precision():
    images = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with frozen(SegmentationModel(Convolutional()), Compute("32"), CPU) as network:
        expected = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(network(images), expected)


def test_predict_is_the_argmax():
    images = torch.tensor([[[[0.2, 0.7]]]])
    with frozen(SegmentationModel(PerPixel()), Compute("32"), CPU) as network:
        assert network.predict(images).tolist() == [[[0, 1]]]


def test_a_larger_network_gets_smaller_automatic_batches(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=400_000))
    sizes = []
    for image in (torch.zeros(1, 8, 8), torch.zeros(1, 32, 32)):
        with frozen(SegmentationModel(Convolutional()), Compute("32"), CPU) as network:
            sizes.append(network.batches(image).size)
    assert sizes[0] > sizes[1] >= 1


def test_a_multi_label_head_keeps_its_single_channel():
    z = torch.randn(2, 1, 8, 12)
    assert to_logits(z, IMAGES, multi_label=True) is z
    model = SegmentationModel(lambda _: z[:, 0], multi_label=True)
    assert torch.equal(model(IMAGES), z)
    assert model.multi_label
    assert not SegmentationModel(lambda _: z).multi_label


@pytest.mark.parametrize(
    ("network", "given", "title"),
    [(Convolutional(), None, "Convolutional"), (bilinear, None, "bilinear"), (Convolutional(), "net.pt2", "net.pt2")],
)
def test_a_model_has_a_title_and_gradients_unless_told_otherwise(network, given, title):
    model = SegmentationModel(network, title=given)
    assert (model.title, model.differentiable) == (title, True)
    assert not SegmentationModel(network, differentiable=False).differentiable
