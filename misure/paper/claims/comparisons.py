"""The comparisons that claims make, over the same samples, with whole images or volumes as exchangeable groups.

Every function of :data:`KINDS` takes the records compared and the keys of a comparison in ``claims.yaml``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from misure.paper.claims.claim import Evidence
from misure.paper.claims.evidence import correlation_of, missing, shift, statistic_of, unpaired
from misure.paper.claims.likeness import MEASURES
from misure.paper.claims.records import METRICS, PairRecords, Values, joined
from misure.paper.claims.significance import FEWEST_GROUPS, weighted_slope, weighted_spearman
from misure.paper.extensions.contours import shares_near_contour
from misure.paper.maps import Maps
from misure.paper.query import in_class
from misure.paper.table import measured
from misure.reliability import FEATURE_SETS, OutOfFold, cross_validate
from misure.reliability.scores import auroc

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
    """Test that one variant's mean is at least some times another's, by the logarithm of the factor.

    A mean of 0 has none; the difference between the one and so many times the other is tested then.
    """
    (first, second), samples = records.table(metric, higher, lower)
    if len(first) and min(first.mean(), second.mean()) <= 0:
        statistic = f"mean {METRICS[metric]} of {higher} minus {factor:g} times that of {lower}"
        return shift(statistic, samples.of(first - factor * second), 0.0)
    statistic = f"mean {METRICS[metric]} of {higher} divided by that of {lower}"

    def logarithm(weights: _Floats) -> _Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithms = np.log(weights @ first) - np.log(weights @ second)
        return np.where(np.isfinite(logarithms), logarithms, math.nan)

    found = statistic_of(statistic, samples, logarithm, (math.log(factor), math.inf))
    return replace(found, value=math.exp(found.value), low=math.exp(found.low), high=math.exp(found.high))


def level(records: PairRecords, *, metric: str, variant: str, statistic: str = "", **limits: float) -> Evidence:
    """Test that a variant's mean lies ``above`` or ``below`` a number, or between both."""
    _, samples = records.table(metric, variant)
    found = shift(statistic or f"mean {METRICS[metric]} of {variant}", samples, **limits)
    if samples.timed and records.on_cpu(variant) and not found.missing:
        why = (
            f"{found.statistic}: {measured(found.value)}, but seconds on a CPU decide nothing about the paper's machine"
        )
        return replace(found, p=_NAN, missing=why, remedied=False)
    return found


def larger_factor(
    records: PairRecords, *, metric: str, other_metric: str, first: str, second: str, statistic: str
) -> Evidence:
    """Test that from one variant to another the mean of a metric changes by a larger factor than another metric's."""
    rows = [records.rows(label).dropna(subset=[metric, other_metric]) for label in (first, second)]
    changed, samples = joined(rows, metric, records.group_word)
    others, _ = joined(rows, other_metric, records.group_word)
    if len(samples.numbers) and min(side.mean() for side in (*changed, *others)) <= 0:
        return missing(statistic, samples, "a mean is 0, which has no factor")

    def factors(weights: _Floats) -> _Floats:
        sides = [[np.abs(weights @ side) for side in pair] for pair in (changed, others)]
        with np.errstate(divide="ignore", invalid="ignore"):
            of_metric, of_other = (np.abs(np.log(before / after)) for before, after in sides)
            return np.asarray(of_metric - of_other)

    return statistic_of(statistic, samples, factors, (0.0, math.inf))


