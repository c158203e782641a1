"""HiResCAM (Draelos and Carin 2020) and Seg-XRes-CAM (Hasany, Petitjean and Meriaudeau, CVPR Workshops 2023)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn.functional import avg_pool2d, avg_pool3d, max_pool2d, max_pool3d

from misure.explainers.cam import GradientCAM
from misure.validation import Count

_POOLING: dict[tuple[str, int], Callable[..., Tensor]] = {
    ("max", 2): max_pool2d,
    ("max", 3): max_pool3d,
    ("mean", 2): avg_pool2d,
    ("mean", 3): avg_pool3d,
}


@dataclass(frozen=True, kw_only=True)
class HiResCAM(GradientCAM):
    r"""Activations of a layer times the gradient at the same position, so that it matters where both lie.

    .. math:: \mathrm{ReLU}\left(\sum_k \mathrm{Up}\left(\mathrm{Pool}\left(
        \frac{\partial \sum_{ij \in region} y^l_{ij}}{\partial A^k}\right)\right) \odot A^k\right)

    upsampled linearly along each axis to the image. ``pool=1`` is HiResCAM with a segmentation's target;
    a larger window is Seg-XRes-CAM (its equation 5), and one as large as the layer with ``pool_mode="mean"``
    is Seg-Grad-CAM. Windows do not overlap, begin at the first pixel and are cut at the last; every position
    takes its own window's value, as in the authors' code (github.com/Nouman97/Seg_XRes_CAM) where the window
    divides the layer's size.

    Reference:
        Draelos and Carin, Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks,
        2020, https://arxiv.org/abs/2011.08891
        Hasany, Petitjean and Mériaudeau, Seg-XRes-CAM: Explaining Spatially Local Regions in Image Segmentation, CVPR
        Workshops 2023, https://openaccess.thecvf.com/content/CVPR2023W/XAI4CV/html/
        Hasany_Seg-XRes-CAM_Explaining_Spatially_Local_Regions_in_Image_Segmentation_CVPRW_2023_paper.html

    Attributes:
        layer: Dotted name; None means the model's bottleneck.
        pool: Side of the gradient's pooling window, in positions of the layer.
        pool_mode: ``"max"`` (the authors' default; of the signed gradient) or ``"mean"``.

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=HiResCAM(layer="1"))
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (1.0, 1.0)
    """

    name: ClassVar[str] = "hires_cam"
    title: ClassVar[str] = "HiResCAM / Seg-XRes-CAM"

    pool: Count = 1
    pool_mode: Literal["max", "mean"] = "max"

    def weights(self, gradient: Tensor) -> Tensor:
        """Return the gradient, each window of it replaced by its largest or mean value."""
        size = gradient.shape[2:]
        window = [min(self.pool, length) for length in size]
        pooled = _POOLING[self.pool_mode, len(size)](gradient, window, window, ceil_mode=True)
        for axis, (side, length) in enumerate(zip(window, size, strict=True), start=2):
            pooled = pooled.repeat_interleave(side, axis).narrow(axis, 0, length)
        return pooled
