"""What a network that was loaded has to give: a layer for CAM methods, and explanations by each kind of method."""

from __future__ import annotations

import torch

import misure

METHODS = {
    "msr": {"n_iterations": 2, "mask_size": 8},
    "rise": {"n_masks": 4, "grid": 3},
    "seg_grad_cam": {},
}


def explained(model: misure.SegmentationModel, image: torch.Tensor) -> list[misure.Explanation]:
    """Explain the class that is predicted most often by a method of each kind: gradients of pixels, none, a layer."""
    with torch.no_grad():
        logits = model(image[None])[0]
    present = (logits > 0).flatten(1).sum(1) if model.multi_label else logits.argmax(0).flatten().bincount()
    model.bottleneck = model.suggest_bottleneck(image)
    found = [
        misure.explain(model, image, int(present.argmax()), method, precision="32", **parameters)
        for method, parameters in METHODS.items()
    ]
    for explanation in found:
        assert explanation.saliency.shape == image.shape[1:]
        assert explanation.saliency.isfinite().all()
        # of random weights a class activation map may be 0: all is cut off that speaks against the class
        assert explanation.saliency.max() > 0 or explanation.method == "seg_grad_cam"
    return found
