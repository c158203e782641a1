"""SmoothGrad (Smilkov et al. 2017), through Captum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from misure.explainers.captum_base import CaptumExplainer, Score, in_batches
from misure.models.wrapper import FrozenNetwork
from misure.validation import Count, Weight


@dataclass(frozen=True, kw_only=True)
class SmoothGrad(CaptumExplainer):
    """The mean gradient over noisy copies of the image, its magnitudes summed over channels.

    The score is the sum of the class's logits over the target. Gradients keep their sign until they are
    averaged, as the authors do; Captum's saliency on its own would average magnitudes. Captum draws the noise
    from torch's global generator, so it is seeded for each image anew, and on the CPU: noise depends on
    ``seed`` and the image's shape alone, and the user's random state comes back.

    Reference:
        Smilkov et al., SmoothGrad: removing noise by adding noise, 2017, https://arxiv.org/abs/1706.03825

    Attributes:
        n_samples: Noisy copies.
        noise: Standard deviation of the noise, as a share of the image's largest minus smallest value.

    Example:
        >>> explanation = misure.explain(network, image, target=1, method=SmoothGrad(n_samples=5))
        >>> explanation.dice_explained, explanation.perturbation_ratio
        (1.0, 1.0)
    """

    name: ClassVar[str] = "smooth_grad"
    title: ClassVar[str] = "SmoothGrad"

    n_samples: Count = 50
    noise: Weight = 0.15

    @property
    def passes(self) -> tuple[int, int]:
        """One gradient per noisy copy."""
        return (0, self.n_samples)

    def values_held(self, image: Tensor) -> Mapping[str, int]:
        """All noisy copies, their noise and their gradients."""
        return {"n_samples": 4 * self.n_samples * image.numel()}

    def attributions(self, captum: Any, network: FrozenNetwork, image: Tensor, score: Score) -> Tensor:
        """Return the map of one image: >= 0, not scaled."""
        method = captum.NoiseTunnel(in_batches(captum.Saliency(score), network, image))
        deviation = self.noise * float(image.max() - image.min())
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            mean: Tensor = method.attribute(image.cpu(), nt_samples=self.n_samples, stdevs=deviation, abs=False)
        return mean.abs().sum(1)
