"""Dice, Dice explained and the perturbation ratio (paper 3.4), batched. Sizes H x W may be D x H x W throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from misure.models.wrapper import FrozenNetwork
from misure.target import TargetBatch
from misure.validation import AtLeast, check_fields

BlankingKind = Literal["zero", "black", "mean", "blur", "author_code"]


@dataclass(frozen=True)
class Blanking:
    """The baseline: what a switched-off pixel becomes. The paper zeroes the network's input (footnote 2).

    Attributes:
        kind: ``"zero"`` in the network's input space (the paper), ``"black"`` before normalisation,
            ``"mean"`` colour of the image, or a Gaussian ``"blur"`` of it. ``"author_code"`` mixes two as the
            authors' public code does: stage 1 dilates on black, everything else zeroes the normalised input.
        sigma: Standard deviation of the blur, in pixels.
    """

    kind: BlankingKind = "zero"
    sigma: Annotated[float, AtLeast(0.1)] = 10.0

    def __post_init__(self) -> None:
        check_fields(self, {"kind": "blanking"})

    @property
    def of_dilation(self) -> Blanking:
        """The baseline outside the dilated object in stage 1."""
        return Blanking("black", self.sigma) if self.kind == "author_code" else self

    def baseline(self, network: FrozenNetwork, images: Tensor) -> Tensor | None:
        """Return what replaces switched-off pixels, broadcastable to the images; None means zero."""
        if self.kind in {"zero", "author_code"}:
            return None
        if self.kind == "mean":
            return images.mean(dim=tuple(range(2, images.ndim)), keepdim=True)
        if self.kind == "black":
            mean, std = (images.new_tensor(v) for v in (network.model.mean, network.model.std))
            return (-mean / std).view(1, -1, *(1,) * (images.ndim - 2))
        return _blur(images, self.sigma)


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Blur N x C x spatial along each spatial axis, mirrored at the ends; a short axis gets a short kernel."""
    for axis in range(2, images.ndim):
        radius = min(int(3 * sigma), (images.shape[axis] - 1) // 2)
        offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
        kernel = (-0.5 * (offsets / sigma) ** 2).exp()
        lines = images.movedim(axis, -1)
        rows = pad(lines.reshape(-1, 1, lines.shape[-1]), [radius, radius], mode="reflect")
        images = conv1d(rows, (kernel / kernel.sum())[None, None]).view(lines.shape).movedim(-1, axis)
    return images.contiguous()


def keep(images: Tensor, mask: Tensor, baseline: Tensor | None = None) -> Tensor:
    """Switch pixels off: ``X * M``, or ``X * M + baseline * (1 - M)``.

    Args:
        images: N x C x H x W.
        mask: N x H x W in [0, 1], or bool.
        baseline: Broadcastable to the images; None means zero.
    """
    mask = mask[:, None].to(images.dtype)
    return images * mask if baseline is None else images * mask + baseline * (1 - mask)


def dice(first: Tensor, second: Tensor) -> Tensor:
    """Dice score of boolean maps, N x H x W each; two empty maps score 1.

    Returns:
        float64, N, in [0, 1].
    """
    axes = tuple(range(1, first.ndim))
    overlap = (first & second).sum(axes)
    total = first.sum(axes) + second.sum(axes)
    return torch.where(total == 0, 1.0, 2.0 * overlap.double() / total.clamp(min=1))


def perturbation_ratio(maps: Tensor, regions: Tensor) -> Tensor:
    """Non-zero pixels of the map over pixels of the object (paper 3.4).

    Args:
        maps: N x H x W, any sign.
        regions: bool, N x H x W, none empty.

    Returns:
        float64, N, >= 0; lower means that less of the image was kept.
    """
    axes = tuple(range(1, maps.ndim))
    return (maps != 0).sum(axes).double() / regions.sum(axes)


def min_max(maps: Tensor) -> Tensor:
    """Scale each map to [0, 1]; a map that is zero everywhere stays zero, another constant becomes one, NaN stays."""
    axes = tuple(range(1, maps.ndim))
    low, high = maps.amin(axes, keepdim=True), maps.amax(axes, keepdim=True)
    flat = (high != 0).to(maps.dtype) + 0 * high  # NaN stays what it is
    return torch.where(high > low, (maps - low) / (high - low), flat)


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one map at one threshold.

    Attributes:
        threshold: On the map min-max scaled per image; None where the map itself is the mask, scaled if it is none.
        dice_explained: Dice of the prediction on the masked image with the reference, 0..1, higher is better.
        perturbation_ratio: Non-zero pixels of the mask over pixels of the object, lower is better: the paper's formula
            to the letter. A mask coarser than the image (``mask_size``) is interpolated, and what that leaves outside
            the sufficient region counts here, though the network never sees those pixels.
        region_ratio: The same, counting only pixels where the masked image differs from its blanked self; none outside
            the sufficient region.
        binary_dice_explained: Dice explained when every non-zero mask value is set to one.
    """

    threshold: float | None
    dice_explained: float
    perturbation_ratio: float
    region_ratio: float
    binary_dice_explained: float


@torch.no_grad()
def evaluate(
    network: FrozenNetwork,
    images: Tensor,
    targets: TargetBatch,
    masks: Tensor,
    *,
    threshold: float | None,
    support: Tensor | None = None,
    blanking: Blanking | None = None,
) -> list[Evaluation]:
    """Measure masks on the network they explain.

    Args:
        network: The frozen network.
        images: N x C x H x W.
        targets: The same targets the explainer had.
        masks: N x H x W in [0, 1].
        threshold: The threshold the masks came from, for the record.
        support: bool, N x H x W; what the image was restricted to beforehand (X_SR), or None.
        blanking: What replaces switched-off pixels.

    Returns:
        One evaluation per image.
    """
    blanking = blanking or Blanking()
    allowed = torch.ones_like(masks, dtype=torch.bool) if support is None else support

    def work(part: slice) -> Tensor:
        x, batch, mask, inside = images[part], targets[part], masks[part], allowed[part]
        baseline = blanking.baseline(network, x)
        soft = keep(x, mask * inside, baseline)
        explained = dice(batch.hits(network(soft)), batch.regions)
        binary = (mask != 0) & inside
        same = bool((mask == binary).all())
        binary_explained = explained if same else dice(batch.hits(network(keep(x, binary, baseline))), batch.regions)
        differs = (x != (0 if baseline is None else baseline)).any(1)
        region_ratio = perturbation_ratio(binary & differs, batch.regions)
        return torch.stack([explained, perturbation_ratio(mask, batch.regions), region_ratio, binary_explained], 1)

    return [Evaluation(threshold, *row) for row in network.map(work, len(images), images[0]).tolist()]
