"""Number of masks that RISE needs: correlation with a long reference, for each kind of masks and control variate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import exp, isnan, log
from pathlib import Path
from statistics import fmean
from typing import Literal

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor

from misure.bench.measurement import Page, PredictedSamples, document, frame_table, measured_page
from misure.bench.rise_scores import ScoredMasks, all_masks, score
from misure.bench.same_result import masks_to, pearson
from misure.config import build, compute_of
from misure.errors import MisureError
from misure.explainers.rise import RISE
from misure.metrics import evaluate, min_max
from misure.models.compute import Compute
from misure.models.wrapper import frozen
from misure.paper.published import DASH
from misure.sweep.experiment import Experiment
from misure.target import TargetBatch

ControlVariate = Literal["mean", "regression"] | None

ESTIMATORS: dict[str, tuple[str, ControlVariate]] = {
    "plain": ("plain", None),
    "plain, mean": ("plain", "mean"),
    "plain, regression": ("plain", "regression"),
    "antithetic, regression": ("antithetic", "regression"),
    "stratified pairs, regression": ("stratified pairs", "regression"),
}
"""Kinds of masks and control variate of the maps that are compared."""

WANTED = (0.9, 0.95, 0.99)
"""Correlations with the reference."""

SIZES = (100, 200, 300, 400, 500, 700, 1000, 1500, 2000, 3000, 4000, 6000, 8000)
"""Numbers of masks whose maps are compared."""

_MOST_RUNS = 4
"""Maps of disjoint masks, at most, whose correlations are averaged."""


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """What is measured.

    Attributes:
        n_reference: Masks of the reference map, a multiple of 100 as the others.
        n_plain: Plain masks.
        n_coupled: Masks of each coupled kind.
        n_plain_paper: Plain masks whose thresholded map is shown beside the recommended one's.
        max_minutes: After which no more masks are scored; what is there is compared. A later call goes on.
    """

    n_reference: int = 20_000
    n_plain: int = 8_000
    n_coupled: int = 3_000
    max_minutes: float = 10_000
    n_plain_paper: int = 2_000

    @property
    def n_masks(self) -> dict[str, int]:
        """Masks for one image by kind."""
        coupled = dict.fromkeys(("antithetic", "stratified pairs"), self.n_coupled)
        return {"reference": self.n_reference, "plain": self.n_plain, **coupled}


def count_rise_masks(cfg: DictConfig) -> str:
    """Measure ``rise_masks.images`` objects.

    Returns:
        The page, which is also written to ``bench/rise_masks-<dataset>-<model>.md`` in the outputs folder, its numbers
        to the ``.csv`` beside it; the scores are kept in ``bench/rise_scores``.

    Raises:
        MisureError: If the explainer has no masks to count, or nothing is predicted.
    """
    explainer = Experiment.of(cfg).explainer
    if not isinstance(explainer, RISE):
        raise MisureError(f"explainer={explainer.name} has no masks to count: pass explainer=rise")
    convergence: Convergence = build(cfg.rise_masks.measure)
    compute = compute_of(cfg)

    def measure(samples: PredictedSamples) -> Page:
        folder = Path(cfg.outputs) / "bench" / "rise_scores"
        runs = all_masks(samples, explainer, convergence.n_masks, compute, folder)
        score(samples, runs, compute, convergence.max_minutes)
        images = list(by_image(runs))
        if not images:
            raise MisureError(f"no masks are scored in {folder}: give rise_masks.measure.max_minutes some time")
        size = samples.images.shape[2:]
        reached = pd.concat(correlations(of_image, size) for of_image in images)
        cut = pd.concat(
            thresholds(of_image, samples, compute, (convergence.n_plain_paper, RISE().n_masks)) for of_image in images
        )
        parts = [frame_table(needed(reached)), frame_table(cut), frame_table(scored(runs))]
        title = f"Masks of RISE: {cfg.model.title} on {cfg.dataset.title}"
        return Page(f"rise_masks-{samples.setup.name}", document(title, [*samples.notes, *NOTES], *parts), reached)

    passes = cfg.rise_masks.images * sum(convergence.n_masks.values())
    what = f"counting masks: {passes} passes"
    return measured_page(cfg, what, cfg.rise_masks.images, measure, lambda pace: passes * pace.forward)


NOTES = (
    "Reference: stratified pairs of another seed with regression, the last table says how many.",
    "Masks needed: where the mean correlation of up to 4 disjoint runs of an image passes the value.",
    "~: extrapolated as 1 / masks; ≤: the fewest that were looked at suffice.",
)


def by_image(runs: Sequence[ScoredMasks]) -> Iterable[dict[str, ScoredMasks]]:
    """Yield each image's masks by kind, where the reference has begun."""
    for image in sorted({run.image for run in runs}):
        of_image = {run.kind: run for run in runs if run.image == image}
        if len(of_image["reference"].scores()) > 1:
            yield of_image


def _map(masks: RISE, scores: Tensor, control_variate: ControlVariate, size: torch.Size, start: int = 0) -> Tensor:
    """Return the map of the scores of masks from ``start`` on: float64, spatial."""
    return replace(masks, control_variate=control_variate).map_of(scores[None], size, start)[0]


