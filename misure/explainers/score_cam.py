"""Score-CAM (Wang et al., CVPR Workshops 2020) with the Dice as score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from misure.explainers.activations import activations, summed_scores
from misure.explainers.base import SaliencyMaps
from misure.explainers.cam import TYPICAL_CHANNELS, LayerExplainer
from misure.metrics import dice, keep, min_max
from misure.models.wrapper import FrozenNetwork
from misure.regions import resized
from misure.target import TargetBatch


@dataclass(frozen=True, kw_only=True)
class ScoreCAM(LayerExplainer):
    r"""Activations of a layer, weighted by how well each serves as a mask of the image.

    .. math:: \mathrm{ReLU}\left(\sum_k w_k A^k\right)

    upsampled linearly along each axis to the image. Channel k's mask is its activationd and min-max
    scaled; what it switches off becomes the blanking. A channel that is constant shows no place: it gets
    weight 0 and no pass, as in the authors' code.

    Attributes:
        layer: Dotted name; None means the model's bottleneck.
        score: What a channel's weight is on the masked image. ``"dice"``: the Dice of the prediction with the
            target, as in RISE, a reading for segmentation. ``"logit"``: the softmax over channels of the class's
            mean logit over the target, the original's reading (its baseline score cancels in the softmax).
    """

    name: ClassVar[str] = "score_cam"
    title: ClassVar[str] = "Score-CAM"

    score: Literal["dice", "logit"] = "dice"

    @property
    def passes(self) -> tuple[int, int]:
        """One forward pass for the activations and one per channel that is not constant.

        Only the network knows how many channels its layer has; a typical number is given.
        """
        return (1 + TYPICAL_CHANNELS, 0)

    @torch.no_grad()
    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Return maps >= 0 that are not scaled; memory holds one image's activations and a batch of masks."""
        maps = [self._map(network, images[i : i + 1], targets[i : i + 1]) for i in range(len(images))]
        return SaliencyMaps(torch.cat(maps))

    def _map(self, network: FrozenNetwork, image: Tensor, target: TargetBatch) -> Tensor:
        features = activations(network, image, self.layer)[0]
        flat = features.flatten(1)
        varying = (flat.amax(1) > flat.amin(1)).nonzero()[:, 0]
        baseline = self.fill.baseline(network, image)

        def work(part: slice) -> Tensor:
            masks = min_max(resized(features[varying[part]], image.shape[2:]))
            many = target[torch.zeros_like(varying[part])]
            logits = network(keep(image, masks, baseline))
            if self.score == "dice":
                return dice(many.hits(logits), many.regions)
            return summed_scores(logits, many) / many.regions.flatten(1).sum(1)

        weights = flat.new_zeros(0, dtype=torch.float64)
        if len(varying):
            weights = network.map(work, len(varying), image[0], stage="masking")
        if self.score == "logit":
            weights = weights.softmax(0)
        shape = (-1, *(1,) * (features.ndim - 1))
        cam = (weights.to(features.dtype).view(shape) * features[varying]).sum(0, keepdim=True)
        return resized(cam.relu(), image.shape[2:])
