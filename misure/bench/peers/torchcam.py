"""Seg-Grad-CAM by ``torchcam``: its Grad-CAM with the class's logits, summed over the region, as the output to explain.

Its map has the layer's size and is min-max scaled; it is upsampled bilinearly here, which it leaves to its user.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate
from torchcam.methods import GradCAM

from misure.bench.literal import LiteralMap
from misure.bench.peers.logits import Logits
from misure.explainers.seg_grad_cam import SegGradCAM
from misure.models.wrapper import SegmentationModel
from misure.target import Target


def explain(model: SegmentationModel, image: Tensor, target: Target, cam: SegGradCAM) -> LiteralMap:
    """Explain one image (C x H x W)."""

    def score(logits: Tensor) -> Tensor:
        return (logits[target.class_id] * target.region).sum()

    network = Logits(model)
    with GradCAM(network, model.layer(cam.layer), reshape_transform=model.reshape) as method:
        (saliency,) = method(scores=network(image[None]), targets=score)
    return LiteralMap(interpolate(saliency[None], size=image.shape[1:], mode="bilinear", align_corners=False)[0, 0])
