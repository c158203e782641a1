"""Seg-Grad-CAM by ``grad-cam`` (pytorch_grad_cam), as its tutorial on semantic segmentation shows.

The tutorial's wrapper returns the logits as a tensor, and its ``SemanticSegmentationTarget`` sums the class's logits
over the region. The map comes back min-max scaled.
"""

from __future__ import annotations

import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
from torch import Tensor

from misure.bench.literal import LiteralMap
from misure.bench.peers.logits import Logits
from misure.explainers.seg_grad_cam import SegGradCAM
from misure.models.wrapper import SegmentationModel
from misure.target import Target


def explain(model: SegmentationModel, image: Tensor, target: Target, cam: SegGradCAM) -> LiteralMap:
    """Explain one image (C x H x W)."""
    region = target.region.cpu().numpy().astype("float32")
    targets = [SemanticSegmentationTarget(target.class_id, region)]
    with GradCAM(Logits(model), [model.layer(cam.layer)], reshape_transform=model.reshape) as method:
        cams = method(input_tensor=image[None], targets=targets)
    return LiteralMap(torch.from_numpy(cams[0]).to(image))
