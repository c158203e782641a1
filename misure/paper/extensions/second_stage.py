"""Readings of where MSR's second stage starts, compared over the same samples at two learning rates.

The paper's text leaves the start open and its numbers do not fit the plain reading, see
:class:`misure.explainers.msr.MSR`; this is the evidence for and against each reading.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from misure.evaluation.bootstrap import resampled_means
from misure.explainers import EXPLAINERS
from misure.explainers.sufficient_region import SufficientRegion
from misure.paper.extensions.paired import KEY, MARKS, columns, groups, n_groups, nearest_shares, shared_samples
from misure.paper.extensions.readings import ENOUGH_IMAGES, Reading, readings_of
from misure.paper.maps import load_maps
from misure.paper.material import Material
from misure.paper.prose import prose
from misure.paper.provenance import head_note
from misure.paper.published import Pair, lr_lambda_reference
from misure.paper.query import at_threshold, paper_draw, select
from misure.paper.source import Origin, distinct, marked
from misure.paper.table import Column, Table, estimate, measured, printed
from misure.paper.tables.paper import N
from misure.paper.tables.rows import NOT_RUN

RATES = (0.001, 0.1)
LAMBDA = 0.01
METRICS = ("dice_explained", "perturbation_ratio")
_CELLS = tuple((metric, rate) for metric in METRICS for rate in RATES)

SUFFICIENT_REGION = SufficientRegion.title
"""The row that the readings start from."""

FAR_BELOW = 0.5
"""A perturbation ratio below this is far below 1."""

_PARAMETERS = ("initial_support", "context_value", "softmax_passes")

_Cells = dict[tuple[Reading, float], pd.DataFrame]


def second_stage(material: Material, pair: Pair) -> Table:
    """Compare readings beside a pair's table of learning rate and lambda, with a verdict."""
    frame = second_stage_table(material.run, pair, material.maps_folder)
    title = (
        f"Table {pair.lr_lambda_table} at lambda {LAMBDA:g} under several readings of where MSR's second stage starts"
    )
    return Table(
        f"table{pair.lr_lambda_table}_readings",
        marked(title, frame),
        (Column("reading", "Reading"), *_shown(), N, Column("note", "Remarks"), *MARKS),
        frame,
        head_note(material.run, material.profile, [pair]),
        verdict(frame),
    )


def _shown() -> Iterator[Column]:
    for rate in RATES:
        for metric, title in (("dice_explained", "Dice explained"), ("perturbation_ratio", "Perturbation ratio")):
            name = f"{metric}_{rate:g}"
            yield Column(f"paper_{name}", f"{title} at {rate:g}, paper", printed)
            yield estimate(name, f"{title} at {rate:g}, ours", paper=f"paper_{name}")
    yield estimate("object_kept", "Object kept")
    yield Column("factor", "Factor from the paper's", measured)


def second_stage_table(run: pd.DataFrame, pair: Pair, maps_folder: Path) -> pd.DataFrame:
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
    records, readings = paper_draw(run, pair), readings_of("table5_readings")
    explained = {(of, rate): of.rows(records, lr=rate, lam=LAMBDA) for of in readings for rate in RATES}
    nothing = next(iter(explained.values())).iloc[:0]
    cells = shared_samples(explained)
    paper = {f"{metric}_{rate:g}": getattr(lr_lambda_reference(pair)[LAMBDA, rate], metric) for metric, rate in _CELLS}
    shares = _nearest_shares(cells, readings, list(paper.values()))
    rows = [_sufficient_region(records, pair, next(iter(cells.values()), None))]
    for reading in readings:
        counts = [len(explained[reading, rate]) for rate in RATES]
        if not reading.swept and not any(counts):
            continue
        slow, fast = (cells.get((reading, rate), nothing) for rate in RATES)
        row = _heading(pair, reading.title, fast if slow.empty else slow)
        row |= {
            name: (EXPLAINERS["msr"].published().parameters | dict(reading.parameters))[name] for name in _PARAMETERS
        }
        row |= {"default": reading.literal} | columns(_numbers(slow, fast, maps_folder))
        row |= {f"paper_{name}": value for name, value in paper.items()}
        row |= {f"paper_inside_{name}": _is_inside(row, name) for name in paper}
        row["factor"] = _factors([[row[f"{name}_mean"]] for name in paper], list(paper.values()))[0]
        row["nearest_share"] = shares.get(reading)
        few = f"too few samples yet ({' and '.join(map(str, counts))})" if any(counts) else NOT_RUN
        row["note"] = "" if all((reading, rate) in cells for rate in RATES) else few
        rows.append(row | Origin.of(records).columns())
    return pd.DataFrame(rows).astype({"nearest_share": float, "factor": float})


