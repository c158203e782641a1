"""An operator list of a TensorFlow Lite graph executed literally in NumPy, and random ones of MobileNet's shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Operator = dict[str, Any]


def run(operators: list[Operator], weights: dict[str, np.ndarray], image: np.ndarray) -> dict[int, np.ndarray]:
    """Execute every operator on one image (3 x H x W, in [-1, 1]); return all tensors by their index."""
    tensors = {0: image}
    for operator in operators:
        inputs = [tensors[index] for index in operator["inputs"]]
        key = f"{operator['k']:02d}"
        match operator["op"]:
            case "CONV_2D" | "DEPTHWISE_CONV_2D" as kind:
                sums = convolve if kind == "CONV_2D" else convolve_depthwise
                stride, dilation = operator["stride"], operator["dilation"]
                result = sums(inputs[0], weights[f"{key}.weight"], stride, dilation)
                result = activate(result + weights[f"{key}.bias"][:, None, None], operator["act"])
            case "ADD":
                result = inputs[0] + inputs[1]
            case "AVERAGE_POOL_2D":
                result = inputs[0].mean((1, 2), keepdims=True)
            case "CONCATENATION":
                result = np.concatenate(inputs)
            case "RESIZE_BILINEAR":
                assert operator["align_corners"]
                result = resize(inputs[0], *operator["size"])
            case "QUANTIZE":
                result = inputs[0]
            case "ARG_MAX":
                result = inputs[0].argmax(0)
            case unknown:
                raise AssertionError(unknown)
        tensors[operator["output"]] = result
    return tensors


def activate(values: np.ndarray, name: str | None) -> np.ndarray:
    return {None: values, "relu": np.maximum(values, 0), "relu6": np.minimum(np.maximum(values, 0), 6)}[name]


def taps(values: np.ndarray, kernel: int, stride: int, dilation: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield what every tap of a kernel sees, C x ceil(H / stride) x ceil(W / stride), outside zeros (``SAME``)."""
    reach = (kernel - 1) * dilation + 1
    outputs = [(side + stride - 1) // stride for side in values.shape[1:]]
    missing = [max(0, (n - 1) * stride + reach - side) for n, side in zip(outputs, values.shape[1:], strict=True)]
    padded = np.pad(values, [(0, 0), *((total // 2, total - total // 2) for total in missing)])
    for dy in range(kernel):
        for dx in range(kernel):
            top, left = dy * dilation, dx * dilation
            bottom, right = top + (outputs[0] - 1) * stride + 1, left + (outputs[1] - 1) * stride + 1
            yield dy, dx, padded[:, top:bottom:stride, left:right:stride]


def convolve(values: np.ndarray, weight: np.ndarray, stride: int, dilation: int) -> np.ndarray:
    return sum(
        np.tensordot(weight[:, :, dy, dx], seen, 1) for dy, dx, seen in taps(values, weight.shape[2], stride, dilation)
    )


def convolve_depthwise(values: np.ndarray, weight: np.ndarray, stride: int, dilation: int) -> np.ndarray:
    return sum(
        weight[:, 0, dy, dx, None, None] * seen for dy, dx, seen in taps(values, weight.shape[2], stride, dilation)
    )


def resize(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize C x h x w bilinearly so that corner pixels stay at the corners (``align_corners``)."""
    rows, columns = (_between(n, side, values.dtype) for n, side in zip((height, width), values.shape[1:], strict=True))
    return rows @ values @ columns.T


def _between(n_out: int, n_in: int, dtype: np.dtype) -> np.ndarray:
    positions = np.arange(n_out) * ((n_in - 1) / max(n_out - 1, 1))
    return np.maximum(0, 1 - abs(positions[:, None] - np.arange(n_in))).astype(dtype)


def mobile_deeplab(height: int, width: int, classes: int = 21) -> list[Operator]:
    """List the operators of DeepLabV3 on MobileNetV2, output stride 16, for images of one size."""
    operators: list[Operator] = []

    def add(kind: str, *inputs: int, **details: Any) -> int:
        operators.append({"k": len(operators), "op": kind, "inputs": list(inputs), "output": len(operators) + 1})
        operators[-1].update(details)
        return len(operators)

    def convolution(index: int, weight: list[int], act: str | None, stride: int = 1, dilation: int = 1) -> int:
        kind = "DEPTHWISE_CONV_2D" if weight[1:] == [1, 3, 3] else "CONV_2D"
        return add(kind, index, stride=stride, dilation=dilation, same=True, act=act, weight=weight)

    def block(index: int, wide: int, outputs: int, stride: int, dilation: int) -> int:
        filtered = convolution(index, [wide, 1, 3, 3], "relu6", stride, dilation)
        return convolution(filtered, [outputs, wide, 1, 1], None)

    last = block(convolution(0, [32, 3, 3, 3], "relu6", 2), 32, 16, 1, 1)
    channels = 16
    widths = [24] * 2 + [32] * 3 + [64] * 4 + [96] * 3 + [160] * 3 + [320]
    for number, outputs in enumerate(widths, start=1):
        expanded = convolution(last, [6 * channels, channels, 1, 1], "relu6")
        result = block(expanded, 6 * channels, outputs, 2 if number in {1, 3, 6} else 1, 2 if number >= 14 else 1)
        last = add("ADD", result, last) if outputs == channels else result
        channels = outputs
    small = [-(-height // 16), -(-width // 16)]
    pooled = add("AVERAGE_POOL_2D", last)
    local = convolution(last, [256, 320, 1, 1], "relu")
    pooled = convolution(pooled, [256, 320, 1, 1], "relu")
    pooled = add("RESIZE_BILINEAR", pooled, size=small, align_corners=True)
    both = add("CONCATENATION", add("QUANTIZE", pooled), local)
    logits = convolution(convolution(both, [256, 512, 1, 1], "relu"), [classes, 256, 1, 1], None)
    for size in (small, [height, width]):
        logits = add("RESIZE_BILINEAR", logits, size=size, align_corners=True)
    add("ARG_MAX", logits)
    return operators


def random_weights(operators: list[Operator], seed: int = 0) -> dict[str, np.ndarray]:
    """Draw weights under which activations keep their size and both ends of ReLU6 are met."""
    rng = np.random.default_rng(seed)
    weights = {}
    for operator in operators:
        if shape := operator.get("weight"):
            spread = np.sqrt(2 / np.prod(shape[1:]))
            weights[f"{operator['k']:02d}.weight"] = rng.normal(0, spread, shape).astype(np.float32)
            weights[f"{operator['k']:02d}.bias"] = rng.normal(0.5, 0.5, shape[0]).astype(np.float32)
    return weights


def write(folder: Path, stem: str, operators: list[Operator], weights: dict[str, np.ndarray]) -> tuple[Path, Path]:
    """Write the two files that describe a network."""
    arrays, listing = folder / f"{stem}_float.npz", folder / f"{stem}_layers.json"
    np.savez(arrays, **weights)
    listing.write_text(json.dumps(operators), encoding="utf-8")
    return arrays, listing
