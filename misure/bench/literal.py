"""The methods as one would write them first, to measure the explainers against.

What is naive here, on purpose: one image and one mask at a time; float32 and contiguous memory; the
parameters keep ``requires_grad``; the footprint is applied by shifting the mask 33 times; hooks and
``backward()`` fill the gradients of all parameters in Seg-Grad-CAM. What is not: RISE runs under
``no_grad`` and MSR asks for the gradient of its mask alone, as careful authors do; computing the
gradients of all weights as well would make MSR about half as slow again and the comparison too easy.
Nothing is shared with the explainers but their parameters and RISE's numbered masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from misure.explainers.msr import MSR
from misure.explainers.rise import RISE
from misure.explainers.seg_grad_cam import SegGradCAM
from misure.models.wrapper import SegmentationModel
from misure.target import Target

_DICE_EPSILON = 1e-7


@dataclass(frozen=True)
class LiteralMap:
    """Result for one image.

    Attributes:
        saliency: H x W.
        sufficient_region: bool, H x W, of MSR.
        n_dilations: Dilations of MSR's first stage.
    """

    saliency: Tensor
    sufficient_region: Tensor | None = None
    n_dilations: int | None = None


def literal_msr(model: SegmentationModel, image: Tensor, target: Target, msr: MSR) -> LiteralMap:
    """Both stages of MiSuRe for one image, as the paper reads.

    Args:
        model: In evaluation mode.
        image: C x H x W.
        target: What is explained.
        msr: Has the numbers; of its keys that the paper leaves open, none is looked at.
    """
    x = image[None]
    size = x.shape[2:]
    counted = ~target.ignored
    region = target.region.clone()
    n_dilations = 0
    with torch.no_grad():
        while literal_dice(literal_prediction(model, x * region, target), target.region) <= msr.tau:
            region = _dilate(region, msr.dilation_radius)
            n_dilations += 1

    sufficient = x * region
    mask = interpolate(region[None, None].to(x.dtype), size=(msr.mask_size, msr.mask_size), mode="nearest")
    mask = mask.clone().requires_grad_()
    optimiser = torch.optim.AdamW([mask], lr=msr.lr, weight_decay=msr.weight_decay)
    terms = [(msr.alpha_foreground, target.class_id, target.region.to(x.dtype))]
    if target.class_id != 0:
        terms.append((msr.alpha_background, 0, target.background.to(x.dtype)))
    for _ in range(msr.n_iterations):
        upsampled = interpolate(mask, size=size, mode="bilinear", align_corners=False)
        probabilities = model(sufficient * upsampled, unperturbed=False).softmax(1)[0]
        loss = msr.lam * upsampled.abs().mean() + 1
        for alpha, class_id, reference in terms:
            probability = probabilities[class_id] * counted
            overlap = (probability * reference).sum()
            loss = loss - alpha * (2 * overlap + _DICE_EPSILON) / (probability.sum() + reference.sum() + _DICE_EPSILON)
        (mask.grad,) = torch.autograd.grad(loss, mask)
        optimiser.step()
        with torch.no_grad():
            mask.clamp_(0, 1)
            mask[mask < msr.clamp_low] = 0
    saliency = interpolate(mask.detach(), size=size, mode="bilinear", align_corners=False)[0, 0]
    return LiteralMap(saliency, region, n_dilations)


@torch.no_grad()
def literal_rise(model: SegmentationModel, image: Tensor, target: Target, rise: RISE) -> LiteralMap:
    """RISE for one image, mask by mask: the loop of the original recipe, with our masks and the Dice as score.

    Args:
        model: In evaluation mode.
        image: C x H x W.
        target: What is explained.
        rise: Makes the masks and says how many.
    """
    total = torch.zeros_like(image[0])
    for number in range(rise.n_masks):
        mask = rise.masks(torch.tensor([number], device=image.device), image.shape[1:])[0]
        score = literal_dice(literal_prediction(model, (image * mask)[None], target), target.region)
        total += score * mask
    return LiteralMap(total / (rise.n_masks * rise.keep_probability))


def literal_seg_grad_cam(model: SegmentationModel, image: Tensor, target: Target, cam: SegGradCAM) -> LiteralMap:
    """Seg-Grad-CAM for one image, with a hook and ``backward()``.

    Args:
        model: In evaluation mode; its parameters' gradients are added to.
        image: C x H x W.
        target: What is explained.
        cam: Names the layer.
    """
    activations: list[Tensor] = []

    def store(_module: Any, _inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        activations.append(output)

    handle = model.layer(cam.layer).register_forward_hook(store)
    logits = model(image[None])
    handle.remove()
    torch.autograd.backward((logits[0, target.class_id] * target.region).sum())
    activation, gradient = activations[0].detach(), activations[0].grad
    assert gradient is not None  # noqa: S101 - backward() has filled it
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    raw = (weights * activation).sum(1, keepdim=True).relu()
    return LiteralMap(interpolate(raw, size=image.shape[1:], mode="bilinear", align_corners=False)[0, 0])


def literal_prediction(model: SegmentationModel, x: Tensor, target: Target) -> Tensor:
    """Say where one image (1 x C x H x W) is predicted as the target's class: bool, H x W."""
    return (model(x, unperturbed=False).argmax(1)[0] == target.class_id) & ~target.ignored


def literal_dice(first: Tensor, second: Tensor) -> float:
    """Dice of two boolean maps, 0..1."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def _dilate(mask: Tensor, radius: int) -> Tensor:
    """Set every pixel whose elliptical neighbourhood (33 pixels at a radius of 3) meets the mask (bool, H x W)."""
    height, width = mask.shape
    padded = pad(mask, (radius, radius, radius, radius))
    dilated = torch.zeros_like(mask)
    for down in range(-radius, radius + 1):
        reach = round((radius**2 - down**2) ** 0.5)
        for right in range(-reach, reach + 1):
            top, left = radius + down, radius + right
            dilated |= padded[top : top + height, left : left + width]
    return dilated
