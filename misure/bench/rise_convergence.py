"""Number of masks that RISE needs: correlation with a long reference, for each kind of masks and control variate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from misure.bench.measurement import Page, PredictedSamples, document, frame_table, measured_page
from misure.bench.rise_scores import ScoredMasks, all_masks, score
from misure.config import build, compute_of
from misure.errors import MisureError
from misure.explainers.rise import RISE
from misure.sweep.experiment import Experiment


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """What is measured.

    Attributes:
        n_reference: Masks of the reference map, a multiple of 100 as the others.
        n_plain: Plain masks.
        n_coupled: Masks of each coupled kind.
        max_minutes: After which no more masks are scored; what is there is compared. A later call goes on.
    """

    n_reference: int = 20_000
    n_plain: int = 8_000
    n_coupled: int = 3_000
    max_minutes: float = 10_000

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
        numbers = scored(runs)
        title = f"Masks of RISE: {cfg.model.title} on {cfg.dataset.title}"
        return Page(f"rise_masks-{samples.setup.name}", document(title, samples.notes, frame_table(numbers)), numbers)

    passes = cfg.rise_masks.images * sum(convergence.n_masks.values())
    what = f"counting masks: {passes} passes"
    return measured_page(cfg, what, cfg.rise_masks.images, measure, lambda pace: passes * pace.forward)


def scored(runs: Sequence[ScoredMasks]) -> pd.DataFrame:
    """Return a row per kind and image: how many masks are scored, their scores' mean and spread."""
    rows = []
    for run in runs:
        scores = pd.Series(run.scores().numpy())
        rows.append((run.kind, run.image, len(scores), scores.mean(), scores.std()))
    return pd.DataFrame(rows, columns=["kind", "image", "masks", "mean", "spread"])
