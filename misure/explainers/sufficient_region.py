"""Stage 1 of MiSuRe: dilate the predicted object until it suffices (paper 3.1, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv3d

from misure.errors import MisureError
from misure.explainers.base import Explainer, SaliencyMaps
from misure.metrics import Blanking, dice, keep
from misure.models.wrapper import FrozenNetwork
from misure.target import TargetBatch
from misure.validation import Count, Weight

RADIUS = 3
"""How far one dilation reaches in the paper's algorithm, in pixels."""

Footprint = Literal["ellipse", "disk"]

_TYPICAL_DILATIONS = 4


def footprint(
    rank: int, radius: int = RADIUS, shape: Footprint = "ellipse", device: torch.device | None = None
) -> Tensor:
    """Return what one dilation adds around a pixel.

    At a radius of 3, OpenCV's ellipse has 33 pixels of a square of 7 x 7. The disk is what is at most a radius away,
    as in scikit-image: the ellipse without the two ends of each row beside the middle one, 29 pixels. Volumes have one
    shape, the ball of what is at most a radius away: 123 voxels.

    Args:
        rank: 2 or 3 axes.
        radius: At least 1.
        shape: Of two axes.
        device: Where it is put.

    Returns:
        bool, 2 * radius + 1 along every axis.
    """
    offsets = torch.arange(-radius, radius + 1, device=device)
    if rank == 2 and shape == "ellipse":
        halves = (radius**2 - offsets**2).float().sqrt().round()  # OpenCV rounds halves to even, as here
        return offsets.abs()[None] <= halves[:, None]
    along_axes = torch.meshgrid([offsets] * rank, indexing="ij")
    return torch.stack(along_axes).square().sum(0) <= radius**2


def dilate(masks: Tensor, radius: int = RADIUS, shape: Footprint = "ellipse") -> Tensor:
    """Dilate boolean masks once, see :func:`footprint`.

    Args:
        masks: bool, N x H x W or N x D x H x W.
        radius: How far it reaches, in pixels.
        shape: Of the footprint.

    Returns:
        bool, of the same shape; a pixel is set where the footprint centred on it meets the mask.
    """
    kernel = footprint(masks.ndim - 1, radius, shape, masks.device).float()[None, None]
    convolve = conv2d if masks.ndim == 3 else conv3d
    counts = convolve(masks[:, None].float(), kernel, padding=radius)
    return counts[:, 0] > 0.5  # counts are whole numbers


