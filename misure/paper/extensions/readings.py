"""Readings of where MSR's second stage starts, compared over the same samples.

The paper's text leaves the start open and its numbers do not fit the plain reading, see
:class:`misure.explainers.msr.MSR`; this is the evidence for and against each reading.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from misure.explainers.sufficient_region import SufficientRegion
from misure.paper.maps import load_maps
from misure.paper.published import Pair, lr_lambda_reference
from misure.paper.query import at_threshold, paper_draw, select
from misure.paper.source import Origin, distinct
from misure.paper.statistics import NOTHING, Summary, resampled_means, summarise_groups
from misure.paper.tables.rows import NOT_RUN

RATES = (0.001, 0.1)
LAMBDA = 0.01
METRICS = ("dice_explained", "perturbation_ratio")
_NUMBERS = tuple((metric, rate) for metric in METRICS for rate in RATES)

SUFFICIENT_REGION = SufficientRegion.title
"""The row that the readings start from."""

FAR_BELOW = 0.5
"""A perturbation ratio below this is far below 1."""

_LEAST_SHARE = 0.5
"""A setting with a smaller share of the typical number of samples is left out: it would take samples from all."""

_KEY = ["sample", "class_id"]
_Cells = dict[tuple["Reading", float], pd.DataFrame]


@dataclass(frozen=True)
class Reading:
    """Where the second stage starts, and how often softmax is applied to the logits.

    Attributes:
        support: Value of MSR's ``initial_support``.
        context: Value of its ``context_value``.
        passes: Value of its ``softmax_passes``.
    """

    support: str = "sufficient_region"
    context: float = 1.0
    passes: int = 1

    @property
    def title(self) -> str:
        """The reading in words."""
        start = (
            "1 on the whole sufficient region" if self.context == 1 else f"1 on the object, {self.context:g} around it"
        )
        limited = ", only where the first channel is positive" if self.support == "positive_first_channel" else ""
        return start + limited + (", softmax twice" if self.passes == 2 else "")

    @property
    def parameters(self) -> dict[str, Any]:
        """The reading as parameters of MSR."""
        return {"initial_support": self.support, "context_value": self.context, "softmax_passes": self.passes}


LITERAL = Reading()
READINGS = tuple(
    Reading(support, context, passes)
    for passes in (1, 2)
    for support in ("sufficient_region", "positive_first_channel")
    for context in (1.0, 0.5)
)
_OPTIONAL = tuple(reading for reading in READINGS if reading.passes > 1)
"""Shown only where there are records."""


def readings_table(run: pd.DataFrame, pair: Pair, maps_folder: Path) -> pd.DataFrame:
    """Compare readings over the samples that all of them have.

    Args:
        run: As :func:`misure.paper.query.latest_run` returns it.
        pair: Dataset and model.
        maps_folder: Where the saved maps are, for the share of the object that is kept.

    Returns:
        A row for the sufficient region, then one per reading, the literal one first. Columns end in the learning
        rate; intervals resample whole images. ``factor`` is how far the four means are from the paper's: the
        geometric mean of their ratios, each taken upwards; ``nearest_share`` is in which share of the resamples a
        reading is the nearest of all.
    """
    records = paper_draw(run, pair)
    found = {
        (reading, rate): at_threshold(select(records, "msr", lr=rate, lam=LAMBDA, **reading.parameters), None)
        for reading in READINGS
        for rate in RATES
    }
    cells = _common(found)
    shares = _nearest_shares(cells, pair)
    rows = [_sufficient_region_row(records, pair, cells)]
    for reading in READINGS:
        counts = [len(found[reading, rate]) for rate in RATES]
        if reading not in _OPTIONAL or any(counts):
            rows.append(
                _row(records, pair, reading, cells, counts, maps_folder=maps_folder)
                | {"nearest_share": shares.get(reading)}
            )
    return pd.DataFrame(rows).astype({"nearest_share": float, "factor": float})


def _common(found: _Cells) -> _Cells:
    """Keep the samples that every setting has; settings with far fewer than the others are dropped."""
    counts = [len(rows) for rows in found.values() if len(rows)]
    if not counts:
        return {}
    kept = {key: rows.set_index(_KEY) for key, rows in found.items() if len(rows) >= _LEAST_SHARE * np.median(counts)}
    shared = next(iter(kept.values())).index
    for rows in kept.values():
        shared = shared.intersection(rows.index)
    return {key: rows.loc[shared.sort_values()] for key, rows in kept.items()}


def _images(rows: pd.DataFrame) -> NDArray[np.int64]:
    return rows.index.get_level_values("sample").to_numpy()


def _row(
    records: pd.DataFrame, pair: Pair, reading: Reading, cells: _Cells, counts: list[int], *, maps_folder: Path
) -> dict[str, Any]:
    mine = {rate: cells[reading, rate] for rate in RATES if (reading, rate) in cells}
    row = _heading(pair, reading.title, mine.get(RATES[0], mine.get(RATES[1])))
    row |= {**reading.parameters, "default": reading == LITERAL}
    printed = lr_lambda_reference(pair)
    for metric, rate in _NUMBERS:
        summary, paper = _summary(mine.get(rate), metric), getattr(printed[LAMBDA, rate], metric)
        row |= _columns(f"{metric}_{rate:g}", summary)
        row[f"paper_{metric}_{rate:g}"] = paper
        defined = not math.isnan(summary.low)
        row[f"paper_inside_{metric}_{rate:g}"] = summary.low <= paper <= summary.high if defined else None
    row |= _columns("far_below", _far_below(mine.get(RATES[1])))
    row |= _columns("dice_change", _change(mine)) | _columns(
        "object_kept", object_kept(mine.get(RATES[1]), maps_folder)
    )
    few = f"too few samples yet ({' and '.join(map(str, counts))})" if any(counts) else NOT_RUN
    note = "" if len(mine) == len(RATES) else few
    return row | {"factor": _factor(row), "note": note} | Origin.of(records).columns()


def _sufficient_region_row(records: pd.DataFrame, pair: Pair, cells: _Cells) -> dict[str, Any]:
    rows = at_threshold(select(records, "sufficient_region"), None).set_index(_KEY)
    if cells:
        rows = rows.loc[rows.index.intersection(next(iter(cells.values())).index)]
    row = _heading(pair, SUFFICIENT_REGION, rows)
    for metric in METRICS:
        row |= _columns(metric, _summary(rows, metric))
    return row | {"default": False, "note": "" if len(rows) else NOT_RUN} | Origin.of(records).columns()


def _heading(pair: Pair, title: str, rows: pd.DataFrame | None) -> dict[str, Any]:
    known = rows if rows is not None else pd.DataFrame(index=pd.MultiIndex.from_tuples([], names=_KEY))
    return {
        "dataset": pair.dataset_label,
        "model": pair.model_label,
        "reading": title,
        "n_samples": len(known),
        "n_images": len(np.unique(_images(known))),
        "profile": distinct(known["profile"]) if len(known) else "",
    }


def _columns(name: str, summary: Summary) -> dict[str, float]:
    return {f"{name}_{part}": getattr(summary, part) for part in ("mean", "low", "high", "median", "n")}


def _summary(rows: pd.DataFrame | None, metric: str) -> Summary:
    return NOTHING if rows is None else summarise_groups(rows[metric].astype(float), _images(rows))


def _change(mine: dict[float, pd.DataFrame]) -> Summary:
    """Summarise how much Dice explained rises with the learning rate, sample by sample."""
    if len(mine) < len(RATES):
        return NOTHING
    low, high = (mine[rate]["dice_explained"].astype(float) for rate in RATES)
    return summarise_groups(high - low, _images(mine[RATES[0]]))


def _far_below(rows: pd.DataFrame | None) -> Summary:
    """Summarise how many samples have a ratio far below 1, which a few small predictions cannot decide."""
    if rows is None:
        return NOTHING
    return summarise_groups((rows["perturbation_ratio"] < FAR_BELOW).astype(float), _images(rows))


def object_kept(rows: pd.DataFrame | None, maps_folder: Path) -> Summary:
    """Summarise which share of the object's pixels is not zero in the mask, over samples with saved maps.

    Args:
        rows: Records by sample and class; None for none.
        maps_folder: Where the maps are.

    Raises:
        MisureError: If a map is damaged.
    """
    if rows is None:
        return NOTHING
    shares: dict[int, float] = {}
    for place, unit in enumerate(rows["unit"]):
        maps = load_maps(maps_folder, unit)
        if maps is not None:
            shares[place] = float((maps["saliency"] > 0)[maps["region"]].mean())
    return summarise_groups(shares.values(), _images(rows)[list(shares)])


def _factor(row: dict[str, Any]) -> float:
    """Return by which factor the four means differ from the paper's; NaN where one is missing."""
    names = [f"{metric}_{rate:g}" for metric, rate in _NUMBERS]
    means = np.array([[row[f"{name}_mean"]] for name in names])
    return float(_factors(means, np.array([row[f"paper_{name}"] for name in names]))[0])


