"""The comparisons that claims make, over the same samples, with whole images or volumes as exchangeable groups.

Every function of :data:`KINDS` takes the records compared and the keys of a comparison in ``claims.yaml``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from misure.evaluation.bootstrap import N_DRAWS, group_weights, limits, resampled_means
from misure.paper.claims.claim import Evidence
from misure.paper.claims.records import METRICS, Maps, PairRecords, Values, joined
from misure.paper.claims.significance import FEWEST_GROUPS, LEVEL, bootstrap_p, sign_flip_p, weighted_spearman
from misure.paper.extensions.contours import shares_near_contour
from misure.paper.query import in_class
from misure.paper.table import measured
from misure.reliability import FEATURE_SETS, cross_validate
from misure.reliability.scores import area_under_curve, auroc

FEWEST_OF_A_CLASS = 5
"""A class with fewer samples has no trend to speak of and is left out."""

_CHANCE = 0.5
_PROTOCOL = "honest"
_NAN = float("nan")
_SHARES = {
    "mask": "the map's mass",
    "mask_in_object": "the map's mass in the object",
    "sufficient_region": "the sufficient region",
    "object": "the object",
}

_Floats = NDArray[np.float64]


def difference(records: PairRecords, *, metric: str, higher: str, lower: str, margin: float = 0.0) -> Evidence:
    """Test that one variant's mean is above another's, or not below it by more than a margin."""
    (first, second), samples = records.table(metric, higher, lower)
    return shift(f"mean difference in {METRICS[metric]}, {higher} minus {lower}", samples.of(first - second), -margin)


def times(records: PairRecords, *, metric: str, higher: str, lower: str, factor: float) -> Evidence:
    """Test that one variant's mean is at least some times another's."""
    statistic = f"mean {METRICS[metric]} of {higher} divided by that of {lower}"
    (first, second), samples = records.table(metric, higher, lower)
    if lacking := too_few(statistic, samples):
        return lacking
    contrast = first - factor * second
    p = sign_flip_p(contrast, samples.groups)
    above, below = (resampled_means(side, samples.groups) for side in (first, second))
    with np.errstate(divide="ignore", invalid="ignore"):
        value, draws = np.divide(first.mean(), second.mean()), np.divide(above, below)
    mean = float(contrast.mean())
    return Evidence(statistic, float(value), *limits(draws), p, mean > 0, abs(mean), **samples.counts())


def level(records: PairRecords, *, metric: str, variant: str, statistic: str = "", **limit: float) -> Evidence:
    """Test that a variant's mean lies ``above`` or ``below`` a number."""
    _, samples = records.table(metric, variant)
    return shift(statistic or f"mean {METRICS[metric]} of {variant}", samples, **limit)


def larger_factor(
    records: PairRecords, *, metric: str, other_metric: str, first: str, second: str, statistic: str
) -> Evidence:
    """Test that from one variant to another the mean of a metric changes by a larger factor than another metric's."""
    tables = [records.table(name, first, second) for name in (metric, other_metric)]
    samples = tables[0][1]
    if lacking := too_few(statistic, samples):
        return lacking
    means = [[np.array([side.mean()]) for side in columns] for columns, _ in tables]
    draws = [[resampled_means(side, values.groups) for side in columns] for columns, values in tables]
    if any((side <= 0).any() for columns in (*means, *draws) for side in columns):
        return Evidence(statistic, missing=f"{statistic}: a mean is 0, which has no factor", **samples.counts())
    value, resampled = (np.subtract(*(np.abs(np.log(a / b)) for a, b in sides)) for sides in (means, draws))
    return _bootstrapped(statistic, float(value[0]), resampled, samples.counts())


def trend(records: PairRecords, *, metric: str, flat_within: float | None = None) -> Evidence:
    """Test Spearman's rank correlation of a metric of MSR with the prediction's size.

    Where the paper plots its classes apart, the correlation is the mean over them, each class ranked by itself.

    Args:
        records: Dataset and network.
        metric: A column of the records.
        flat_within: Claimed is that there is no trend, a correlation within this of 0; without it, a negative one.
    """
    rows = records.rows("MSR").dropna(subset=[metric, "prediction_size"]).reset_index()
    rows, n_classes = _plotted(records, rows)
    over = f", mean over {n_classes} classes" if n_classes > 1 else ""
    statistic = f"Spearman's correlation between {METRICS[metric]} and prediction size{over}"
    places = rows["place"].to_numpy(dtype=np.int64)
    samples = Values(rows[metric].to_numpy(dtype=float), places, tuple(rows["unit"]), records.group_word)
    if lacking := too_few(statistic, samples):
        return lacking
    sizes, panels = rows["prediction_size"].to_numpy(dtype=float), rows["panel"].to_numpy(dtype=np.int64)
    members = [panels == panel for panel in np.unique(panels)]

    def correlation(weights: _Floats) -> _Floats:
        each = [weighted_spearman(sizes[some], samples.numbers[some], weights[:, some]) for some in members]
        return np.asarray(np.mean(each, axis=0))

    value = float(correlation(np.ones((1, len(rows))))[0])
    draws = np.concatenate([correlation(weights) for weights in group_weights(places)])
    p = bootstrap_p(draws) if flat_within is None else _flat_p(draws, value, flat_within)
    agrees = value < 0 if flat_within is None else abs(value) < flat_within
    detail = "all values are equal, so there is no trend" if np.ptp(samples.numbers) == 0 else ""
    return Evidence(statistic, value, *limits(draws), p, agrees, detail=detail, **samples.counts())


