"""One round of the benchmark: a few images explained by one version after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from misure.bench.memory import peak_memory
from misure.bench.peers import OneImage
from misure.explainers.base import Explainer, SaliencyMaps
from misure.metrics import Evaluation, evaluate, min_max
from misure.models.compute import Compute, now
from misure.models.wrapper import SegmentationModel, frozen
from misure.target import Target, TargetBatch

LITERAL = "literal"
OURS = "misure"

Version = tuple[str, str]
"""Who explains, and in which precision."""


@dataclass(frozen=True)
class Contest:
    """One method: the explainer, the others that make its map, and short parameters to warm up with."""

    explainer: Explainer
    contestants: Mapping[str, OneImage]
    warm_up: Explainer


@dataclass(frozen=True)
class Timed:
    """Maps of a round's images and what they cost.

    Attributes:
        maps: Of all images.
        seconds: Per image.
        peak_bytes: Peak memory of the turn above its start, see :func:`misure.bench.memory.peak_memory`.
    """

    maps: SaliencyMaps
    seconds: Sequence[float]
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Round:
    """A few images that all versions explain in turn."""

    model: SegmentationModel
    contest: Contest
    images: Tensor
    targets: Sequence[Target]
    batch_size: int | str

    def warm_up(self, versions: Sequence[Version]) -> None:
        """Let libraries choose their kernels before anything is timed."""
        short = replace(self, images=self.images[:1], targets=self.targets[:1])
        for version in versions:
            short.run(version, self.contest.warm_up)

    def maps(self, version: Version) -> Timed:
        """Explain the round's images and measure it."""
        with peak_memory(self.images.device) as peak:
            timed = self.run(version, self.contest.explainer)
        return replace(timed, peak_bytes=peak.bytes)

    def run(self, version: Version, explainer: Explainer) -> Timed:
        """Explain the round's images."""
        name, precision = version
        return self._ours(explainer, precision) if name == OURS else self._one_by_one(name, explainer)

    def _one_by_one(self, name: str, explainer: Explainer) -> Timed:
        explain = self.contest.contestants[name]
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

    def _ours(self, explainer: Explainer, precision: str) -> Timed:
        n_images, device = len(self.images), self.images.device
        started = now(device)
        with frozen(self.model, Compute(precision, self.batch_size), device) as network:
            maps = explainer.saliency_maps(network, self.images, TargetBatch.stack(self.targets, device))
        return Timed(maps, [(now(device) - started) / n_images] * n_images)

    def rows(self, method: str, start: int, turns: Mapping[Version, Timed]) -> list[dict[str, Any]]:
        """Measure all maps in float32 and compare ours, in every precision, with each contestant's."""
        columns = {version: self._columns(timed) for version, timed in turns.items()}
        return [
            {
                "method": method,
                "contestant": name,
                "precision": precision,
                "image": start + i,
                "times_faster": theirs.seconds[i] / ours.seconds[i],
                **columns[name, "32"][i],
                **{f"misure_{key}": value for key, value in columns[OURS, precision][i].items()},
                **_agreement(ours.maps.saliency[i], theirs.maps.saliency[i]),
            }
            for (name, _), theirs in turns.items()
            if name != OURS
            for (version, precision), ours in turns.items()
            if version == OURS
            for i in range(len(self.images))
        ]

    def _columns(self, timed: Timed) -> list[dict[str, Any]]:
        """One version's part of the rows, image by image."""
        return [
            {
                "seconds": timed.seconds[i],
                "dice_explained": evaluation.dice_explained,
                "perturbation_ratio": evaluation.perturbation_ratio,
                "n_dilations": timed.maps.of_image(i)["n_dilations"],
                "peak_bytes": timed.peak_bytes,
            }
            for i, evaluation in enumerate(self._evaluations(timed.maps))
        ]

    def _evaluations(self, maps: SaliencyMaps) -> list[Evaluation]:
        thresholds = self.contest.explainer.thresholds
        masks = (min_max(maps.saliency) > thresholds[0]).float() if thresholds else maps.saliency
        device = self.images.device
        with frozen(self.model, Compute("32", self.batch_size), device) as network:
            batch = TargetBatch.stack(self.targets, device)
            masks = masks.to(self.images.dtype)
            return evaluate(network, self.images, batch, masks, threshold=None, support=maps.sufficient_region)


def _agreement(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """Pearson's correlation, largest difference after min-max scaling and IoU of the non-zero pixels."""
    pair = torch.stack([ours.double(), theirs.double()])
    scaled = min_max(pair)
    first, second = pair != 0
    union = int((first | second).sum())
    constant = bool((pair.flatten(1).amax(1) == pair.flatten(1).amin(1)).any())
    return {
        "correlation": float("nan") if constant else float(torch.corrcoef(pair.flatten(1))[0, 1]),
        "scaled_difference": float((scaled[0] - scaled[1]).abs().max()),
        "support_iou": int((first & second).sum()) / union if union else 1.0,
    }
