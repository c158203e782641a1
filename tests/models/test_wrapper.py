"""The adapter: logits, layers, precision and batches of a wrapped network, and its title."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from oracles.resizing import bilinear
from oracles.toys import Convolutional

from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel, frozen

CPU = torch.device("cpu")
IMAGES = torch.zeros(2, 1, 8, 12)


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


def test_a_larger_network_gets_smaller_automatic_batches(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=400_000))
    sizes = []
    for image in (torch.zeros(1, 8, 8), torch.zeros(1, 32, 32)):
        with frozen(SegmentationModel(Convolutional()), Compute("32"), CPU) as network:
            sizes.append(network.batches(image).size)
    assert sizes[0] > sizes[1] >= 1


def test_a_multi_label_head_keeps_its_single_channel():
    z = torch.randn(2, 1, 8, 12)
    assert torch.equal(SegmentationModel(lambda _: z[:, 0], multi_label=True)(IMAGES), z)
    assert SegmentationModel(lambda _: z)(IMAGES).shape == (2, 2, 8, 12)


@pytest.mark.parametrize(
    ("network", "given", "title"),
    [(Convolutional(), None, "Convolutional"), (bilinear, None, "bilinear"), (Convolutional(), "net.pt2", "net.pt2")],
)
def test_a_model_has_a_title_and_gradients_unless_told_otherwise(network, given, title):
    model = SegmentationModel(network, title=given)
    assert (model.title, model.differentiable) == (title, True)
    assert not SegmentationModel(network, differentiable=False).differentiable
