"""DeepLabV3: MobileNetV2 against the operator list executed literally, odd sizes, both networks' layers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import operator_list
from oracles.seg_grad_cam import seg_grad_cam
from torch import nn

import misure
from misure.networks.deeplab import build_deeplab_mobilenetv2, build_deeplab_resnet50
from misure.networks.deeplab_mobilenet import IMAGENET_MEAN, IMAGENET_STD, DeepLabV3MobileNetV2, convolution
from misure.networks.published import OperatorListWeights

DATA = Path(os.environ.get("MISURE_DATA", "data"))
REAL = DATA / "deeplabv3_mobilenetv2_voc"
STEM = "derived_deeplabv3_mnv2_pascal"
PHOTOGRAPHS = DATA / "coco" / "val2017"

needs_weights = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real weights: {REAL} is absent (set MISURE_DATA)")

BOUND = 1e-4
"""On logits up to about 16: 55 float32 convolutions of at most 960 products, added up in another order, differ by
about 3e-5."""


def normalised(pixels: np.ndarray) -> torch.Tensor:
    """Normalise 3 x H x W in [0, 1] as ResNets want it."""
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return torch.from_numpy((pixels - mean) / std)


def noise(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((3, side, side), dtype=np.float32)


def photograph(side: int) -> np.ndarray:
    from PIL import Image

    if not PHOTOGRAPHS.is_dir():
        pytest.skip(f"no photographs: {PHOTOGRAPHS} is absent (set MISURE_DATA)")
    picture = Image.open(min(PHOTOGRAPHS.glob("*.jpg"))).convert("RGB").resize((side, side))
    return np.asarray(picture, np.float32).transpose(2, 0, 1) / 255


def filled(folder: Path, stem: str, **options) -> nn.Module:
    network = build_deeplab_mobilenetv2(21, **options)
    OperatorListWeights("test", folder, stem, ("", "")).load_into(network)
    return network.eval().requires_grad_(False)


def assert_equals_operators(network, operators, weights, pixels):
    tensors = operator_list.run(operators, weights, 2 * pixels - 1)
    coarse = []
    handle = network.classifier.register_forward_hook(lambda _module, _inputs, output: coarse.append(output))
    logits = network(normalised(pixels)[None])
    handle.remove()
    last_resize, classes = (operators[place]["output"] for place in (-2, -1))
    before = next(op["output"] for op in reversed(operators) if op["op"] == "CONV_2D")
    np.testing.assert_allclose(coarse[0][0], tensors[before], rtol=0, atol=BOUND)
    np.testing.assert_allclose(logits[0], tensors[last_resize], rtol=0, atol=BOUND)
    # Pixels whose two best logits are within the bound may go either way.
    best = np.sort(tensors[last_resize], axis=0)[-2:]
    decided = best[1] - best[0] > 2 * BOUND
    assert decided.mean() > 0.99
    assert (logits[0].argmax(0).numpy() == tensors[classes])[decided].all()


@needs_weights
@pytest.mark.parametrize("pixels", [noise, photograph])
def test_real_network_equals_its_operators(pixels):
    operators = json.loads((REAL / f"{STEM}_layers.json").read_text(encoding="utf-8"))
    with np.load(REAL / f"{STEM}_float.npz", allow_pickle=False) as arrays:
        weights = dict(arrays)
    assert_equals_operators(filled(REAL, STEM, input_size=None), operators, weights, pixels(513))


@needs_weights
def test_real_operators_are_those_that_we_generate():
    listed = json.loads((REAL / f"{STEM}_layers.json").read_text(encoding="utf-8"))
    compared = ("k", "op", "stride", "dilation", "same", "act", "weight", "size", "align_corners")
    generated = operator_list.mobile_deeplab(513)
    assert [[op.get(key) for key in compared] for op in listed] == [[op.get(key) for key in compared] for op in generated]


@pytest.fixture(scope="module")
def random_files(tmp_path_factory):
    """Random weights of the real shapes, in the two files of a published network."""
    folder = tmp_path_factory.mktemp("weights")
    operators = operator_list.mobile_deeplab(65)
    operator_list.write(folder, "random", operators, operator_list.random_weights(operators))
    return folder


@pytest.fixture(scope="module")
def mobile(random_files):
    return filled(random_files, "random", input_size=None)


@pytest.mark.parametrize("side", [65, 34])
def test_random_network_equals_its_operators(mobile, side):
    operators = operator_list.mobile_deeplab(side)
    assert_equals_operators(mobile, operators, operator_list.random_weights(operators), noise(side))


# --- sizes, gradients, layers


@pytest.fixture(scope="module")
def mobile64(mobile):
    """The same network in float64, for comparisons up to rounding."""
    return build_deeplab_mobilenetv2(21, input_size=None).double().eval().requires_grad_(False)


def same_reference(values: np.ndarray, weight: np.ndarray, stride: int, dilation: int) -> np.ndarray:
    """Convolve H x W as TensorFlow documents ``SAME``, pixel by pixel."""
    height, width = values.shape
    reach = (3 - 1) * dilation + 1
    result = np.zeros((-(-height // stride), -(-width // stride)))
    above, left = (
        max(reach - (stride if side % stride == 0 else side % stride), 0) // 2 for side in (height, width)
    )
    for y, x in np.ndindex(result.shape):
        for dy, dx in np.ndindex(3, 3):
            row, column = y * stride + dy * dilation - above, x * stride + dx * dilation - left
            if 0 <= row < height and 0 <= column < width:
                result[y, x] += weight[dy, dx] * values[row, column]
    return result


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([(1, 1), (1, 2), (2, 1), (3, 1)]),
    st.integers(0, 2**32 - 1),
)
def test_same_padding_equals_the_reference(height, width, stride_and_dilation, seed):
    stride, dilation = stride_and_dilation
    rng = np.random.default_rng(seed)
    values, weight = rng.normal(size=(height, width)), rng.normal(size=(3, 3))
    layers = nn.Sequential(*convolution(1, 1, kernel=3, stride=stride, dilation=dilation)).double()
    with torch.no_grad():
        layers[-1].weight.copy_(torch.from_numpy(weight))
        layers[-1].bias.zero_()
        result = layers(torch.from_numpy(values)[None, None])[0, 0].numpy()
    expected = same_reference(values, weight, stride, dilation)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-14)  # nine float64 products of order one
