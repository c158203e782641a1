"""The adapter: logits, layers, precision and batches of a wrapped network, and its title."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from oracles.resizing import bilinear
from oracles.toys import Convolutional
from torch import nn

import misure
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


class Relative(nn.Module):
    """A network that scales each image by its brightest pixel, which gives NaN for black ones."""

    def forward(self, images):
        z = 8 * images / images.amax((1, 2, 3), keepdim=True) - 4
        return torch.cat([-z, z], 1)


@pytest.mark.parametrize("method", ["rise", "occlusion", "score_cam", "integrated_gradients"])
def test_nan_on_masked_images_ends_an_explanation_instead_of_counting(method):
    image = torch.zeros(1, 12, 12)
    image[:, 4:8, 4:8] = 1
    parameters = {"rise": {"n_masks": 20, "grid": 3}, "occlusion": {"window": 12, "stride": 12}}.get(method, {})
    model = SegmentationModel(nn.Sequential(Relative(), nn.Identity()), bottleneck="1")
    with pytest.raises(misure.MisureError, match="NaN or infinity"):
        misure.explain(model, image, 1, method, **parameters)


def test_a_blanking_on_which_a_network_is_finite_explains_it():
    image = torch.zeros(1, 12, 12)
    image[:, 4:8, 4:8] = 1
    with pytest.raises(misure.MisureError, match=r"for masked images, .*: choose another blanking"):
        misure.explain(Relative(), image, 1, "occlusion", window=12, stride=12)
    found = misure.explain(Relative(), image, 1, "occlusion", window=12, stride=12, blanking="mean")
    assert found.target.size == 16
    assert 0 <= found.dice_explained <= 1


@pytest.mark.parametrize("class_id", [2, 7, -1])
@pytest.mark.parametrize("class_names", [None, ["background", "cat"]])
def test_a_class_without_a_name_is_called_by_its_number(class_id, class_names):
    assert SegmentationModel(Convolutional(), class_names=class_names).class_label(class_id) == f"class_{class_id}"