def _factors(means: NDArray[np.float64], paper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, for each column of means, by which factor they differ from the paper's numbers on average."""
    with np.errstate(divide="ignore"):  # a mean of zero is infinitely far
        factors: NDArray[np.float64] = np.exp(np.abs(np.log(means / paper[:, None])).mean(axis=0))
    return factors


def _nearest_shares(cells: _Cells, pair: Pair) -> dict[Reading, float]:
    """Return in which share of the resamples of images each complete reading is the nearest to the paper."""
    complete = [reading for reading in READINGS if all((reading, rate) in cells for rate in RATES)]
    if len(complete) < 2 or len(np.unique(_images(cells[complete[0], RATES[0]]))) < 2:
        return {}
    printed = lr_lambda_reference(pair)
    paper = np.array([getattr(printed[LAMBDA, rate], metric) for metric, rate in _NUMBERS])
    nearest = np.argmin([_factors(_resampled(cells, reading), paper) for reading in complete], axis=0)
    return {reading: float((nearest == place).mean()) for place, reading in enumerate(complete)}


def _resampled(cells: _Cells, reading: Reading) -> NDArray[np.float64]:
    """Return a reading's four means over each resample: 4 x resamples."""
    rows = [(metric, cells[reading, rate]) for metric, rate in _NUMBERS]
    return np.stack([resampled_means(of[metric].to_numpy(float), _images(of)) for metric, of in rows])