def _sufficient_region(records: pd.DataFrame, pair: Pair, shared: pd.DataFrame | None) -> dict[str, Any]:
    rows = at_threshold(select(records, "sufficient_region"), None).set_index(KEY)
    if shared is not None:
        rows = rows.loc[rows.index.intersection(shared.index)]
    row = _heading(pair, SUFFICIENT_REGION, rows) | columns(rows[list(METRICS)])
    return row | {"default": False, "note": "" if len(rows) else NOT_RUN} | Origin.of(records).columns()


def _heading(pair: Pair, title: str, rows: pd.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {"dataset": pair.dataset_label, "model": pair.model_label, "reading": title}
    row |= {"n_samples": len(rows), "n_groups": n_groups(rows)}
    return row | {"profile": distinct(rows["profile"])}


def _numbers(slow: pd.DataFrame, fast: pd.DataFrame, maps_folder: Path) -> dict[str, pd.Series]:
    """Return what a reading is judged by, each by sample.

    Args:
        slow: Records at the small learning rate.
        fast: Records of the same samples at the large one.
        maps_folder: Where the saved maps are.
    """
    at = dict(zip(RATES, (slow, fast), strict=True))
    return {
        **{f"{metric}_{rate:g}": at[rate][metric] for metric, rate in _CELLS},
        "far_below": fast["perturbation_ratio"] < FAR_BELOW,  # a few small predictions cannot decide it
        "dice_change": fast["dice_explained"] - slow["dice_explained"],
        "object_kept": fast["unit"].map(lambda unit: _object_kept(maps_folder, unit)).astype(float),
    }


def _object_kept(maps_folder: Path, unit: str) -> float:
    """Return which share of the object's pixels is not zero in the mask; NaN where no maps were saved."""
    maps = load_maps(maps_folder, unit)
    return math.nan if maps is None else float((maps["saliency"] > 0)[maps["region"]].mean())


def _is_inside(row: dict[str, Any], name: str) -> bool | None:
    """Tell whether the paper's value lies inside our interval; None where there is none."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return None if math.isnan(low) else low <= row[f"paper_{name}"] <= high


def _factors(means: ArrayLike, paper: Sequence[float]) -> NDArray[np.float64]:
    """Return, for each column of means, by which factor they differ from the paper's numbers on average."""
    with np.errstate(divide="ignore"):  # a mean of zero is infinitely far
        logarithms = np.log(np.asarray(means, dtype=np.float64) / np.array(paper)[:, None])
    factors: NDArray[np.float64] = np.exp(np.abs(logarithms).mean(axis=0))
    return factors


def _nearest_shares(cells: _Cells, readings: Sequence[Reading], paper: Sequence[float]) -> dict[Reading, float]:
    """Return in which share of the resamples of images each complete reading is the nearest to the paper."""
    complete = [reading for reading in readings if all((reading, rate) in cells for rate in RATES)]
    if len(complete) < 2 or n_groups(cells[complete[0], RATES[0]]) < 2:
        return {}
    return nearest_shares({reading: _factors(_resampled(cells, reading), paper) for reading in complete})


def _resampled(cells: _Cells, reading: Reading) -> NDArray[np.float64]:
    """Return a reading's four means over each resample: 4 x resamples."""
    rows = [(metric, cells[reading, rate]) for metric, rate in _CELLS]
    return np.stack([resampled_means(of[metric].to_numpy(float), groups(of)) for metric, of in rows])


def verdict(frame: pd.DataFrame) -> str:
    """Judge readings in words that say no more than the intervals do.

    Args:
        frame: As :func:`second_stage_table` returns it.
    """
    complete = frame[frame["factor"].notna()].to_dict("records")
    inside = [f"paper_inside_{metric}_{rate:g}" for metric, rate in _CELLS]
    for row in complete:
        row["outside"] = sum(not row[name] for name in inside)
    region = frame.iloc[0]
    values = {"complete": complete, "enough": ENOUGH_IMAGES, "measured": measured, "far": FAR_BELOW}
    return prose("second_stage.md.j2", region=region, origin=Origin.of_row(region), **values)
