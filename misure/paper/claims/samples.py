"""The comparisons that claims make: over the same samples, with whole images or volumes as exchangeable groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from misure.explainers import EXPLAINERS
from misure.paper.claims.claim import Part
from misure.paper.claims.significance import FEWEST_GROUPS, LEVEL, bootstrap_p, limits, sign_flip_p
from misure.paper.material import Material
from misure.paper.published import Pair
from misure.paper.query import at_threshold, paper_draw, select
from misure.paper.source import Origin
from misure.paper.statistics import resampled_means
from misure.paper.table import measured

METRICS = {
    "dice_explained": "Dice explained",
    "perturbation_ratio": "perturbation ratio",
    "seconds": "seconds per image",
    "n_dilations": "number of dilations",
}

_KEY = ["sample", "class_id"]
_KEPT = [*_KEY, "unit", "class_name", "prediction_size", "param_n_masks", *METRICS]
_VOLUMES = "synapse"
"""Its slices of one volume belong together."""


@dataclass(frozen=True)
class Method:
    """An explainer with its threshold and the parameters that differ from the defaults.

    Attributes:
        explainer: A name from ``misure.EXPLAINERS``.
        threshold: None where the map itself is the mask.
        parameters: Such as ``{"lr": 0.01}``.
        name: For people; by default the explainer's title and the threshold.
    """

    explainer: str
    threshold: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    name: str = ""

    @property
    def label(self) -> str:
        """What it is called in sentences."""
        title = EXPLAINERS[self.explainer].title
        return self.name or (title if self.threshold is None else f"{title} at {self.threshold:g}")


MSR = Method("msr")
SUFFICIENT = Method("sufficient_region")
RISE_LOW, RISE_HIGH = Method("rise", 0.2), Method("rise", 0.4)
CAM_LOW, CAM_HIGH = Method("seg_grad_cam", 0.05), Method("seg_grad_cam", 0.1)


@dataclass(frozen=True)
class Values:
    """One number per sample.

    Attributes:
        numbers: N, finite.
        groups: Image or volume of each, N.
        units: Records that they come from.
        group_word: What the groups are, in the plural.
    """

    numbers: NDArray[np.float64]
    groups: NDArray[np.int64]
    units: tuple[str, ...]
    group_word: str

    @property
    def n_groups(self) -> int:
        """How many images or volumes."""
        return len(np.unique(self.groups))

    def of(self, numbers: NDArray[np.float64]) -> Values:
        """Put other numbers of the same samples in place."""
        return Values(numbers, self.groups, self.units, self.group_word)

    def counts(self) -> dict[str, Any]:
        """Return what a part says of its samples."""
        return {"n": len(self.numbers), "n_groups": self.n_groups, "units": self.units}

    def too_few(self, of_what: str) -> Part | None:
        """Return a part that says so where no result could be significant, or None."""
        if self.n_groups >= FEWEST_GROUPS:
            return None
        word = self.group_word
        reason = (
            f"{of_what}: too few {word} ({self.n_groups}, with {len(self.numbers)} of the samples; it takes "
            f"{FEWEST_GROUPS} for any test to reach p < {LEVEL})"
        )
        return Part(of_what, missing=reason if len(self.numbers) else f"{of_what}: no records", **self.counts())


class Subject:
    """The records of one dataset and model.

    Args:
        material: What everything is made from.
        pair: Dataset and model.

    Attributes:
        records: Of the paper's Tables 1 to 6.
        group_word: What belongs together and is resampled as a whole, in the plural.
    """

    def __init__(self, material: Material, pair: Pair) -> None:
        self.pair = pair
        self.material = material
        self.records = paper_draw(material.run, pair)
        by_volume = pair.dataset == _VOLUMES and bool(self.records["group"].notna().all())
        self._known: dict[Method, pd.DataFrame] = {}
        self.group_word = "volumes" if by_volume else "images"
        self._column = "group" if by_volume else "sample"
        self._places = {name: place for place, name in enumerate(sorted(self.records[self._column].unique()))}

    @cached_property
    def origin(self) -> Origin:
        """Of the data and the network."""
        return Origin.of(self.records)

    def rows(self, method: Method) -> pd.DataFrame:
        """Return a method's results, one row per sample, with the group's number in ``place``."""
        if method not in self._known:
            rows = self.records[self.records["explainer"] == method.explainer]
            if len(rows):
                rows = at_threshold(select(rows, method.explainer, **method.parameters), method.threshold)
            places = rows[self._column].map(self._places)
            self._known[method] = rows.reindex(columns=_KEPT).assign(place=places).set_index(_KEY)
        return self._known[method]

    def table(self, metric: str, *methods: Method) -> tuple[list[NDArray[np.float64]], Values]:
        """Return a metric of several methods over the samples that all of them explained.

        Returns:
            The metric per method, and the samples with the first method's numbers.
        """
        found = [self.rows(method) for method in methods]
        found = shared([rows[rows[metric].notna()] for rows in found])
        columns = [rows[metric].to_numpy(dtype=float) for rows in found]
        units = tuple(sorted({unit for rows in found for unit in rows["unit"]}))
        places = found[0]["place"].to_numpy(dtype=np.int64)
        return columns, Values(columns[0], places, units, self.group_word)

    def higher(self, metric: str, high: Method, low: Method, margin: float = 0.0) -> Part:
        """Test that one method's mean is above another's, or not below it by more than a margin."""
        statistic = f"mean difference in {METRICS[metric]}, {high.label} minus {low.label}"
        (first, second), samples = self.table(metric, high, low)
        return shift(statistic, samples.of(first - second), -margin)

    def times_higher(self, metric: str, high: Method, low: Method, factor: float) -> Part:
        """Test that one method's mean is at least some times another's."""
        statistic = f"mean {METRICS[metric]} of {high.label} divided by that of {low.label}"
        (first, second), samples = self.table(metric, high, low)
        if part := samples.too_few(statistic):
            return part
        contrast = first - factor * second
        p = sign_flip_p(contrast, samples.groups)
        above, below = (resampled_means(side, samples.groups) for side in (first, second))
        value = _quotient(first.mean(), second.mean())
        low_end, high_end = limits(_quotient(above, below))
        agrees = bool(contrast.mean() > 0)
        distance = abs(float(contrast.mean()))
        return Part(statistic, float(value), low_end, high_end, p, agrees, distance, **samples.counts())

    def beyond(self, metric: str, method: Method, limit: float, *, above: bool) -> Part:
        """Test that a method's mean lies above or below a number."""
        (numbers,), samples = self.table(metric, method)
        return shift(f"mean {METRICS[metric]} of {method.label}", samples.of(numbers), limit, above=above)


