"""Maps of methods that do not amplify rounding, for processes that may use other instructions of the processor."""

from __future__ import annotations

import json

import torch
from oracles.toys import Convolutional

import misure
from misure.models.wrapper import SegmentationModel


def numbers() -> dict[str, list[float]]:
    """Scaled saliency in float32, by method."""
    model = SegmentationModel(Convolutional(), bottleneck="bottleneck")
    image = torch.randn(1, 13, 17, generator=torch.Generator().manual_seed(0))
    target = int(model(image[None]).argmax(1).flatten().mode().values) or 1
    maps = {}
    for method in ("prediction", "seg_grad_cam", "rise", "occlusion"):
        parameters = {"n_masks": 6} if method == "rise" else {}
        saliency = misure.explain(model, image, target, method, precision="32", **parameters).saliency
        maps[method] = (saliency / saliency.abs().max()).flatten().tolist()
    return maps


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([torch.backends.cpu.get_cpu_capability(), numbers()]))