def correlations(of_image: dict[str, ScoredMasks], size: torch.Size) -> pd.DataFrame:
    """Correlate one image's maps of fewer masks with the reference, from scores alone.

    Args:
        of_image: Its masks by kind.
        size: Of the image.

    Returns:
        A row per estimator, number of masks and run: ``estimator``, ``image``, ``masks``, ``start``, ``correlation``.
    """
    scores = {kind: run.scores() for kind, run in of_image.items()}
    longest = of_image["reference"]
    reference = _map(longest.masks, scores["reference"][: longest.n_masks], "regression", size)
    rows = []
    for name, (kind, control_variate) in ESTIMATORS.items():
        there = len(scores[kind])
        for n_masks in (n for n in SIZES if n <= there):
            for start in range(0, there - n_masks + 1, n_masks)[:_MOST_RUNS]:
                own = scores[kind][start : start + n_masks]
                made = _map(of_image[kind].masks, own, control_variate, size, start)
                rows.append((name, of_image[kind].image, n_masks, start, correlation_of(made, reference)))
    return pd.DataFrame(rows, columns=["estimator", "image", "masks", "start", "correlation"])


def correlation_of(first: Tensor, second: Tensor) -> float:
    """Return Pearson's correlation of two maps over their pixels; 0 where one of them is constant."""
    found = pearson(first, second)
    return 0.0 if isnan(found) else found


def masks_needed(means: Sequence[tuple[int, float]], wanted: float) -> tuple[float, str]:
    """Return the number of masks at which a mean correlation is passed, and a mark.

    The mark is ``"~"`` where the number is extrapolated, ``"≤"`` where the fewest masks suffice, else empty.

    Args:
        means: Numbers of masks, ascending, and the mean correlation of each, in (0, 1).
        wanted: The correlation.
    """
    noise = 1 / wanted**2 - 1
    points = [(n, max(1 / max(mean, 1e-3) ** 2 - 1, 1e-12)) for n, mean in means]
    for (fewer, above), (more, below) in pairwise(points):
        if below <= noise < above:
            return exp(log(fewer) + log(above / noise) / log(above / below) * log(more / fewer)), ""
    if points[0][1] <= noise:
        return points[0][0], "≤"
    return masks_to(wanted, points[-1][0] * points[-1][1]), "~"


def _of_images(found: Sequence[tuple[float, str]]) -> str:
    numbers, marks = zip(*found, strict=True)
    mark = next((mark for mark in ("~", "≤") if mark in marks), "")
    return f"{mark}{fmean(numbers):.0f} ({min(numbers):.0f} to {max(numbers):.0f})"


def needed(reached: pd.DataFrame) -> pd.DataFrame:
    """Return a row per estimator: the masks that each wanted correlation needs, mean of the images (lowest to highest).

    Args:
        reached: Rows of :func:`correlations`, of one image or several.
    """
    rows = []
    for name, of_estimator in reached.groupby("estimator", sort=False):
        by_image = of_estimator.pivot_table("correlation", "masks", "image").dropna()  # sizes that all images have
        means, sizes = by_image.mean(axis=1), [int(str(n)) for n in by_image.index]
        curves = [list(zip(sizes, map(float, own), strict=True)) for _, own in by_image.items()]
        cells = [_of_images([masks_needed(curve, wanted) for curve in curves]) for wanted in WANTED]
        rows.append((name, *cells, *(f"{means[n]:.4f}" if n in means else DASH for n in (200, 500, 1000, 2000))))
    columns = ["masks", *(f"needed for {wanted:g}" for wanted in WANTED)]
    return pd.DataFrame(rows, columns=[*columns, "r at 200", "at 500", "at 1000", "at 2000"])


def thresholds(
    of_image: dict[str, ScoredMasks], samples: PredictedSamples, compute: Compute, n_masks: tuple[int, int]
) -> pd.DataFrame:
    """Evaluate one image's maps cut at RISE's thresholds: plain, recommended, and the reference.

    Args:
        of_image: Its masks by kind.
        samples: The network and the images.
        compute: Of the network's passes.
        n_masks: Of the plain map, and of the recommended one.

    Returns:
        A row per map and threshold, where all its masks are scored.
    """
    plain, few = n_masks
    image, size = of_image["plain"].image, samples.images.shape[2:]
    scores, kind = {kind: run.scores() for kind, run in of_image.items()}, "antithetic"
    maps: dict[str, tuple[str, ControlVariate, int]] = {
        f"{plain} plain": ("plain", None, plain),
        f"{few} {kind}, regression": (kind, "regression", few),
        "reference": ("reference", "regression", len(scores["reference"])),
    }
    rows = []
    targets = TargetBatch.stack(samples.targets[image : image + 1], samples.images.device)
    one = samples.images[image : image + 1]
    with frozen(samples.setup.model, compute, one.device) as network:
        for name, (masks, control_variate, n) in maps.items():
            if len(scores[masks]) < n:
                continue
            cut = min_max(_map(of_image[masks].masks, scores[masks][:n], control_variate, size)[None])
            for threshold in of_image[masks].masks.thresholds:
                (made,) = evaluate(
                    network, one, targets, (cut > threshold).to(one.dtype), threshold=threshold, support=None,
                    blanking=of_image[masks].masks.fill,
                )  # fmt: skip
                rows.append((name, image, threshold, made.dice_explained, made.perturbation_ratio))
    return pd.DataFrame(rows, columns=["map", "image", "threshold", "Dice explained", "perturbation ratio"])


def scored(runs: Sequence[ScoredMasks]) -> pd.DataFrame:
    """Return a row per kind and image: how many masks are scored, their scores' mean and spread."""
    rows = []
    for run in runs:
        scores = pd.Series(run.scores().numpy())
        rows.append((run.kind, run.image, len(scores), scores.mean(), scores.std()))
    return pd.DataFrame(rows, columns=["kind", "image", "masks", "mean", "spread"])
