"""Claims about the size of the object (5.3)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from misure.paper.claims.claim import Finding, Part
from misure.paper.claims.samples import METRICS, MSR, Subject, Values
from misure.paper.claims.significance import N_DRAWS, bootstrap_p, group_weights, limits, weighted_spearman
from misure.paper.query import in_class

NO_TREND = 0.3
"""Rank correlations within +-0.3 are no trend: they explain less than a tenth of the variance of ranks."""

FEWEST_OF_A_CLASS = 5
"""A class with fewer samples has no trend to speak of and is left out."""

_TRENDS = ("n_dilations", "perturbation_ratio")
_FLAT = "triangle"


def size_findings(subject: Subject) -> Iterator[Finding]:
    """Test on one dataset and model whether dilations and ratio fall with the object's size, or do not."""
    flat = subject.pair.dataset == _FLAT
    for metric in _TRENDS:
        name = METRICS[metric]
        word = "dilations" if metric == "n_dilations" else "ratio"
        statement = (
            f"The {name} shows no trend with the object's size: Spearman's rank correlation within "
            f"{NO_TREND} of 0 (our reading of 'fairly constant')."
            if flat
            else f"The {name} falls as the object's size grows."
        )
        yield Finding(
            f"size-{word}-{'constant' if flat else 'falls'}",
            "5.3",
            statement,
            subject.pair,
            [trend(subject, metric, absent=flat)],
            subject.origin,
            f"figure{subject.pair.size_figure}",
        )


def trend(subject: Subject, metric: str, *, absent: bool) -> Part:
    """Test Spearman's rank correlation of a metric of MSR with the prediction's size.

    Where the paper plots its classes apart, the correlation is the mean over them, each class ranked by itself.

    Args:
        subject: Dataset and model.
        metric: A column of the records.
        absent: Whether the claim is that there is no trend (the interval lies within :data:`NO_TREND`), or else that
            the correlation is negative.
    """
    rows = subject.rows(MSR).dropna(subset=[metric, "prediction_size"]).reset_index()
    rows, n_classes = _plotted(subject, rows)
    over = f", mean over {n_classes} classes" if n_classes > 1 else ""
    statistic = f"Spearman's correlation between {METRICS[metric]} and prediction size{over}"
    places = rows["place"].to_numpy(dtype=np.int64)
    samples = Values(rows[metric].to_numpy(dtype=float), places, tuple(rows["unit"]), subject.group_word)
    if part := samples.too_few(statistic):
        return part
    labels = rows["panel"].to_numpy(dtype=np.int64)
    sizes = rows["prediction_size"].to_numpy(dtype=float)
    value = float(_mean_over_classes(sizes, samples.numbers, labels, np.ones((1, len(rows))))[0])
    draws = np.concatenate(
        [_mean_over_classes(sizes, samples.numbers, labels, weights) for weights in group_weights(places)]
    )
    low, high = limits(draws)
    constant = "all values are equal, so there is no trend" if np.ptp(samples.numbers) == 0 else ""
    agrees = abs(value) < NO_TREND if absent else value < 0
    p = _absence_p(draws, value) if absent else bootstrap_p(draws)
    return Part(statistic, value, low, high, p, agrees, detail=constant, **samples.counts())


def _plotted(subject: Subject, rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Keep what the paper plots, with the number of the plot in ``panel``; say how many plots."""
    pair = subject.pair
    if pair.sizes_merged or not pair.size_classes:
        return rows.assign(panel=0), 1
    panels = [in_class(rows, label) for label in pair.size_classes]
    panels = [panel.assign(panel=number) for number, panel in enumerate(panels) if len(panel) >= FEWEST_OF_A_CLASS]
    return (pd.concat(panels, ignore_index=True), len(panels)) if panels else (rows[:0].assign(panel=0), 0)


def _mean_over_classes(
    sizes: NDArray[np.float64], values: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    each = [
        weighted_spearman(sizes[mine], values[mine], weights[:, mine])
        for mine in (labels == label for label in np.unique(labels))
    ]
    mean: NDArray[np.float64] = np.mean(each, axis=0)
    return mean


def _absence_p(draws: NDArray[np.float64], value: float) -> float:
    """Test two-sidedly whether a correlation lies on the limit of what counts as no trend."""
    against = np.abs(draws) >= NO_TREND if abs(value) < NO_TREND else np.abs(draws) <= NO_TREND
    return min(1.0, 2 * (int(against.sum()) + 1) / (N_DRAWS + 1))
