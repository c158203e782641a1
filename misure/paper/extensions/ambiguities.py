"""Readings of what the paper leaves open: how far each moves numbers, and which comes nearest to the printed ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from misure.evaluation.bootstrap import resampled_means
from misure.explainers import EXPLAINERS
from misure.paper.extensions.paired import MARKS, groups, nearest_shares, over_groups, shared_samples
from misure.paper.extensions.readings import ENOUGH_IMAGES, Reading, readings_of
from misure.paper.material import Material
from misure.paper.prose import prose
from misure.paper.provenance import head_note
from misure.paper.published import Pair, PaperValue, table1_reference
from misure.paper.query import paper_draw
from misure.paper.source import Origin, marked
from misure.paper.table import Column, Table, measured, printed
from misure.paper.tables.paper import DATASET, METHOD, MODEL
from misure.paper.tables.rows import NOT_RUN

QUANTITIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "dice_explained": ("dice_explained", "binary_dice_explained"),
        "perturbation_ratio": ("perturbation_ratio", "region_ratio"),
    }
)
"""What each printed number may mean, as columns of the records; the first is the literal reading."""

_NAMES = {
    "dice_explained": "Dice explained",
    "binary_dice_explained": "Dice explained, mask cut at zero",
    "perturbation_ratio": "perturbation ratio",
    "region_ratio": "perturbation ratio of the pixels that are shown",
}

_COMPARED = (("ambiguities", None), ("ambiguities_rise", 0.2), ("ambiguities_rise", 0.4))
"""The rows of Table 1 that are compared: the sweep with their readings, and the threshold."""

_NUMBER = ["dataset", "model", "method", "threshold", "measure"]

_Variant = tuple[Reading, str]
_Values = dict[_Variant, pd.Series]


def ambiguities_tables(material: Material) -> Iterator[Table]:
    """Make the comparison of readings, and the table of what they cost."""
    frame = pd.concat([ambiguities_table(material.run, pair) for pair in material.pairs], ignore_index=True)
    costs = costs_table(frame)
    head = f"{summary(frame, costs)}\n\n{head_note(material.run, material.profile, material.pairs)}"
    number = Column("measure", "Number", lambda name: _NAMES[name])
    setting = (DATASET, MODEL, METHOD, Column("threshold", "Threshold"))
    ours = Column("mean", "Ours", measured, low="low", high="high")
    compared = (
        *(Column("quantity", "Number", lambda name: _NAMES[name]), Column("reading", "Reading")),
        *(Column("paper", "Paper", printed), ours, Column("distance", "Away", measured)),
        *(Column("nearest_share", "Nearest", lambda share: f"{share:.0%}" if share >= 0 else ""), Column("n", "n")),
        *(Column("note", "Remarks"), *MARKS),
    )
    title = marked("What the paper does not say, and what it costs", frame)
    notes = prose("ambiguities_notes.md.j2")
    yield Table("ambiguities", title, (*setting, *compared), frame, head, notes, n_parts=3)
    moves = (
        *(number, Column("paper", "Paper", printed), Column("literal", "Literal", measured)),
        *(
            Column("lowest", "Lowest", measured),
            Column("lowest_reading", "Lowest reading"),
            Column("highest", "Highest", measured),
        ),
        *(Column("highest_reading", "Highest reading"), Column("factor", "Factor", measured), Column("n", "n"), *MARKS),
    )
    title = marked("How far the readings that the paper leaves open move its numbers", costs)
    yield Table("ambiguities_cost", title, (*setting, *moves), costs, head, notes, n_parts=2)


def ambiguities_table(run: pd.DataFrame, pair: Pair) -> pd.DataFrame:
    """Compare readings with each number that Table 1 prints, over the samples that they share.

    Args:
        run: As :func:`misure.paper.query.latest_run` returns it.
        pair: Dataset and model.

    Returns:
        One row per printed number, reading and definition (``quantity``, see :data:`QUANTITIES`). ``distance`` is
        between our mean and the printed number: the absolute difference for Dice, the absolute logarithm of the
        quotient for the ratio. ``nearest_share`` is in which share of 10,000 resamples of whole images the row is the
        nearest of all to its printed number; rows that tie share it. ``change_*`` is the mean difference from the
        literal reading, sample by sample.
    """
    records = paper_draw(run, pair)
    rows = [row for sweep, threshold in _COMPARED for row in _rows(records, pair, sweep, threshold)]
    return pd.DataFrame(rows).astype({"threshold": float, "paper": float, "nearest_share": float})


def _rows(records: pd.DataFrame, pair: Pair, sweep: str, threshold: float | None) -> Iterator[dict[str, Any]]:
    readings = [reading for reading in readings_of(sweep) if reading.differs_on(pair)]
    title = EXPLAINERS[readings[0].explainer].title
    printed_numbers = table1_reference(pair).get((title, threshold), PaperValue())
    explained = {reading: reading.rows(records, threshold) for reading in readings}
    shared = shared_samples(explained)
    for measure, definitions in QUANTITIES.items():
        paper = getattr(printed_numbers, measure)
        named = definitions if threshold is None or measure == "perturbation_ratio" else definitions[:1]
        values = {(of, name): rows[name].astype(float) for of, rows in shared.items() for name in named}
        # Records of older versions may lack a definition.
        values = {variant: column for variant, column in values.items() if len(column) and column.notna().all()}
        shares = _nearest_shares(values, measure, paper)
        for quantity in named:
            for reading in readings:
                row: dict[str, Any] = {"dataset": pair.dataset_label, "model": pair.model_label, "method": title}
                row |= {"threshold": threshold, "measure": measure, "quantity": quantity, "reading": reading.title}
                row |= {"literal": reading.literal and quantity == definitions[0], "paper": paper}
                row |= _numbers(values, (reading, quantity), (readings[0], definitions[0]))
                row |= {"distance": distance(measure, row["mean"], paper)}
                row |= {"nearest_share": shares.get((reading, quantity), math.nan)}
                row |= {"note": _note(reading, explained, shared)}
                yield row | Origin.of(records).columns()


def _numbers(values: _Values, variant: _Variant, literal: _Variant) -> dict[str, float]:
    """Return a variant's mean over images, and that of its difference from the literal one, sample by sample."""
    column, nothing = values.get(variant), pd.Series(dtype=float)
    ours = over_groups(nothing if column is None else column)
    change = over_groups(nothing if column is None or literal not in values else column - values[literal])
    return {
        **{part: getattr(ours, part) for part in ("mean", "low", "high", "median", "n")},
        "n_groups": 0 if column is None else len(np.unique(groups(column))),
        **{f"change_{part}": getattr(change, part) for part in ("mean", "low", "high")},
    }


