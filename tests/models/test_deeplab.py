"""DeepLabV3: MobileNetV2 against the operator list executed literally, odd sizes, both networks' layers."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import operator_list
from oracles.resizing import bilinear
from torch import nn
from torchvision.models.segmentation import deeplabv3_resnet50

from misure.io.download import file_digest
from misure.models.deeplab import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    build_deeplab_mobilenetv2,
    build_deeplab_resnet50,
    convolution,
)
from misure.models.pretrained import OperatorListWeights

DATA = Path(os.environ.get("MISURE_DATA", "data"))
REAL = DATA / "deeplabv3_mobilenetv2_voc"
STEM = "derived_deeplabv3_mnv2_pascal"

needs_weights = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real weights: {REAL} is absent (set MISURE_DATA)")

BOUND = 1e-4
"""On logits up to about 16: 55 float32 convolutions of at most 960 products, added up in another order, differ by
about 3e-5."""


def normalised(pixels: np.ndarray) -> torch.Tensor:
    """Normalise 3 x H x W in [0, 1] as ResNets want it."""
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return torch.from_numpy((pixels - mean) / std)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((3, height, width), dtype=np.float32)


def filled(folder: Path, **options) -> nn.Module:
    files = [folder / f"{STEM}_{end}" for end in ("float.npz", "layers.json")]
    network = build_deeplab_mobilenetv2(21, **options)
    OperatorListWeights("test", folder, STEM, tuple(file_digest(path) for path in files)).load_into(network)
    return network.eval().requires_grad_(False)


def last_convolution(operators: list[operator_list.Operator]) -> int:
    return [op["output"] for op in operators if op["op"] == "CONV_2D"][-1]


def assert_equals_operators(network, operators, weights, pixels):
    tensors = operator_list.run(operators, weights, 2 * pixels - 1)
    coarse = []
    handle = network.classifier.register_forward_hook(lambda _module, _inputs, output: coarse.append(output))
    logits = network(normalised(pixels)[None])
    handle.remove()
    last_resize, classes = (operators[place]["output"] for place in (-2, -1))
    np.testing.assert_allclose(coarse[0][0], tensors[last_convolution(operators)], rtol=0, atol=BOUND)
    np.testing.assert_allclose(logits[0], tensors[last_resize], rtol=0, atol=BOUND)
    # Pixels whose two best logits are within the bound may go either way.
    best = np.sort(tensors[last_resize], axis=0)[-2:]
    decided = best[1] - best[0] > 2 * BOUND
    assert decided.mean() > 0.99
    assert (logits[0].argmax(0).numpy() == tensors[classes])[decided].all()


@needs_weights
def test_real_network_equals_its_operators():
    operators = json.loads((REAL / f"{STEM}_layers.json").read_text(encoding="utf-8"))
    with np.load(REAL / f"{STEM}_float.npz", allow_pickle=False) as arrays:
        weights = dict(arrays)
    assert_equals_operators(filled(REAL, input_size=None), operators, weights, noise(513, 513))


@needs_weights
def test_real_operators_are_those_that_we_generate():
    listed = json.loads((REAL / f"{STEM}_layers.json").read_text(encoding="utf-8"))
    compared = ("k", "op", "stride", "dilation", "same", "act", "weight", "size", "align_corners")
    generated = operator_list.mobile_deeplab(513, 513)
    assert [[op.get(key) for key in compared] for op in listed] == [
        [op.get(key) for key in compared] for op in generated
    ]


@pytest.fixture(scope="module")
def random_files(tmp_path_factory):
    """Random weights of the real shapes, in the two files of a published network."""
    folder = tmp_path_factory.mktemp("weights")
    operators = operator_list.mobile_deeplab(513, 513)
    operator_list.write(folder, STEM, operators, operator_list.random_weights(operators))
    return folder


@pytest.fixture(scope="module")
def mobile(random_files):
    return filled(random_files, input_size=None)


@pytest.fixture(scope="module")
def exact(random_files):
    """The same network in float64, for comparisons up to rounding."""
    return filled(random_files, input_size=None).double()


SIZES = [(65, 65), (97, 61), (34, 80), (1, 1), (1, 40), (2, 3), (16, 17)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_random_network_equals_its_operators(mobile, height, width):
    operators = operator_list.mobile_deeplab(height, width)
    assert_equals_operators(mobile, operators, operator_list.random_weights(operators), noise(height, width))


def test_images_are_resized_inside_and_logits_back(random_files):
    """In float64: in float32 the deep random network amplifies the rounding of the resized image to about the bound."""
    network, pixels = filled(random_files, input_size=33).double(), noise(20, 47)
    inside = np.stack([bilinear(channel, 33, 33) for channel in pixels.astype(np.float64)])
    operators = operator_list.mobile_deeplab(33, 33)
    tensors = operator_list.run(operators, operator_list.random_weights(operators), 2 * inside - 1)
    expected = operator_list.resize(tensors[last_convolution(operators)], 20, 47)
    found = network(normalised(pixels).double()[None])[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=BOUND)


def test_other_normalisations_are_undone(random_files, mobile):
    plain = filled(random_files, input_size=None, mean=[0.0] * 3, std=[1.0] * 3)
    pixels = noise(30, 40)
    same = mobile(normalised(pixels)[None])
    torch.testing.assert_close(plain(torch.from_numpy(pixels)[None]), same, rtol=0, atol=BOUND)
    assert {"scale", "shift", "input_side"} < set(plain.state_dict())  # so that they are part of its identity


# --- padding, batches, gradients, memory format


def same_reference(values: np.ndarray, weight: np.ndarray, stride: int, dilation: int) -> np.ndarray:
    """Convolve H x W as TensorFlow documents ``SAME``, pixel by pixel."""
    height, width = values.shape
    reach = (3 - 1) * dilation + 1
    result = np.zeros((-(-height // stride), -(-width // stride)))
    above, left = (max(reach - (side % stride or stride), 0) // 2 for side in (height, width))
    for y, x in np.ndindex(result.shape):
        for dy, dx in np.ndindex(3, 3):
            row, column = y * stride + dy * dilation - above, x * stride + dx * dilation - left
            if 0 <= row < height and 0 <= column < width:
                result[y, x] += weight[dy, dx] * values[row, column]
    return result


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([(1, 1), (1, 2), (2, 1), (3, 1), (4, 1)]),
    st.sampled_from([1, 2]),
    st.integers(0, 2**32 - 1),
)
def test_same_padding_equals_the_reference(height, width, stride_and_dilation, channels, seed):
    stride, dilation = stride_and_dilation
    rng = np.random.default_rng(seed)
    values, weight = rng.normal(size=(channels, height, width)), rng.normal(size=(channels, 3, 3))
    layers = convolution(channels, channels, kernel=3, stride=stride, dilation=dilation, groups=channels)
    network = nn.Sequential(*layers).double().requires_grad_(False)
    network[-1].weight.copy_(torch.from_numpy(weight[:, None]))
    network[-1].bias.zero_()
    result = network(torch.from_numpy(values)[None])[0]
    expected = [same_reference(*pair, stride, dilation) for pair in zip(values, weight, strict=True)]
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-13)  # nine float64 products of order ten at most


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("trained", [(), ("weight", "bias"), ("bias",)])
def test_gradients_of_depthwise_convolutions_equal_pytorchs(make_images, dilation, trained):
    (layer,) = convolution(4, 4, kernel=3, dilation=dilation, groups=4)
    plain = nn.Conv2d(4, 4, 3, padding=dilation, dilation=dilation, groups=4)
    plain.load_state_dict(layer.state_dict())
    images, outward = make_images(2, 4, 7, 10), make_images(2, 4, 7, 10, seed=1)
    gradients = []
    for module in (layer.double().requires_grad_(False), plain.double().requires_grad_(False)):
        for name in trained:
            getattr(module, name).requires_grad_()
        leaf = images.clone().requires_grad_()
        module(leaf).backward(outward)
        gradients.append([leaf.grad, *(getattr(module, name).grad for name in trained)])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)  # float64 sums of up to 140 products


def test_batches_and_channels_last_equal_single_images(exact, make_images):
    images = make_images(3, 3, 49, 34)
    single = torch.cat([exact(image[None]) for image in images])
    turned = copy.deepcopy(exact).to(memory_format=torch.channels_last)
    # float64: values of order ten through 55 convolutions
    torch.testing.assert_close(exact(images), single, rtol=0, atol=1e-11)
    channels_last = turned(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(channels_last, single, rtol=0, atol=1e-11)


# --- the networks as the rest of the package sees them


def test_resnet50_is_torchvisions_without_the_auxiliary_head():
    with torch.device("meta"):
        ours = build_deeplab_resnet50(21)
        theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items() if not name.startswith("aux_")}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == shapes
    assert sum(p.numel() for p in theirs.parameters()) == 42_004_074  # as torchvision documents it
    assert ours.classifier[0].__class__.__name__ == "ASPP"
