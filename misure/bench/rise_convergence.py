"""Number of masks that RISE needs: correlation with a long reference, for plain, antithetic and stratified masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from misure.bench.measurement import Page, PredictedSamples, document, measured_page
from misure.config import build, compute_of
from misure.errors import MisureError
from misure.explainers.base import check_images
from misure.explainers.perturbation import mask_scores
from misure.explainers.rise import RISE
from misure.models.compute import Compute
from misure.models.wrapper import FrozenNetwork, SegmentationModel, frozen
from misure.paper.published import DASH
from misure.paper.table import Column, Table
from misure.sweep.experiment import Experiment
from misure.target import TargetBatch, make_targets

VARIANTS = {"plain": (False, False), "antithetic": (True, False), "stratified": (False, True), "both": (True, True)}
"""The kinds of masks that are compared: whether they are antithetic, and stratified."""

_REFERENCE_SEED = 1_000_003
"""Of the reference's masks: no other run has them."""

_MASKS_AT_ONCE = 100

Score = Callable[[RISE, range], Tensor]
"""Scores some of a variant's masks by number: float64, K."""


_COLUMNS = (
    Column("variant", "masks"),
    Column("runs", "runs"),
    Column("reached", "that reached it"),
    Column("needed", "masks needed, median (range)"),
    Column("in_the_end", "correlation in the end, median", "{:.4f}".format),
)