def distance(measure: str, mean: Any, paper: float | None) -> Any:
    """Return how far means are from a printed number: of the Dice by difference, of the ratio by logarithm."""
    if paper is None:
        return math.nan
    if measure == "dice_explained":
        return abs(mean - paper)
    with np.errstate(divide="ignore"):  # a mean of zero is infinitely far
        return np.abs(np.log(np.asarray(mean, dtype=np.float64) / paper))[()]


def _nearest_shares(values: _Values, measure: str, paper: float | None) -> dict[_Variant, float]:
    """Return in which share of the resamples of images each is the nearest to a printed number."""
    if paper is None or len(values) < 2 or len(np.unique(groups(next(iter(values.values()))))) < 2:
        return {}
    resamples = {variant: resampled_means(column.to_numpy(), groups(column)) for variant, column in values.items()}
    return nearest_shares({variant: distance(measure, means, paper) for variant, means in resamples.items()})


def _note(reading: Reading, explained: Mapping[Reading, pd.DataFrame], shared: Mapping[Reading, pd.DataFrame]) -> str:
    if not len(explained[reading]):
        return NOT_RUN
    if reading not in shared:
        return f"too few samples yet ({len(explained[reading])})"
    return "" if len(shared[reading]) else "no sample in common with the other readings"


def costs_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Say how far readings move each printed number.

    Args:
        frame: As :func:`ambiguities_table` returns it, of one or more pairs.

    Returns:
        One row per printed number: the lowest and the highest of our means, of which reading and definition each is,
        how many were compared, their difference (``span``) and quotient (``factor``; infinite where the lowest is
        zero). Columns are empty where nothing was measured.
    """
    return pd.DataFrame([_cost(rows) for _, rows in frame.groupby(_NUMBER, sort=False, dropna=False)])


def _cost(rows: pd.DataFrame) -> dict[str, Any]:
    first = rows.iloc[0]
    known = rows[rows["n"] > 0]
    literal = known.loc[known["literal"].astype(bool), "mean"]
    cost = {name: first[name] for name in (*_NUMBER, "paper")} | {"n_readings": known["reading"].nunique()}
    cost |= {name: int(known[name].max()) if len(known) else 0 for name in ("n", "n_groups")}
    cost |= {"literal": float(literal.iloc[0]) if len(literal) else math.nan}
    nothing = dict.fromkeys(("mean", "reading", "quantity"), math.nan)
    for end, place in (("lowest", pd.Series.argmin), ("highest", pd.Series.argmax)):
        row = known.iloc[place(known["mean"])] if len(known) else nothing
        cost |= {end: row["mean"], f"{end}_reading": row["reading"], f"{end}_quantity": row["quantity"]}
    low, high = cost["lowest"], cost["highest"]
    cost |= {"span": high - low, "factor": high / low if low else math.inf}
    return cost | {name: first[name] for name in ("source", "stand_in", "substitution", "scale")}


def summary(frame: pd.DataFrame, costs: pd.DataFrame) -> str:
    """Say in plain sentences, for each dataset and model, how far readings move the numbers and which is nearest."""
    known = frame.dropna(subset="distance")
    best = known.loc[known.groupby(_NUMBER, dropna=False)["distance"].idxmin()]
    nearest = {tuple(row[name] for name in _NUMBER): row for row in best.fillna({"threshold": 0}).to_dict("records")}
    settings = {
        f"{dataset}, {model}": [
            (cost, nearest.get(tuple(cost[name] for name in _NUMBER)))
            for cost in rows[rows["n_readings"] > 1].fillna({"threshold": 0}).to_dict("records")
        ]
        for (dataset, model), rows in costs.groupby(["dataset", "model"], sort=False)
    }
    words = {"names": _NAMES, "measured": measured, "printed": printed}
    return prose("ambiguities.md.j2", settings=settings, enough=ENOUGH_IMAGES, **words)
