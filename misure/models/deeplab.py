"""DeepLabV3 (paper 4.1, COCO) on ResNet-50, and on MobileNetV2 as its substitute where only its weights are at hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3

from misure.validation import Count, Side, Whole

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_RESNET50 = (3, 4, 6, 3)
_BACKBONE_CHANNELS = 2048

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


def build_deeplab_resnet50(
    classes: Count, *, blocks: Sequence[Annotated[int, Whole(1, 1000)]] = _RESNET50
) -> nn.Module:
    """Build torchvision's DeepLabV3 on a ResNet of bottleneck blocks, output stride 8.

    The auxiliary head, which only training uses and which costs 6 % of a forward pass, is left out.

    Args:
        classes: Number of logits per pixel.
        blocks: Bottleneck blocks of the four stages; (3, 4, 6, 3) is ResNet-50.

    Returns:
        The network; its output is a dict with ``out``.
    """
    backbone = ResNet(Bottleneck, list(blocks), replace_stride_with_dilation=[False, True, True])
    features = IntermediateLayerGetter(backbone, return_layers={"layer4": "out"})
    network: nn.Module = DeepLabV3(features, DeepLabHead(_BACKBONE_CHANNELS, classes))
    return network


def build_deeplab_mobilenetv2(
    classes: Count,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    input_size: Side | None = 513,
) -> nn.Module:
    """Build DeepLabV3 on MobileNetV2; see :class:`DeepLabV3MobileNetV2`."""
    return DeepLabV3MobileNetV2(classes, mean=mean, std=std, input_size=input_size)


class StridedConvolution(nn.Conv2d):
    """A convolution with TensorFlow's ``SAME`` padding: where it is odd, the larger half is below and to the right."""

    def forward(self, features: Tensor) -> Tensor:
        """Map N x C x H x W to N x outputs x ceil(H / stride) x ceil(W / stride)."""
        totals = [self._total(axis, side) for axis, side in enumerate(features.shape[2:])]
        if any(total % 2 for total in totals):  # copying large maps costs as much as filtering them
            features = pad(features, (0, totals[1] % 2, 0, totals[0] % 2))
        around = [total // 2 for total in totals]
        return conv2d(features, self.weight, self.bias, self.stride, around, groups=self.groups)

    def _total(self, axis: int, side: int) -> int:
        stride = self.stride[axis]
        outputs = -(-side // stride)
        return max((outputs - 1) * stride + self.kernel_size[axis] - side, 0)


class DepthwiseConvolution(nn.Conv2d):
    """A depthwise convolution that keeps the size, and whose gradient to the input is such a convolution as well.

    PyTorch's own gradient has no fast kernel for dilation on a CPU: 960 channels of 33 x 33 took it 13 ms, this 1 ms.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Filter each channel of N x C x H x W; weights that are trained take PyTorch's way."""
        if any(parameter.requires_grad for parameter in self.parameters()):
            return super().forward(features)
        filtered: Tensor = _Mirrored.apply(features, self)
        return filtered


class _Mirrored(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, layer: DepthwiseConvolution) -> Tensor:
        ctx.layer = layer
        return conv2d(features, layer.weight, layer.bias, 1, layer.padding, layer.dilation, layer.groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        layer = ctx.layer
        mirrored = layer.weight.flip(2, 3).to(gradient.dtype)
        return conv2d(gradient, mirrored, None, 1, layer.padding, layer.dilation, layer.groups), None


def convolution(
    inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, dilation: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return a convolution with ``SAME`` padding; batch normalisation is folded into its weights and bias."""
    if stride > 1:
        numbered = nn.Identity()  # checkpoints number the layers as if padding were one
        return [numbered, StridedConvolution(inputs, outputs, kernel, stride, groups=groups)]
    kind = DepthwiseConvolution if groups > 1 else nn.Conv2d
    return [kind(inputs, outputs, kernel, 1, dilation * (kernel - 1) // 2, dilation, groups)]


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; the input is added where the shape allows it."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, stride: int, dilation: int) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = [*convolution(inputs, inner), nn.ReLU6(inplace=True)] if expansion > 1 else []
        filtered = convolution(inner, inner, kernel=3, stride=stride, dilation=dilation, groups=inner)
        self.layers = nn.Sequential(*expand, *filtered, nn.ReLU6(inplace=True), *convolution(inner, outputs))
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
        # Kept with the weights, whose hash is the network's identity: another size or scale is another network.
        self.register_buffer("input_side", torch.tensor(input_size or 0))
        self.register_buffer("scale", 2 * torch.tensor(std).view(1, -1, 1, 1))
        self.register_buffer("shift", 2 * torch.tensor(mean).view(1, -1, 1, 1) - 1)
        self.backbone = nn.Sequential(
            *convolution(3, _STEM_CHANNELS, kernel=3, stride=2), nn.ReLU6(inplace=True), *_blocks()
        )
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
