"""Winograd F(4 x 4, 3 x 3) for large 3 x 3 convolutions in float32 on a CPU (Lavin and Gray, CVPR 2016).

Direct convolutions already run near the processor's peak; this needs a quarter of their
multiplications, as 36 matrix products, and agrees with them to about 1e-5 of the largest output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)  # fmt: skip
_FILTER = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64
)
_INPUT_2D, _OUTPUT_2D = torch.kron(_INPUT, _INPUT), torch.kron(_OUTPUT, _OUTPUT)

_DIRECT = "_conv_forward"
"""The method of ``nn.Conv2d`` that computes, without hooks."""

_MIN_CHANNELS = 128
"""With fewer, moving the tiles costs what the products save."""

_MIN_SIDE = 8
"""On smaller maps most of a tile is padding and the 36 weight matrices cost more to read."""

_PAYS_AFTER = 5000
"""Pixels of a convolution's outputs, over all its calls, whose savings repay its transformed weights: both grow with
the product of its channels; measured between 1500 and 6200 for 128 to 1024 channels on maps of 14 to 56 pixels."""

_BLOCK_BYTES = (1 << 20, 1 << 23)
"""Tiles are worked on in blocks as large as the weights, so that both are read about equally often, within this range:
smaller blocks waste the products' speed, larger ones leave the cache."""


def pays_off(device: torch.device) -> bool:
    """Say whether this device gains: measured so on CPUs with AVX2 but without AVX-512."""
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"


def transform_weight(weight: Tensor) -> Tensor:
    """Turn weights O x C x 3 x 3 into 36 x C x O."""
    filters = _FILTER.to(weight.dtype)
    return torch.einsum("ai,ocij,bj->abco", filters, weight, filters).flatten(0, 1).contiguous()


def convolve(x: Tensor, weights: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve N x C x H x W with transformed weights, stride 1, zero padding 1; the result is channels-last."""
    n, channels, height, width = x.shape
    down, right, filters = -(-height // 4), -(-width // 4), weights.shape[2]
    to_tiles, from_tiles = _INPUT_2D.to(x.dtype), _OUTPUT_2D.to(x.dtype)
    padded = pad(x.permute(0, 2, 3, 1), (0, 0, 1, 4 * right - width + 1, 1, 4 * down - height + 1))
    result = torch.empty((n, filters, 4 * down, 4 * right), dtype=x.dtype, memory_format=torch.channels_last)
    target = result.permute(0, 2, 3, 1)
    for images, rows in _blocks(n, down, 36 * right * max(channels, filters), weights.numel(), x.element_size()):
        lines = slice(4 * rows.start, 4 * rows.stop + 2)
        windows = padded[images, lines].unfold(1, 6, 4).unfold(2, 6, 4)
        tiles = to_tiles @ windows.permute(4, 5, 0, 1, 2, 3).reshape(36, -1)
        products = torch.bmm(tiles.view(36, -1, channels), weights)
        n_images = windows.shape[0]
        block = (from_tiles @ products.view(36, -1)).view(4, 4, n_images, -1, right, filters).permute(2, 3, 0, 4, 1, 5)
        place = target[images, 4 * rows.start : 4 * rows.stop].view(n_images, -1, 4, right, 4, filters)
        place.copy_(block) if bias is None else torch.add(block, bias, out=place)
    if result.shape[2:] == x.shape[2:]:
        return result
    return result[:, :, :height, :width].clone(memory_format=torch.channels_last)


def _blocks(n: int, down: int, row_values: int, weight_values: int, value_bytes: int) -> Iterator[tuple[slice, slice]]:
    """Cut n images of ``down`` rows of tiles into (images, rows): whole images if several fit, else rows of one."""
    smallest, largest = _BLOCK_BYTES
    values = min(max(weight_values * value_bytes, smallest), largest) // value_bytes
    images = max(1, min(n, values // (row_values * down)))
    rows = max(1, min(down, values // row_values))
    for first in range(0, n, images):
        for top in range(0, down, rows):
            yield slice(first, min(first + images, n)), slice(top, min(top + rows, down))


class Convolution(torch.autograd.Function):
    """A convolution whose gradient to the input is the convolution with the flipped, transposed weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, lent: LentConvolution) -> Tensor:
        """Convolve with the lent weights."""
        ctx.lent = lent
        return convolve(x, lent.weights(backward=False), lent.module.bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Convolve the gradient with the flipped, transposed weights."""
        return convolve(gradient, ctx.lent.weights(backward=True)), None


class LentConvolution:
    """A convolution's stand-in for ``_conv_forward``; transformed weights are made once enough passes need them."""

    def __init__(self, module: nn.Conv2d) -> None:
        self.module = module
        self.direct: Callable[[Tensor, Tensor, Tensor | None], Tensor] = getattr(module, _DIRECT)
        self._weights: dict[bool, Tensor] = {}
        self._pixels = 0

    def weights(self, *, backward: bool) -> Tensor:
        """Return the transformed weights of one direction."""
        if backward not in self._weights:
            weight = self.module.weight.detach()
            self._weights[backward] = transform_weight(weight.flip(2, 3).transpose(0, 1) if backward else weight)
        return self._weights[backward]

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve, directly where Winograd's algorithm brings nothing."""
        if x.ndim != 4 or x.dtype != torch.float32 or min(x.shape[2:]) < _MIN_SIDE or torch.is_autocast_enabled("cpu"):
            return self.direct(x, weight, bias)
        self._pixels += x.shape[0] * x.shape[2] * x.shape[3]
        if self._pixels < _PAYS_AFTER:
            return self.direct(x, weight, bias)
        result: Tensor = Convolution.apply(x, self)
        return result


@contextmanager
def winograd(module: nn.Module) -> Iterator[None]:
    """Let a network's large 3 x 3 convolutions use Winograd's algorithm; weights get no gradients.

    The transformed weights take four times the memory of those convolutions' weights, twice that with
    gradients, and are made when their convolution has done ``_PAYS_AFTER`` pixels.
    """
    lent = [m for m in module.modules() if isinstance(m, nn.Conv2d) and _suits(m)]
    for convolution in lent:
        setattr(convolution, _DIRECT, LentConvolution(convolution))
    try:
        yield
    finally:
        for convolution in lent:
            delattr(convolution, _DIRECT)


def _suits(module: nn.Conv2d) -> bool:
    return (
        type(module) is nn.Conv2d
        and isinstance(module.weight, nn.Parameter)
        and module.weight.device.type == "cpu"
        and module.weight.dtype == torch.float32
        and (module.kernel_size, module.stride, module.dilation) == ((3, 3), (1, 1), (1, 1))
        and (module.padding, module.padding_mode, module.groups) == ((1, 1), "zeros", 1)
        and min(module.in_channels, module.out_channels) >= _MIN_CHANNELS
    )
