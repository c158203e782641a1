"""Numbers by sample, paired: samples that variants share, means over images as columns, and the nearest variant."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from functools import reduce
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from misure.evaluation.intervals import UNBOUNDED
from misure.paper.query import INDEPENDENT
from misure.paper.source import Origin
from misure.paper.statistics import NOTHING, Summary, bounds_of, summarise
from misure.paper.table import Column

_V = TypeVar("_V", bound=Hashable)
_F = TypeVar("_F", pd.DataFrame, pd.Series)

KEY = ["sample", "class_id", INDEPENDENT]
"""What numbers by sample are indexed by: image and class, and what the image belongs to."""

MARKS = (
    Column("stand_in", "Data", lambda stand_in: "stand-in" if stand_in else ""),
    Column("substitution", "Network"),
    Column("scale", "Scale", lambda scale: Origin("", stand_in=False, scale=scale).reduction),
)
"""Columns for what is not the paper's; left out where everything is."""

_PARTS = ("mean", "low", "high", "median", "n")

_LEAST_SHARE = 0.5
"""A variant with a smaller share of the typical number of samples is left out: it would take samples from all."""


def groups(numbers: pd.Series | pd.DataFrame) -> NDArray[Any]:
    """Return what each row's image belongs to: itself, or a volume."""
    return numbers.index.get_level_values(INDEPENDENT).to_numpy()


def n_groups(numbers: pd.Series | pd.DataFrame) -> int:
    """Return how many images or volumes the rows come from."""
    return len(np.unique(groups(numbers)))


def over_groups(values: pd.Series, bounds: tuple[float, float] = UNBOUNDED) -> Summary:
    """Summarise a number per sample over whole images or volumes; samples without it (NaN) are left out."""
    known = values.dropna().astype(float)
    return summarise(known, groups(known), bounds) if len(known) else NOTHING


def columns(numbers: Mapping[str, pd.Series] | pd.DataFrame) -> dict[str, float]:
    """Return the means of numbers by sample as a table's columns: ``<name>_mean``, its interval, median and n."""
    return {
        f"{name}_{part}": getattr(summary, part)
        for name, values in numbers.items()
        for summary in [over_groups(values, bounds_of(str(name)))]
        for part in _PARTS
    }


def summary_of(row: Mapping[Any, Any] | pd.Series, name: str) -> Summary:
    """Read a summary back from :func:`columns`."""
    n, *parts = (float(row[f"{name}_{part}"]) for part in ("n", "mean", "median", "low", "high"))
    return Summary(0 if math.isnan(n) else int(n), *parts)


def shared_samples(variants: Mapping[_V, _F]) -> dict[_V, _F]:
    """Keep the samples that all variants have; variants with far fewer than the others are dropped.

    Args:
        variants: Numbers by sample, indexed by :data:`KEY`.

    Returns:
        The same samples in the same order for each variant that is left; empty where nothing has any.
    """
    counts = [len(numbers) for numbers in variants.values() if len(numbers)]
    least = _LEAST_SHARE * float(np.median(counts)) if counts else math.inf
    kept = {variant: numbers for variant, numbers in variants.items() if len(numbers) >= least}
    if not kept:
        return {}
    shared = reduce(lambda first, second: first.intersection(second), (numbers.index for numbers in kept.values()))
    return {variant: numbers.loc[shared.sort_values()] for variant, numbers in kept.items()}


def nearest_shares(distances: Mapping[_V, NDArray[np.float64]]) -> dict[_V, float]:
    """Return in which share of the resamples each variant is the nearest; ties share.

    Args:
        distances: How far from the paper each variant is in each resample, the same resamples for all.
    """
    away = np.stack(list(distances.values()))
    nearest = away == away.min(axis=0)
    shares = (nearest / nearest.sum(axis=0)).mean(axis=1)
    return dict(zip(distances, shares.tolist(), strict=True))
