"""DeepLabV3 with a MobileNetV2 backbone: the substitute for ResNet-50 where only its weights are at hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_STEM_CHANNELS = 32
_STAGES = (  # expansion, output channels, stride of the first block, dilation of each block (one entry a block)
    (1, 16, 1, (1,)),
    (6, 24, 2, (1, 1)),
    (6, 32, 2, (1, 1, 1)),
    (6, 64, 2, (1, 1, 1, 1)),
    (6, 96, 1, (1, 1, 1)),
    (6, 160, 1, (1, 2, 2)),
    (6, 320, 1, (2,)),
)
_FEATURES = 256


class SamePadding(nn.Module):
    """TensorFlow's ``SAME``: where the padding is odd, the larger half goes below and to the right."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, features: Tensor) -> Tensor:
        """Pad N x C x H x W with zeros so that the output has ceil(H / stride) rows."""
        rows, columns = (self._halves(side) for side in features.shape[2:])
        return pad(features, (*columns, *rows))

    def _halves(self, side: int) -> tuple[int, int]:
        outputs = -(-side // self.stride)
        total = max((outputs - 1) * self.stride + self.kernel - side, 0)
        return total // 2, total - total // 2


def convolution(
    inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, dilation: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return a convolution with ``SAME`` padding; batch normalisation is folded into its weights and bias."""
    if stride == 1:
        around = dilation * (kernel - 1) // 2
        return [nn.Conv2d(inputs, outputs, kernel, 1, around, dilation, groups)]
    return [SamePadding(kernel, stride), nn.Conv2d(inputs, outputs, kernel, stride, groups=groups)]


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; the input is added where the shape allows it."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, stride: int, dilation: int) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = [*convolution(inputs, inner), nn.ReLU6()] if expansion > 1 else []
        filtered = convolution(inner, inner, kernel=3, stride=stride, dilation=dilation, groups=inner)
        self.layers = nn.Sequential(*expand, *filtered, nn.ReLU6(), *convolution(inner, outputs))
        self.adds_input = inputs == outputs and stride == 1

    def forward(self, features: Tensor) -> Tensor:
        """Map N x inputs x H x W to N x outputs x H / stride x W / stride."""
        result: Tensor = self.layers(features)
        return features + result if self.adds_input else result


class PoolingPyramid(nn.Module):
    """The small atrous spatial pyramid pooling of the mobile DeepLab: a 1 x 1 branch and the image's mean."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.local = nn.Sequential(*convolution(inputs, _FEATURES), nn.ReLU(inplace=True))
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), *convolution(inputs, _FEATURES), nn.ReLU(inplace=True))
        self.project = nn.Sequential(*convolution(2 * _FEATURES, _FEATURES), nn.ReLU(inplace=True))

    def forward(self, features: Tensor) -> Tensor:
        """Map N x inputs x H x W to N x 256 x H x W."""
        local = self.local(features)
        projected: Tensor = self.project(torch.cat([self.pooled(features).expand_as(local), local], 1))
        return projected


class DeepLabV3MobileNetV2(nn.Module):
    """DeepLabV3 (Chen et al. 2017) on MobileNetV2 (Sandler et al. 2018), output stride 16, 21 VOC classes.

    Args:
        classes: Number of logits per pixel.
        mean: Per-channel mean that was subtracted from images in [0, 1]; undone inside, as the network was
            trained on ``2 * x - 1``.
        std: Per-channel divisor applied after that.
        input_size: Images of any size are resized to this square inside (it was trained at 513); None takes
            them at their own size.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        classes: int = 21,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        input_size: int | None = 513,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.register_buffer("scale", 2 * torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", 2 * torch.tensor(mean).view(1, -1, 1, 1) - 1, persistent=False)
        self.backbone = nn.Sequential(*convolution(3, _STEM_CHANNELS, kernel=3, stride=2), nn.ReLU6(), *_blocks())
        self.aspp = PoolingPyramid(_STAGES[-1][1])
        self.classifier = nn.Sequential(*convolution(_FEATURES, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits N x classes x H x W for images N x 3 x H x W."""
        features = images * self.scale + self.shift
        if self.input_size is not None:
            features = interpolate(features, size=(self.input_size,) * 2, mode="bilinear", align_corners=False)
        logits = self.classifier(self.aspp(self.backbone(features)))
        return interpolate(logits, size=images.shape[2:], mode="bilinear", align_corners=True)


def _blocks() -> Iterator[InvertedResidual]:
    inputs = _STEM_CHANNELS
    for expansion, outputs, stride, dilations in _STAGES:
        for place, dilation in enumerate(dilations):
            yield InvertedResidual(
                inputs, outputs, expansion=expansion, stride=1 if place else stride, dilation=dilation
            )
            inputs = outputs
