"""One turn of the benchmark: a few images explained by one version after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from misure.bench.literal import LiteralMap
from misure.compute import Compute
from misure.explainers.base import Explainer
from misure.metrics import evaluate, min_max
from misure.model import SegmentationModel, frozen
from misure.target import Target, TargetBatch

LITERAL = "literal"
OURS = "misure"


@dataclass(frozen=True)
class Contest:
    """One method: the explainer, its literal version for one image, and a short version to warm up with."""

    explainer: Explainer
    literal: Callable[[Tensor, Target], LiteralMap]
    warm_up: Explainer


@dataclass(frozen=True)
class Maps:
    """Maps of a round's images and what they cost."""

    saliency: Tensor
    regions: Tensor | None
    n_dilations: Sequence[int | None]
    seconds: Sequence[float]
    gpu_bytes: int | None


@dataclass(frozen=True)
class Round:
    """A few images that both versions explain in turn."""

    model: SegmentationModel
    contest: Contest
    images: Tensor
    targets: Sequence[Target]
    batch_size: int | str

    def warm_up(self, versions: Sequence[tuple[str, str]]) -> None:
        """Let libraries choose their kernels before anything is timed."""
        with torch.no_grad():
            self.model(self.images[:1])
        for version, precision in versions:
            if version == OURS:
                self._ours(self.contest.warm_up, precision)

    def maps(self, version: str, precision: str) -> Maps:
        """Explain the round's images and measure it."""
        cuda = self.images.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.images.device)
        maps = self._literal() if version == LITERAL else self._ours(self.contest.explainer, precision)
        return replace(maps, gpu_bytes=torch.cuda.max_memory_allocated(self.images.device)) if cuda else maps

    def _literal(self) -> Maps:
        done, seconds = [], []
        for image, target in zip(self.images, self.targets, strict=True):
            started = _now(image.device)
            done.append(self.contest.literal(image, target))
            seconds.append(_now(image.device) - started)
        regions = [m.sufficient_region for m in done if m.sufficient_region is not None]
        return Maps(
            torch.stack([m.saliency for m in done]),
            torch.stack(regions) if regions else None,
            [m.n_dilations for m in done],
            seconds,
            None,
        )

    def _ours(self, explainer: Explainer, precision: str) -> Maps:
        n_images, device = len(self.images), self.images.device
        started = _now(device)
        with frozen(self.model, Compute(precision, self.batch_size), device) as network:
            maps = explainer.saliency_maps(network, self.images, TargetBatch.stack(self.targets, device))
        seconds = (_now(device) - started) / n_images
        dilations = [None] * n_images if maps.n_dilations is None else maps.n_dilations.tolist()
        return Maps(maps.saliency, maps.sufficient_region, dilations, [seconds] * n_images, None)

    def rows(self, method: str, start: int, maps: dict[tuple[str, str], Maps]) -> list[dict[str, Any]]:
        """Measure all maps in float32 and compare them with the literal ones."""
        literal = maps[LITERAL, "32"]
        thresholds = self.contest.explainer.thresholds
        rows = []
        for (version, precision), found in maps.items():
            masks = (min_max(found.saliency) > thresholds[0]).float() if thresholds else found.saliency
            with frozen(self.model, Compute("32", self.batch_size), self.images.device) as network:
                batch = TargetBatch.stack(self.targets, self.images.device)
                evaluations = evaluate(
                    network, self.images, batch, masks.to(self.images.dtype), threshold=None, support=found.regions
                )
            for i, evaluation in enumerate(evaluations):
                rows.append(
                    {
                        "method": method,
                        "version": version,
                        "precision": precision,
                        "image": start + i,
                        "seconds": found.seconds[i],
                        "times_faster": literal.seconds[i] / found.seconds[i],
                        "dice_explained": evaluation.dice_explained,
                        "perturbation_ratio": evaluation.perturbation_ratio,
                        "n_dilations": found.n_dilations[i],
                        **_agreement(found.saliency[i], literal.saliency[i]),
                        "gpu_bytes": found.gpu_bytes,
                    }
                )
        return rows


def _agreement(ours: Tensor, literal: Tensor) -> dict[str, float]:
    """Pearson's correlation, largest difference after min-max scaling and IoU of the non-zero pixels."""
    pair = torch.stack([ours.double(), literal.double()])
    scaled = min_max(pair)
    first, second = pair != 0
    union = int((first | second).sum())
    constant = bool((pair.flatten(1).amax(1) == pair.flatten(1).amin(1)).any())
    return {
        "correlation": float("nan") if constant else float(torch.corrcoef(pair.flatten(1))[0, 1]),
        "scaled_difference": float((scaled[0] - scaled[1]).abs().max()),
        "support_iou": int((first & second).sum()) / union if union else 1.0,
    }


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
