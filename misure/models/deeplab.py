"""Builders of the DeepLabV3 networks (paper 4.1, COCO): ResNet-50, and MobileNetV2 as its substitute."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3

from misure.models.deeplab_mobilenet import IMAGENET_MEAN, IMAGENET_STD, DeepLabV3MobileNetV2

_RESNET50 = (3, 4, 6, 3)
_BACKBONE_CHANNELS = 2048


def build_deeplab_resnet50(
    classes: int,
    *,
    blocks: Sequence[int] = _RESNET50,
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
    classes: int,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    input_size: int | None = 513,
) -> nn.Module:
    """Build DeepLabV3 on MobileNetV2; see :class:`misure.models.deeplab_mobilenet.DeepLabV3MobileNetV2`."""
    return DeepLabV3MobileNetV2(classes, mean=mean, std=std, input_size=input_size)