@torch.no_grad()
def find_sufficient_region(
    network: FrozenNetwork,
    images: Tensor,
    targets: TargetBatch,
    *,
    tau: float,
    blanking: Blanking,
    grow: Callable[[Tensor], Tensor] = dilate,
) -> tuple[Tensor, Tensor]:
    """Dilate each object until the Dice with its reference prediction exceeds ``tau``.

    The next few dilations are tried in one batch. The result is the sequential one: the first step that exceeds
    ``tau``. Masked images, and the numbers in which masks are dilated, exist only for one batch at a time.

    Args:
        network: The frozen network.
        images: N x C x H x W or N x C x D x H x W.
        targets: What is explained.
        tau: Stop above this Dice, 0 <= tau < 1.
        blanking: What switched-off pixels become.
        grow: Dilates masks once.

    Returns:
        The masks M_SR (bool, N x H x W) and the number of dilations (int64, N).

    Raises:
        MisureError: If not even the whole image exceeds ``tau``: the network does not predict there what it
            predicted for the target.
    """
    masks = targets.regions.clone()
    n_dilations = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    pending = torch.arange(len(images), device=images.device)
    batches = network.batches(images[0])
    outside = blanking.of_dilation
    n_steps, tried = 1, 0
    while len(pending):
        steps = _dilations(masks[pending], n_steps, batches.size, grow)
        enough = _dice_of_steps(network, images, targets, pending=pending, steps=steps, blanking=outside) > tau
        done = enough.any(1)
        if bool((~done & steps[:, -1].flatten(1).all(1)).any()):
            raise MisureError(
                f"the whole image gives a Dice of at most {tau} with the target's prediction: the network is not "
                "deterministic in evaluation mode or mixes the images of a batch, or the target was made on another "
                "network or at another precision: make it anew"
            )
        first = torch.where(done, enough.int().argmax(1), n_steps - 1)
        masks[pending] = steps[torch.arange(len(pending), device=images.device), first]
        n_dilations[pending] += first
        pending = pending[~done]
        masks[pending] = _dilate_in_parts(masks[pending], batches.size, grow)
        n_dilations[pending] += 1
        tried += n_steps
        network.tell("dilating", tried, masks=masks)
        # Tries at most as many steps as were needed so far, so that little is tried in vain.
        n_steps = max(1, min(2 * n_steps, batches.size // max(1, len(pending))))
    return masks, n_dilations


def _dilate_in_parts(masks: Tensor, size: int, grow: Callable[[Tensor], Tensor]) -> Tensor:
    parts = [grow(masks[start : start + size]) for start in range(0, len(masks), size)]
    return torch.cat(parts) if parts else masks


def _dilations(masks: Tensor, n_steps: int, size: int, grow: Callable[[Tensor], Tensor]) -> Tensor:
    """Return each mask (N x H x W) after 0, 1, ... n_steps - 1 dilations: N x n_steps x H x W."""
    steps = [masks]
    while len(steps) < n_steps:
        steps.append(_dilate_in_parts(steps[-1], size, grow))
    return torch.stack(steps, 1)


def _dice_of_steps(
    network: FrozenNetwork, images: Tensor, targets: TargetBatch, *, pending: Tensor, steps: Tensor, blanking: Blanking
) -> Tensor:
    """Score masks of the pending images (P x n_steps x H x W) by the Dice that they preserve: P x n_steps."""
    n_steps = steps.shape[1]
    flat = steps.flatten(0, 1)

    def work(part: slice) -> Tensor:
        image = pending[torch.arange(part.start, part.stop, device=images.device) // n_steps]
        x, batch = images[image], targets[image]
        hits = batch.hits(network(keep(x, flat[part], blanking.baseline(network, x))))
        return dice(hits, batch.regions)

    return network.map(work, len(flat), images[0]).view(-1, n_steps)


@dataclass(frozen=True, kw_only=True)
class SufficientRegion(Explainer):
    """Stage 1 alone, as an explanation of its own (X_SR of paper 3.1).

    Reference:
        Hasany, Mériaudeau and Petitjean, MiSuRe is all you need to explain your image segmentation, 2024, section 3.1,
        Algorithm 1, https://arxiv.org/abs/2406.12173

    Attributes:
        tau: Dice that has to be exceeded.
        dilation_radius: How far one dilation reaches, in pixels; 3 is the ellipse of 7 x 7 pixels of the algorithm,
            which suits images of 224 pixels.
        footprint: ``"ellipse"``, OpenCV's, which the authors' later code has, or ``"disk"``, see :func:`footprint`.

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=SufficientRegion())
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (1.0, 1.0)
    """

    name: ClassVar[str] = "sufficient_region"
    title: ClassVar[str] = "SR"
    in_pixels: ClassVar[tuple[str, ...]] = ("blur_sigma", "dilation_radius")

    tau: Weight = 0.9
    dilation_radius: Count = RADIUS
    footprint: Footprint = "ellipse"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tau >= 1:
            raise MisureError(f"tau={self.tau} can never be exceeded: choose a value below 1")

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass per dilation; a handful is typical."""
        return (_TYPICAL_DILATIONS, 0)

    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return the masks M_SR as maps of zeros and ones."""
        masks, n_dilations = self.sufficient_regions(network, images, targets)
        return SaliencyMaps(masks.to(images.dtype), masks, n_dilations)

    def sufficient_regions(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> tuple[Tensor, Tensor]:
        """Run stage 1, or take it from an explanation before, by :meth:`misure.models.wrapper.FrozenNetwork.recalled`.

        Returns:
            The masks M_SR (bool, N x spatial) and the numbers of dilations (int64, N).
        """
        own = (self.tau, self.dilation_radius, self.footprint, self.fill.of_dilation)
        settings = (type(self).search, *own, targets.class_ids)
        inputs = (images, targets.regions, targets.counted)
        return network.recalled(lambda: self.search(network, images, targets), inputs, settings)

    def dilate(self, masks: Tensor) -> Tensor:
        """Dilate boolean masks (N x spatial) once."""
        return dilate(masks, self.dilation_radius, self.footprint)

    def search(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> tuple[Tensor, Tensor]:
        """Find the regions, see :func:`find_sufficient_region`."""
        return find_sufficient_region(network, images, targets, tau=self.tau, blanking=self.fill, grow=self.dilate)
