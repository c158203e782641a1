"""RISE by ``xaitk-saliency``: its RISEStack with the Dice score as the only "class" of a black-box classifier.

It gets the image as H x W x C float32 in the network's input space, as many masks, cells and kept cells as ours, and no
debiasing, which the RISE of the paper does not have either. Its random numbers are its own and its masks have smooth
edges, so its map resembles ours only as far as both are near the limit of many masks. Masked images arrive one by one,
as in the classifiers of its examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from smqtk_classifier.interfaces.classify_image import ClassifyImage
from torch import Tensor
from xaitk_saliency.impls.gen_image_classifier_blackbox_sal.rise import RISEStack

from misure.bench.literal import LiteralMap, literal_dice, literal_prediction
from misure.explainers.rise import RISE
from misure.models.wrapper import SegmentationModel
from misure.target import Target

_LABEL = "dice"


def explain(model: SegmentationModel, image: Tensor, target: Target, rise: RISE) -> LiteralMap:
    """Explain one image (C x H x W)."""
    method = RISEStack(n=rise.n_masks, s=rise.grid, p1=rise.keep_probability, seed=rise.seed, debiased=False)
    maps = method(image.permute(1, 2, 0).cpu().numpy(), DiceScore(model, image, target))
    return LiteralMap(torch.from_numpy(maps[0]).to(image))


class DiceScore(ClassifyImage):
    """The Dice of a masked image's prediction with the target, as a classifier's confidence."""

    def __init__(self, model: SegmentationModel, image: Tensor, target: Target) -> None:
        self.model = model
        self.like = image
        self.target = target

    def get_labels(self) -> list[str]:
        """Return the one label."""
        return [_LABEL]

    @torch.no_grad()
    def classify_images(self, img_iter: Iterable[np.ndarray]) -> Iterator[dict[str, float]]:
        """Yield the score of each masked image, H x W x C."""
        for pixels in img_iter:
            x = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self.like)
            yield {_LABEL: literal_dice(literal_prediction(self.model, x, self.target), self.target.region)}

    def get_config(self) -> dict[str, object]:
        """Return nothing: a network is no configuration."""
        return {}