def count_rise_masks(cfg: DictConfig) -> str:
    """Measure ``rise_masks.images`` objects.

    Returns:
        The page, which is also written to ``bench/rise_masks-<dataset>-<model>.md`` in the outputs folder, all runs to
        the ``.csv`` beside it.

    Raises:
        MisureError: If the explainer has no masks to count, or nothing is predicted.
    """
    explainer = Experiment.of(cfg).explainer
    if not isinstance(explainer, RISE):
        raise MisureError(f"explainer={explainer.name} has no masks to count: pass explainer=rise")
    convergence: Convergence = build(cfg.rise_masks.measure)

    def measure(samples: PredictedSamples) -> Page:
        runs = [
            convergence.measure(samples.setup.model, image, target.class_id, explainer, compute_of(cfg)).assign(image=i)
            for i, (image, target) in enumerate(zip(samples.images, samples.targets, strict=True))
        ]
        numbers = pd.concat(runs)
        title = f"Masks of RISE: {cfg.model.title} on {cfg.dataset.title}"
        text = document(title, [*samples.notes, convergence.definition], summary_table(numbers))
        return Page(f"rise_masks-{samples.setup.name}", text, numbers)

    passes = cfg.rise_masks.images * convergence.passes
    what = f"counting masks: {passes} passes"
    return measured_page(cfg, what, cfg.rise_masks.images, measure, lambda pace: passes * pace.forward)


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """What is measured.

    Attributes:
        n_reference: Masks of the reference map.
        n_masks: Masks of each run; a run that does not get there counts as needing more.
        every: Masks between two comparisons; the last one is at the first multiple that is not below ``n_masks``.
        correlation: Pearson's with the reference, over pixels, that has to be reached and kept.
        seeds: One run each for every variant.
    """

    n_reference: int = 20_000
    n_masks: int = 8_000
    every: int = 100
    correlation: float = 0.99
    seeds: Sequence[int] = (0, 1, 2, 3, 4)

    @property
    def passes(self) -> int:
        """Forward passes for one image."""
        return self.n_reference + len(VARIANTS) * len(self.seeds) * -(-self.n_masks // self.every) * self.every

    @property
    def definition(self) -> str:
        """The number of masks that is measured, in words."""
        return (
            f"Needed: masks from which on the map's correlation with one of {self.n_reference} other plain masks "
            f"stays at {self.correlation:g}, looked at every {self.every} up to {self.n_masks}."
        )

    def measure(
        self,
        model: SegmentationModel,
        image: Tensor,
        target: int | str | None = None,
        explainer: RISE | None = None,
        compute: Compute | None = None,
    ) -> pd.DataFrame:
        """Count masks on one image.

        The reference's masks are plain and of another seed; they are scored once.

        Args:
            model: The network.
            image: C x spatial.
            target: As for ``misure.explain``.
            explainer: Everything else about the masks (grid, style, keep probability); RISE's defaults without it.
            compute: Precision and batch size.

        Returns:
            A row for each variant and seed: ``variant``, ``seed``, ``masks`` (how many are needed, missing if more
            than ``n_masks``) and ``correlation`` (of all ``n_masks``).
        """
        explainer = explainer or RISE()
        images = check_images(image[None], model)
        with (
            frozen(model, compute or Compute(), images.device) as network,
            network.folded(images[0]),
            tqdm(total=self.passes, unit="mask", desc="masks", leave=False) as bar,
        ):
            targets = TargetBatch.stack(make_targets(network, images, target), images.device)

            def score(variant: RISE, numbers: range) -> Tensor:
                bar.update(len(numbers))
                return _scores(network, images, targets, variant, numbers)

            return self._table(explainer, score, images.shape[2:], images.device)

    def _table(self, explainer: RISE, score: Score, size: torch.Size, device: torch.device) -> pd.DataFrame:
        start = torch.zeros(size, dtype=torch.float64, device=device)
        plain = replace(explainer, seed=_REFERENCE_SEED, antithetic=False, stratified=False)
        _, reference = next(_running_sums(plain, score, start, range(0, self.n_reference, self.n_reference)))
        rows = []
        for name, (antithetic, stratified) in VARIANTS.items():
            for seed in self.seeds:
                variant = replace(explainer, seed=seed, antithetic=antithetic, stratified=stratified)
                sums = _running_sums(variant, score, start, range(0, self.n_masks, self.every))
                correlations = [(n, correlation_of(total, reference)) for n, total in sums]
                rows.append((name, seed, masks_needed(correlations, self.correlation), correlations[-1][1]))
        table = pd.DataFrame(rows, columns=["variant", "seed", "masks", "correlation"])
        return table.astype({"masks": "Int64"})


@torch.no_grad()
def _scores(network: FrozenNetwork, images: Tensor, targets: TargetBatch, variant: RISE, numbers: range) -> Tensor:
    done = mask_scores(
        network,
        images,
        targets,
        baseline=variant.fill.baseline(network, images),
        make_masks=lambda k: variant.masks(k, images.shape[2:]),
        numbers=numbers,
    )
    return torch.cat([score for _, score, _ in done])


def _running_sums(variant: RISE, score: Score, start: Tensor, parts: range) -> Iterator[tuple[int, Tensor]]:
    """Yield how many masks there are and their weighted sum (float64, spatial) after every part.

    Args:
        variant: Which masks.
        score: Scores them.
        start: Zeros, spatial.
        parts: First masks of the parts; every part has the range's step of masks.
    """
    total = start
    for part in parts:
        last = part + parts.step
        for first in range(part, last, _MASKS_AT_ONCE):
            numbers = range(first, min(first + _MASKS_AT_ONCE, last))
            masks = variant.masks(torch.arange(numbers.start, numbers.stop, device=start.device), start.shape)
            total = total + torch.tensordot(score(variant, numbers), masks.double(), dims=1)
        yield last, total


def masks_needed(correlations: Sequence[tuple[int, float]], wanted: float) -> int | None:
    """Return the number of masks from which on a correlation is reached and kept.

    Args:
        correlations: Numbers of masks, ascending, and the correlation of each.
        wanted: The correlation that has to be reached.

    Returns:
        The number, or None if the last one is below.
    """
    needed = None
    for n_masks, correlation in reversed(correlations):
        if correlation < wanted:
            break
        needed = n_masks
    return needed


def correlation_of(first: Tensor, second: Tensor) -> float:
    """Return Pearson's correlation of two maps over their pixels; 0 where one of them is constant."""
    one, two = ((m.double() - m.double().mean()).flatten() for m in (first, second))
    scale = one.norm() * two.norm()
    return float(one @ two / scale) if scale > 0 else 0.0


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise runs per variant: how many reached the correlation, and the masks that they needed.

    Args:
        table: Rows of :meth:`Convergence.measure`, of one image or several.

    Returns:
        A row per variant: ``runs``, ``reached``, ``median``, ``low`` and ``high`` masks of those that did, and
        ``in_the_end``, the median correlation of all masks.
    """
    groups = table.groupby("variant", sort=False)
    masks = groups["masks"]
    columns = {"runs": masks.size(), "reached": masks.count()}
    columns |= {"median": masks.median(), "low": masks.min(), "high": masks.max()}
    return pd.DataFrame(columns | {"in_the_end": groups["correlation"].median()}).reset_index()


def summary_table(table: pd.DataFrame) -> str:
    """Lay out :func:`summary` as a Markdown table."""
    rows = summary(table)
    needed = [
        f"{row['median']:.0f} ({row['low']} to {row['high']})" if row["reached"] else DASH
        for row in rows.to_dict("records")
    ]
    return Table("rise_masks", "", _COLUMNS, rows.assign(needed=needed)).body()
