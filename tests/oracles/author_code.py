"""Stage 2 as the authors' later code has it, one image at a time, with the loss of segmentation_models_pytorch."""

from __future__ import annotations

import torch
from segmentation_models_pytorch.losses import DiceLoss
from torch import Tensor, nn
from torch.nn.functional import interpolate

from misure.explainers import MSR


def explain(network: nn.Module, image: Tensor, class_id: int, sufficient: Tensor, s: MSR) -> tuple[Tensor, list[float]]:
    """Return the mask that the last pass saw (H x W) and the loss of every iteration.

    Args:
        network: In evaluation mode.
        image: C x H x W.
        class_id: What is explained, not 0.
        sufficient: H x W, stage 1's region.
        s: Learning rate, lambda, mask size and number of iterations; nothing else is looked at.
    """
    predicted = network(image[None]).argmax(1)
    target = class_id * (predicted == class_id)  # every other object becomes background
    foreground, everything = DiceLoss("multiclass", ignore_index=0), DiceLoss("multiclass")
    shown = image * sufficient
    start = torch.where(target[0] == class_id, 1.0, 0.5).to(image.dtype) * (shown[0] > 0)
    mask = interpolate(start[None, None], (s.mask_size, s.mask_size), mode="nearest").requires_grad_()
    optimiser = torch.optim.AdamW([mask], lr=s.lr)
    losses = []
    for iteration in range(s.n_iterations):
        large = interpolate(mask, image.shape[1:], mode="bilinear", align_corners=False)
        scores = network(shown * large).softmax(1)  # the losses take them for logits and apply softmax once more
        loss = s.lam * large.abs().mean() + foreground(scores, target) + everything(scores, target)
        (mask.grad,) = torch.autograd.grad(loss, mask)
        optimiser.step()
        losses.append(loss.item())
        with torch.no_grad():
            mask.clamp_(0, 1)
            if iteration > 10:
                mask[mask < 0.2] = 0
    return large[0, 0].detach(), losses