def near_contour(records: PairRecords, *, mask: str, area: str, width: int, **limit: float) -> Evidence:
    """Test how much more of MSR's mask than of an area lies within some pixels of the object's contour."""

    def gap(maps: Maps) -> float:
        shares = shares_near_contour(maps, width) if "sufficient_region" in maps else {}
        return shares.get(mask, _NAN) - shares.get(area, _NAN)

    statistic = f"mean share near the contour, {_SHARES[mask]} minus {_SHARES[area]}"
    return shift(statistic, records.measured_on_maps(gap, "MSR"), **limit)


def maps(records: PairRecords, *, measure: str, variants: Sequence[str], statistic: str) -> Evidence:
    """Test that a number of :data:`MEASURES`, measured on the maps of some variants, is above 0 in the mean."""
    return shift(statistic, records.measured_on_maps(MEASURES[measure], *variants))


def area_under_curve_above(records: PairRecords, *, organ: str, baseline: str = "") -> Evidence:
    """Test that the AUC of MSR's features on unseen volumes is above chance, or above that of a baseline's."""
    samples = records.organs[organ]
    against = f"AUC of prediction {baseline}" if baseline else f"{_CHANCE:g}"
    statistic = f"AUC of MSR's features minus {against}, {organ}"
    seen = ["explanation", *([baseline] if baseline else [])]
    outs = [cross_validate(samples, _PROTOCOL, FEATURE_SETS[name]) for name in seen]
    areas = [area_under_curve(out) for out in outs]
    reason = next((out.reason for out in outs if out.reason), "")
    if not reason and samples.n_volumes < FEWEST_GROUPS:
        reason = f"{samples.n_volumes} volumes, too few (it takes {FEWEST_GROUPS})"
    if not reason and np.isnan(areas).any():
        reason = "no fold tests both labels"
    counts: dict[str, Any] = {
        "n": len(samples.rows),
        "n_groups": samples.n_volumes,
        "units": tuple(samples.rows["unit"]),
    }
    if reason:
        return Evidence(statistic, missing=f"{statistic}: {reason}", **counts)
    weights = list(group_weights(samples.groups))
    drawn = [np.concatenate([auroc(out, some) for some in weights]) for out in outs]
    value = areas[0] - (areas[1] if baseline else _CHANCE)
    draws = drawn[0] - (drawn[1] if baseline else _CHANCE)
    return _bootstrapped(statistic, value, draws[~np.isnan(draws)], counts)


def networks_differ(first: PairRecords, second: PairRecords, *, metric: str, variant: str) -> Evidence:
    """Test that a variant's mean is higher on one network, over the samples that both share or, where few, over all."""
    labels = f"{first.pair.model_label} minus {second.pair.model_label}"
    statistic = f"mean difference in {METRICS[metric]} of {variant}, {labels}"
    sides = [records.rows(variant).dropna(subset=[metric]) for records in (first, second)]
    columns, samples = joined(sides, metric, first.group_word)
    if samples.n_groups >= FEWEST_GROUPS:
        return shift(f"{statistic}, same samples", samples.of(columns[0] - columns[1]))
    own = [records.table(metric, variant)[1] for records in (first, second)]
    return unpaired(f"{statistic}, each network's own samples", *own)


def larger_lead(first: PairRecords, second: PairRecords, *, metric: str, leader: str, follower: str) -> Evidence:
    """Test that one variant leads another by more on one dataset than on another."""
    gaps = []
    for records in (first, second):
        (ahead, behind), samples = records.table(metric, leader, follower)
        gaps.append(samples.of(ahead - behind))
    where = f"{first.pair.label} minus {second.pair.label}"
    return unpaired(f"lead of {leader} over {follower} in {METRICS[metric]}, {where}", *gaps)


