"""Integrated Gradients (Sundararajan, Taly and Yan, ICML 2017), through Captum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from misure.explainers.captum_base import CaptumExplainer, Score, in_batches
from misure.models.wrapper import FrozenNetwork
from misure.validation import Count


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(CaptumExplainer):
    """The image minus its blanking, times the mean gradient on the straight way between them, summed over channels.

    The score is the sum of the class's logits over the target. Signed values add up to the score of the image
    minus that of its blanking.

    Reference:
        Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, ICML 2017, section 3,
        https://arxiv.org/abs/1703.01365

    Attributes:
        n_steps: Points on the way.
        rule: Captum's ``method`` of approximating the integral.
        sign: ``"positive"`` cuts the sums below zero, as the authors' pictures do, so that a min-max scaled
            map begins at "no evidence"; ``"absolute"`` takes magnitudes; ``"signed"`` leaves the sums as they are,
            and then the thresholds of an evaluation count from the most negative pixel.

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=IntegratedGradients())
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (1.0, 1.0)
    """

    name: ClassVar[str] = "integrated_gradients"
    title: ClassVar[str] = "Integrated Gradients"

    n_steps: Count = 50
    rule: Literal["gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"] = (
        "gausslegendre"
    )
    sign: Literal["positive", "absolute", "signed"] = "positive"

    @property
    def passes(self) -> tuple[int, int]:
        """One gradient per step."""
        return (0, self.n_steps)

    def values_held(self, image: Tensor) -> Mapping[str, int]:
        """All points on the way with their gradients, and the matrix whose eigenvalues are Gauss's points."""
        return {"n_steps": 4 * self.n_steps * image.numel() + 4 * self.n_steps**2 * (self.rule == "gausslegendre")}

    def attributions(self, captum: Any, network: FrozenNetwork, image: Tensor, score: Score) -> Tensor:
        """Return the map of one image: >= 0 unless signed, not scaled."""
        fill = self.fill.baseline(network, image)
        baseline = torch.zeros_like(image) if fill is None else fill.expand_as(image)
        method = in_batches(captum.IntegratedGradients(score), network, image)
        maps: Tensor = method.attribute(image, baseline, n_steps=self.n_steps, method=self.rule).sum(1)
        if self.sign == "signed":
            return maps
        return maps.abs() if self.sign == "absolute" else maps.relu()
