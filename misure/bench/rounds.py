"""One round of the benchmark: a few images explained by one version after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from misure.bench.arithmetic import WorkOfPasses
from misure.bench.memory import peak_memory
from misure.bench.peers import OneImage
from misure.bench.same_result import pearson
from misure.explainers.base import Explainer, SaliencyMaps
from misure.metrics import Evaluation, evaluate, min_max
from misure.models.compute import Compute, now
from misure.models.wrapper import SegmentationModel, frozen
from misure.target import Target, TargetBatch

_SHORT = {"n_iterations": 2, "n_masks": 8, "n_steps": 2}
"""Parameters of a run that only warms up."""


@dataclass(frozen=True)
class Version:
    """Who explains, how, and in which precision.

    Attributes:
        contestant: Its name.
        precision: ``"32"`` or ``"bf16"``.
        explainer: Our explainer, or the parameters that another version takes from one.
        by: Another's function; None means ours.
    """

    contestant: str
    precision: str
    explainer: Explainer
    by: OneImage | None = None

    def run(self, number: int) -> Version:
        """Return the version with the random numbers of one of its runs."""
        return replace(self, explainer=replace(self.explainer, seed=self.explainer.seed + number))

    @property
    def short(self) -> Version:
        """The version with as little work as lets libraries choose their kernels."""
        fewer: dict[str, Any] = {name: few for name, few in _SHORT.items() if name in self.explainer.parameter_names()}
        return replace(self, explainer=replace(self.explainer, **fewer))


@dataclass(frozen=True)
class Timed:
    """Maps of a round's images and what they cost.

    Attributes:
        maps: Of all images.
        seconds: Per image.
        peak_bytes: Peak memory above the start, see :func:`misure.bench.memory.peak_memory`.
    """

    maps: SaliencyMaps
    seconds: Sequence[float]
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Round:
    """A few images that all versions explain in turn."""

    model: SegmentationModel
    images: Tensor
    targets: Sequence[Target]
    batch_size: int | str

    def warm_up(self, versions: Sequence[Version]) -> None:
        """Let libraries choose their kernels before anything is timed."""
        first = replace(self, images=self.images[:1], targets=self.targets[:1])
        for version in versions:
            first.run(version.short)

    def timed(self, version: Version) -> Timed:
        """Explain the round's images and measure it."""
        with peak_memory(self.images.device) as peak:
            timed = self.run(version)
        return replace(timed, peak_bytes=peak.bytes)

    def run(self, version: Version) -> Timed:
        """Explain the round's images; memory is not measured."""
        return self._ours(version) if version.by is None else self._one_by_one(version.by, version.explainer)

    def _one_by_one(self, explain: OneImage, explainer: Explainer) -> Timed:
        done, seconds = [], []
        for image, target in zip(self.images, self.targets, strict=True):
            started = now(image.device)
            done.append(explain(self.model, image, target, explainer))
            seconds.append(now(image.device) - started)
        regions = [m.sufficient_region for m in done if m.sufficient_region is not None]
        dilations = [m.n_dilations for m in done if m.n_dilations is not None]
        maps = SaliencyMaps(
            torch.stack([m.saliency for m in done]),
            torch.stack(regions) if regions else None,
            torch.tensor(dilations) if dilations else None,
        )
        return Timed(maps, seconds)

    def _ours(self, version: Version) -> Timed:
        n_images, device = len(self.images), self.images.device
        started = now(device)
        with frozen(self.model, Compute(version.precision, self.batch_size), device) as network:
            maps = version.explainer.saliency_maps(network, self.images, TargetBatch.stack(self.targets, device))
        return Timed(maps, [(now(device) - started) / n_images] * n_images)

    def rows(self, version: Version, timed: Timed, beside: Timed, work: WorkOfPasses) -> list[dict[str, Any]]:
        """Measure a version's maps in float32 and compare them with others of the same images.

        Returns:
            A row per image.
        """
        return [
            {
                "contestant": version.contestant,
                "precision": version.precision,
                "seconds": timed.seconds[i],
                "masks": getattr(version.explainer, "n_masks", None),
                "dice_explained": evaluation.dice_explained,
                "perturbation_ratio": evaluation.perturbation_ratio,
                "n_dilations": (n_dilations := timed.maps.of_image(i)["n_dilations"]),
                "correlation": pearson(timed.maps.saliency[i], beside.maps.saliency[i]),
                "flops": work.of(version.explainer, n_dilations),
                "peak_bytes": timed.peak_bytes,
            }
            for i, evaluation in enumerate(self._evaluations(version.explainer.thresholds, timed.maps))
        ]

    def _evaluations(self, thresholds: Sequence[float], maps: SaliencyMaps) -> list[Evaluation]:
        masks = (min_max(maps.saliency) > thresholds[0]).float() if thresholds else maps.saliency
        device = self.images.device
        with frozen(self.model, Compute("32", self.batch_size), device) as network:
            batch = TargetBatch.stack(self.targets, device)
            masks = masks.to(self.images.dtype)
            return evaluate(network, self.images, batch, masks, threshold=None, support=maps.sufficient_region)