KINDS: dict[str, Callable[..., Evidence]] = {
    "difference": difference,
    "times": times,
    "level": level,
    "larger_factor": larger_factor,
    "trend": trend,
    "near_contour": near_contour,
    "maps": maps,
    "area_under_curve": area_under_curve_above,
    "networks_differ": networks_differ,
    "larger_lead": larger_lead,
}


def too_few(statistic: str, samples: Values) -> Evidence | None:
    """Return evidence that says so where no result could be significant, or None."""
    if samples.n_groups >= FEWEST_GROUPS:
        return None
    reason = "no records"
    if n := len(samples.numbers):
        reason = (
            f"too few {samples.group_word} ({samples.n_groups}, with {n} of the samples; it takes "
            f"{FEWEST_GROUPS} for any test to reach p < {LEVEL})"
        )
    return Evidence(statistic, missing=f"{statistic}: {reason}", **samples.counts())


def shift(statistic: str, samples: Values, above: float = 0.0, *, below: float | None = None) -> Evidence:
    """Test that a mean lies above a limit, or below one.

    Args:
        statistic: What the mean is of.
        samples: The numbers.
        above: The limit where the claimed side is above it.
        below: The limit where the claimed side is below it.
    """
    if lacking := too_few(statistic, samples):
        return lacking
    limit = above if below is None else below
    numbers, mean = samples.numbers, float(samples.numbers.mean())
    p = sign_flip_p(numbers - limit, samples.groups)
    low, high = limits(resampled_means(numbers, samples.groups))
    agrees = mean > limit if below is None else mean < limit
    detail = f"median {measured(float(np.median(numbers)))}"
    return Evidence(statistic, mean, low, high, p, agrees, abs(mean - limit), detail=detail, **samples.counts())


def unpaired(statistic: str, first: Values, second: Values) -> Evidence:
    """Test that the mean of some samples is above that of others, by a bootstrap of the difference."""
    for side in (first, second):
        if lacking := too_few(statistic, side):
            return lacking
    draws = [resampled_means(side.numbers, side.groups, seed) for seed, side in enumerate((first, second))]
    value = float(first.numbers.mean() - second.numbers.mean())
    counts = {
        "n": len(first.numbers) + len(second.numbers),
        "n_groups": first.n_groups + second.n_groups,
        "units": tuple(sorted({*first.units, *second.units})),
    }
    return _bootstrapped(statistic, value, draws[0] - draws[1], counts)


def variation(maps: Maps) -> float:
    """Return a map's total variation over its mass, which no factor changes; NaN for an empty map."""
    values = maps["saliency"].astype(np.float64)
    mass = values.sum()
    steps = np.abs(np.diff(values, axis=0)).sum() + np.abs(np.diff(values, axis=1)).sum()
    return float(steps / mass) if mass > 0 else _NAN


def correlation(first: Maps, second: Maps) -> float:
    """Return Pearson's correlation of two maps' pixels; NaN where one is constant."""
    sides = [maps["saliency"].astype(np.float64).ravel() for maps in (first, second)]
    if any(np.ptp(side) == 0 for side in sides):
        return _NAN
    return float(np.corrcoef(sides[0], sides[1])[0, 1])


MEASURES: dict[str, Callable[..., float]] = {
    "variation over another's": lambda first, second: variation(first) - variation(second),
    "correlation": correlation,
    "correlation over a third's": lambda first, second, third: correlation(first, second) - correlation(third, second),
}
"""Numbers measured on the maps of one sample, variant by variant."""


def _bootstrapped(statistic: str, value: float, draws: _Floats, counts: dict[str, Any]) -> Evidence:
    """Test that a quantity is above 0, given bootstrap draws of it."""
    return Evidence(statistic, value, *limits(draws), bootstrap_p(draws), value > 0, abs(value), **counts)


def _plotted(records: PairRecords, rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Keep what the paper plots, with the number of the plot in ``panel``; say how many plots."""
    pair = records.pair
    if pair.sizes_merged or not pair.size_classes:
        return rows.assign(panel=0), 1
    panels = [in_class(rows, label) for label in pair.size_classes]
    panels = [panel.assign(panel=number) for number, panel in enumerate(panels) if len(panel) >= FEWEST_OF_A_CLASS]
    return (pd.concat(panels, ignore_index=True), len(panels)) if panels else (rows[:0].assign(panel=0), 0)


def _flat_p(draws: _Floats, value: float, within: float) -> float:
    """Test two-sidedly whether a correlation lies on the limit of what counts as no trend."""
    against = np.abs(draws) >= within if abs(value) < within else np.abs(draws) <= within
    return min(1.0, 2 * (int(against.sum()) + 1) / (N_DRAWS + 1))