def trend(records: PairRecords, *, metric: str, above: float = -math.inf, below: float = math.inf) -> Evidence:
    """Test Spearman's rank correlation of a metric of MSR with the prediction's size.

    Where the paper plots its classes apart, the correlation is the mean over them, each class ranked by itself. A
    metric that never differs has no correlation, neither a large one nor one of 0.
    """
    rows = records.rows("MSR").dropna(subset=[metric, "prediction_size"]).reset_index()
    name = f"Spearman's correlation between {METRICS[metric]} and prediction size"
    statistic, samples, measure, classes = _over_sizes(records, rows, name, metric, weighted_spearman)
    scores = np.zeros(len(samples.numbers))
    for sizes, some in classes:
        ranks = [stats.rankdata(side) - (some.sum() + 1) / 2 for side in (sizes, samples.numbers[some])]
        scores[some] = ranks[0] * ranks[1] / np.prod([max(float(np.linalg.norm(side)), 1.0) for side in ranks])
    found = correlation_of(statistic, samples, measure, scores, (above, below))
    if found.missing or any(np.ptp(samples.numbers[some]) for _, some in classes):
        return found
    reason = f"it is undefined, as all {len(samples.numbers)} values are {measured(samples.numbers[0])}"
    return replace(missing(statistic, samples, reason), remedied=False)


def power(records: PairRecords, *, metric: str, above: float = -math.inf, below: float = math.inf) -> Evidence:
    """Test the power of the prediction's size that a metric of MSR grows with: the slope of their logarithms.

    It is otherwise like :func:`trend`; samples where the metric is 0 have no logarithm and are left out.
    """
    rows = records.rows("MSR").dropna(subset=[metric, "prediction_size"]).reset_index()
    some = rows[rows[metric] > 0]
    detail = f"{len(rows) - len(some)} samples of 0 left out" if len(some) < len(rows) else ""
    some = some.assign(**{name: np.log(some[name].astype(float)) for name in (metric, "prediction_size")})
    name = f"slope of log {METRICS[metric]} over log prediction size"
    statistic, samples, measure, _ = _over_sizes(records, some, name, metric, weighted_slope)
    return statistic_of(statistic, samples, measure, (above, below), detail)


def _over_sizes(
    records: PairRecords, rows: pd.DataFrame, name: str, metric: str, measure: Callable[..., _Floats]
) -> tuple[str, Values, Callable[[_Floats], _Floats], list[tuple[_Floats, NDArray[np.bool_]]]]:
    """Return a name, the samples, a measure's mean over classes, and each class's sizes and samples."""
    rows, n_classes = _plotted(records, rows)
    places = rows["place"].to_numpy(dtype=np.int64)
    samples = Values(rows[metric].to_numpy(dtype=float), places, tuple(rows["unit"]), records.group_word)
    sizes, panels = rows["prediction_size"].to_numpy(dtype=float), rows["panel"].to_numpy(dtype=np.int64)
    classes = [(sizes[panels == panel], panels == panel) for panel in np.unique(panels)]

    def mean_of_classes(weights: _Floats) -> _Floats:
        each = [measure(of_class, samples.numbers[some], weights[:, some]) for of_class, some in classes]
        return np.asarray(np.mean(each, axis=0))

    where = f", mean over {n_classes} classes" if n_classes > 1 else ""
    return f"{name}{where}", samples, mean_of_classes, classes


def near_contour(records: PairRecords, *, mask: str, area: str, width: int, **limits: float) -> Evidence:
    """Test how much more of MSR's mask than of an area lies within some pixels of the object's contour."""

    def gap(maps: Maps) -> float:
        shares = shares_near_contour(maps, width) if "sufficient_region" in maps else {}
        return shares.get(mask, _NAN) - shares.get(area, _NAN)

    statistic = f"mean share near the contour, {_SHARES[mask]} minus {_SHARES[area]}"
    return shift(statistic, records.measured_on_maps(gap, "MSR"), **limits)


def maps(records: PairRecords, *, measure: str, variants: Sequence[str], statistic: str) -> Evidence:
    """Test that a number of :data:`MEASURES`, measured on the maps of some variants, is above 0 in the mean."""
    return shift(statistic, records.measured_on_maps(MEASURES[measure], *variants), 0.0)


