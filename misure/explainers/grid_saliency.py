"""Grid saliency (Hoyer et al. 2019): perturbation saliency of an object on a coarse grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from misure.explainers.mask_optimisation import MaskProblem, OptimisedMask
from misure.models.wrapper import FrozenNetwork
from misure.regions import resized
from misure.target import TargetBatch
from misure.validation import Count, Share


@dataclass(frozen=True, kw_only=True)
class GridSaliency(OptimisedMask):
    r"""The smallest coarse mask that keeps the class's probability on the object.

    .. math::
        \lambda \, \mathrm{mean}(M) + \frac{1}{|R|} \sum_{u \in R} \max(0, f_l(X)(u) - f_l(X \odot M)(u))

    R is the explained region and f_l the probability of its class: only what the mask loses there counts, not what
    appears elsewhere. Lambda weighs the mean of the mask, so that it means the same on every grid, and Adam takes
    the place of gradient descent.

    Reference:
        Hoyer et al., Grid Saliency for Context Explanations of Semantic Segmentation, NeurIPS 2019,
        https://arxiv.org/abs/1907.13054

    Attributes:
        start: Mask value before the first step.
        context: Leave the object itself visible whatever the mask, so that the map shows which context it needs
            (the paper's context explanation). The map is 1 on the object.

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=GridSaliency())
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (1.0, 1.0)
    """

    name: ClassVar[str] = "grid_saliency"
    title: ClassVar[str] = "Grid saliency"

    grid: Count = 16
    start: Share = 0.5
    context: bool = False

    def problem(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> MaskProblem:
        """Say what is minimised for a batch."""
        size = images.shape[2:]
        requested = targets.regions.flatten(1).to(images.dtype)
        usual = targets.references[:, 1].flatten(1)

        def seen(mask: Tensor, _iteration: int) -> Tensor:
            whole = resized(mask, size)
            return whole.masked_fill(targets.regions, 1) if self.context else whole

        def loss(logits: Tensor, mask: Tensor, _seen: Tensor, _iteration: int) -> Tensor:
            now = targets.probabilities(logits)[:, 1].flatten(1)
            lost = (requested * (usual - now).clamp(min=0)).sum(1) / requested.sum(1)
            return self.lam * mask.flatten(1).mean(1) + lost

        start = images.new_full((len(images), *(self.grid,) * len(size)), self.start)
        return MaskProblem(images, self.fill.baseline(network, images), start, seen, loss)