def shared(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Keep the samples that all tables have, in the order of the first."""
    common = tables[0].index
    for table in tables[1:]:
        common = common.intersection(table.index, sort=False)
    return [table if table.index.equals(common) else table.loc[common] for table in tables]


def shift(statistic: str, samples: Values, limit: float, *, above: bool = True) -> Part:
    """Test that a mean lies above (or below) a limit.

    Args:
        statistic: What the mean is of.
        samples: The numbers.
        limit: What they are compared with.
        above: Which side is claimed.
    """
    if part := samples.too_few(statistic):
        return part
    numbers = samples.numbers
    p = sign_flip_p(numbers - limit, samples.groups)
    low, high = limits(resampled_means(numbers, samples.groups))
    mean = float(numbers.mean())
    agrees = mean > limit if above else mean < limit
    detail = f"median {measured(float(np.median(numbers)))}"
    return Part(statistic, mean, low, high, p, agrees, abs(mean - limit), detail=detail, **samples.counts())


def unpaired(statistic: str, first: Values, second: Values) -> Part:
    """Test that the mean of some samples is above that of others, by a bootstrap of the difference."""
    for side in (first, second):
        if part := side.too_few(statistic):
            return part
    draws = [resampled_means(side.numbers, side.groups, seed) for seed, side in enumerate((first, second))]
    value = float(first.numbers.mean() - second.numbers.mean())
    low, high = limits(draws[0] - draws[1])
    n, n_groups = len(first.numbers) + len(second.numbers), first.n_groups + second.n_groups
    units = tuple(sorted({*first.units, *second.units}))
    p = bootstrap_p(draws[0] - draws[1])
    return Part(statistic, value, low, high, p, value > 0, abs(value), n, n_groups, units)


def _quotient(above: Any, below: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(above, below)