def area_under_curve_above(records: PairRecords, *, organ: str, baseline: str = "") -> Evidence:
    """Test that the AUC of MSR's features on unseen volumes is above chance, or above that of a baseline's."""
    against = f"AUC of prediction {baseline}" if baseline else f"{_CHANCE:g}"
    seen = ["explanation", *([baseline] if baseline else [])]

    def above(weights: _Floats) -> _Floats:
        areas = [auroc(out, weights) for out in outs]
        return areas[0] - (areas[1] if baseline else _CHANCE)

    outs, samples, reason = _predicted(records, organ, seen)
    statistic = f"AUC of MSR's features minus {against}, {organ}"
    return missing(statistic, samples, reason) if reason else statistic_of(statistic, samples, above, (0.0, math.inf))


def accuracy_above_majority(records: PairRecords, *, organ: str) -> Evidence:
    """Test that MSR's features are right more often, on unseen volumes, than always naming the more frequent label."""
    (out,), samples, reason = _predicted(records, organ, ["explanation"])
    statistic = f"accuracy of MSR's features minus that of naming the majority, {organ}"
    if reason:
        return missing(statistic, samples, reason)
    named = records.organs[organ].prevalence >= 0.5
    right = (out.probabilities >= 0.5) == out.reliable
    return shift(statistic, samples.of(right.astype(float) - (out.reliable == named)), 0.0)


def _predicted(records: PairRecords, organ: str, seen: Sequence[str]) -> tuple[list[OutOfFold], Values, str]:
    """Return out-of-fold probabilities by what the classifier sees, the samples, and why there are none."""
    known = records.organs[organ]
    outs = [cross_validate(known, _PROTOCOL, FEATURE_SETS[name]) for name in seen]
    samples = Values(known.reliable.astype(float), known.groups, tuple(known.rows["unit"]), "volumes")
    return outs, samples, next((out.reason for out in outs if out.reason), "")


def networks_differ(first: PairRecords, second: PairRecords, *, metric: str, variant: str) -> Evidence:
    """Test that a variant's mean is higher on one network, over the samples that both share or, where few, over all."""
    tables = [[records.measured(metric, variant)] for records in (first, second)]
    return _networks(f"mean difference in {METRICS[metric]} of {variant}", (first, second), tables, metric)


def maps_differ(
    first: PairRecords, second: PairRecords, *, measure: str, variants: Sequence[str], statistic: str
) -> Evidence:
    """Test that a number measured on the maps of some variants is higher on one network, as for their metrics."""
    tables = [records.on_maps(MEASURES[measure], *variants) for records in (first, second)]
    return _networks(statistic, (first, second), tables, "number")


def _networks(
    statistic: str, sides: tuple[PairRecords, PairRecords], tables: Sequence[list[pd.DataFrame]], column: str
) -> Evidence:
    labels, word = " minus ".join(records.pair.model_label for records in sides), sides[0].group_word
    columns, samples = joined([*tables[0], *tables[1]], column, word)
    if samples.n_groups >= FEWEST_GROUPS:
        gap = samples.of(columns[0] - columns[len(tables[0])])
        return shift(f"{statistic}, {labels}, same samples", gap, 0.0)
    own = [joined(of_network, column, word)[1] for of_network in tables]
    return unpaired(f"{statistic}, {labels}, each network's own samples", *own)


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
    "power": power,
    "near_contour": near_contour,
    "maps": maps,
    "area_under_curve": area_under_curve_above,
    "accuracy_above_majority": accuracy_above_majority,
    "networks_differ": networks_differ,
    "maps_differ": maps_differ,
    "larger_lead": larger_lead,
}


def _plotted(records: PairRecords, rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Keep what the paper plots, with the number of the plot in ``panel``; say how many plots."""
    pair = records.pair
    if pair.sizes_merged or not pair.size_classes:
        return rows.assign(panel=0), 1
    panels = [in_class(rows, label) for label in pair.size_classes]
    panels = [panel.assign(panel=number) for number, panel in enumerate(panels) if len(panel) >= FEWEST_OF_A_CLASS]
    return (pd.concat(panels, ignore_index=True), len(panels)) if panels else (rows[:0].assign(panel=0), 0)
