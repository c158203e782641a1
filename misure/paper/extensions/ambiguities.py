"""Readings of what the paper leaves open: which comes nearest to each printed number, and how far they move it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from misure.evaluation.bootstrap import resampled_means
from misure.explainers import EXPLAINERS
from misure.paper.extensions.cells import PrintedCell, printed_cells, readings_at
from misure.paper.extensions.paired import MARKS, groups, n_groups, nearest_shares, over_groups, shared_samples
from misure.paper.extensions.readings import ENOUGH_IMAGES, Reading
from misure.paper.material import Material
from misure.paper.prose import prose
from misure.paper.provenance import head_note
from misure.paper.published import Pair
from misure.paper.query import paper_draw
from misure.paper.source import Origin, marked
from misure.paper.statistics import bounds_of
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

_NUMBER = ["dataset", "model", "table", "method", "threshold", "setting", "measure"]

_Variant = tuple[Reading, str]
_Values = dict[_Variant, pd.Series]


def ambiguities_tables(material: Material) -> Iterator[Table]:
    """Make the comparison of readings, and the table of which comes nearest to each printed number."""
    frame = pd.concat([ambiguities_table(material.run, pair) for pair in material.pairs], ignore_index=True)
    nearest = nearest_table(frame)
    head = f"{summary(nearest)}\n\n{head_note(material.run, material.profile, material.pairs)}"
    notes = prose("ambiguities_notes.md.j2")
    number, paper = Column("measure", "Number", lambda name: _NAMES[name]), Column("paper", "Paper", printed)
    cut = Column("threshold", "Threshold", lambda threshold: "" if math.isnan(threshold) else f"{threshold:g}")
    setting = (DATASET, MODEL, Column("table", "Table", "Table {}".format), METHOD, cut, Column("setting", "Setting"))
    ours, away = Column("mean", "Ours", measured, low="low", high="high"), Column("distance", "Away", measured)
    share = Column("nearest_share", "Nearest", lambda share: f"{share:.0%}" if share >= 0 else "")
    compared = (replace(number, name="quantity"), Column("reading", "Reading"), paper, ours, away, share)
    shown = frame[frame["compared"]].reset_index(drop=True)
    title = marked("What the paper does not say, and what it costs", frame)
    columns = (*setting, *compared, Column("n", "n"), Column("note", "Remarks"), *MARKS)
    yield Table("ambiguities", title, columns, shown, head, notes, n_parts=3)
    literal = (Column("literal", "Literal", measured), Column("literal_distance", "Literal away", measured))
    found = (Column("nearest", "Nearest reading"), ours, away, replace(share, title="Share of resamples"))
    title = marked("Which reading comes nearest to each number that the paper prints", nearest)
    printed_ones = (*setting, number, paper, *literal, *found, Column("n", "n"), *MARKS)
    yield Table("nearest_reading", title, printed_ones, nearest, head, notes, n_parts=2)


def ambiguities_table(run: pd.DataFrame, pair: Pair) -> pd.DataFrame:
    """Compare readings with each number that Tables 1 to 6 print, over the samples that they share.

    Args:
        run: As :func:`misure.paper.query.latest_run` returns it.
        pair: Dataset and model.

    Returns:
        One row per printed number, reading (see :func:`misure.paper.extensions.cells.readings_at`) and definition
        (``quantity``, see :data:`QUANTITIES`). ``distance`` is between our mean and the printed number: the absolute
        difference for Dice, the absolute logarithm of the quotient for the ratio. ``nearest_share`` is in which share
        of 10,000 resamples of whole images the row is the nearest of all to its printed number; rows that tie share
        it. ``change_*`` is the mean difference from the literal reading, sample by sample. ``compared`` says whether
        there are several readings, at a setting that no table before has.
    """
    records = paper_draw(run, pair)
    explained: dict[Any, dict[Reading, pd.DataFrame]] = {}
    rows: list[dict[str, Any]] = []
    for cell in printed_cells(pair):
        key = cell.explainer, cell.threshold, *cell.changed.items()
        is_new = key not in explained
        if is_new:
            explained[key] = readings_at(cell, pair, records)
        number = {"dataset": pair.dataset_label, "model": pair.model_label, "table": cell.table}
        number |= {"method": EXPLAINERS[cell.explainer].title, "threshold": cell.threshold, "setting": cell.setting}
        number |= {"compared": is_new and len(explained[key]) > 1, **Origin.of(records).columns()}
        rows.extend(number | row for row in _rows(cell, explained[key]))
    return pd.DataFrame(rows).astype({"threshold": float, "paper": float, "nearest_share": float})


def _rows(cell: PrintedCell, explained: Mapping[Reading, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    literal, shared = next(iter(explained)), shared_samples(explained)
    for measure, definitions in QUANTITIES.items():
        paper = getattr(cell.paper, measure)
        named = definitions if cell.threshold is None or measure == "perturbation_ratio" else definitions[:1]
        values = {(of, name): rows[name].astype(float) for of, rows in shared.items() for name in named}
        # Records of older versions may lack a definition.
        values = {variant: column for variant, column in values.items() if len(column) and column.notna().all()}
        shares = _nearest_shares(values, measure, paper)
        for quantity in named:
            for reading in explained:
                row: dict[str, Any] = {"measure": measure, "quantity": quantity, "reading": reading.title}
                row |= {"literal": reading.literal and quantity == definitions[0], "paper": paper}
                row |= _numbers(values, (reading, quantity), (literal, definitions[0]))
                row |= {"distance": distance(measure, row["mean"], paper)}
                row |= {"nearest_share": shares.get((reading, quantity), math.nan)}
                yield row | {"note": _note(reading, explained, shared)}


def _numbers(values: _Values, variant: _Variant, literal: _Variant) -> dict[str, float]:
    """Return a variant's mean over images, and that of its difference from the literal one, sample by sample."""
    column, nothing = values.get(variant), pd.Series(dtype=float)
    ours = over_groups(nothing if column is None else column, bounds_of(variant[1]))
    change = over_groups(nothing if column is None or literal not in values else column - values[literal])
    return {
        **{part: getattr(ours, part) for part in ("mean", "low", "high", "median", "n")},
        "n_groups": 0 if column is None else n_groups(column),
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
    if paper is None or len(values) < 2 or n_groups(next(iter(values.values()))) < 2:
        return {}
    resamples = {variant: resampled_means(column.to_numpy(), groups(column)) for variant, column in values.items()}
    return nearest_shares({variant: distance(measure, means, paper) for variant, means in resamples.items()})


def _note(reading: Reading, explained: Mapping[Reading, pd.DataFrame], shared: Mapping[Reading, pd.DataFrame]) -> str:
    if not len(explained[reading]):
        return NOT_RUN
    if reading not in shared:
        return f"too few samples yet ({len(explained[reading])})"
    return "" if len(shared[reading]) else "no sample in common with the other readings"


def nearest_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Say which reading comes nearest to each printed number, and how far readings move it.

    Args:
        frame: As :func:`ambiguities_table` returns it, of one or more pairs.

    Returns:
        One row per printed number: our mean under the ``literal`` reading and its distance; where several readings
        have records, the ``nearest`` of them, with ``mean``, interval, ``distance`` and ``nearest_share``; the lowest
        and the highest of our means, of which reading and definition each is, their difference (``span``) and quotient
        (``factor``; infinite where the lowest is zero). What was not measured is empty.
    """
    return pd.DataFrame([_nearest(rows) for _, rows in frame.groupby(_NUMBER, sort=False, dropna=False)])


def _nearest(rows: pd.DataFrame) -> dict[str, Any]:
    known = rows[rows["n"] > 0].sort_values("distance", kind="stable")
    literal = known[known["literal"].astype(bool)]
    shared = (*_NUMBER, "paper", "compared", "source", "stand_in", "substitution", "scale")
    number: dict[str, Any] = {name: rows[name].iloc[0] for name in shared}
    number |= {name: int(rows[name].max()) for name in ("n", "n_groups")} | {"n_readings": known["reading"].nunique()}
    number |= {"literal": literal["mean"].max(), "literal_distance": literal["distance"].max()}  # of one row, or none
    several = known if number["n_readings"] > 1 else known.iloc[:0]
    ends = known["mean"]
    of = {"nearest": several[:1], "lowest": known[ends.eq(ends.min())][:1], "highest": known[ends.eq(ends.max())][:1]}
    for name, row in of.items():
        number[name] = _variant(row["reading"].iloc[0], row["quantity"].iloc[0]) if len(row) else ""
    number |= {name: several[name][:1].max() for name in ("mean", "low", "high", "distance", "nearest_share")}
    number |= {"lowest_mean": ends.min(), "highest_mean": ends.max(), "span": ends.max() - ends.min()}
    return number | {"factor": ends.max() / ends.min() if ends.min() else math.inf}


def _variant(reading: str, quantity: str) -> str:
    usual = any(quantity == definitions[0] for definitions in QUANTITIES.values())
    return reading if usual else f"{reading}, as {_NAMES[quantity]}"


def summary(nearest: pd.DataFrame) -> str:
    """Say in plain sentences, for each dataset and model, how far readings move Table 1 and which come nearest.

    Args:
        nearest: As :func:`nearest_table` returns it.
    """
    several = nearest[nearest["n_readings"] > 1].fillna({"threshold": 0})
    settings = {
        f"{dataset}, {model}": (rows[rows["table"].eq(1)].to_dict("records"), rows["nearest"].value_counts().to_dict())
        for dataset, model in nearest[["dataset", "model"]].drop_duplicates().itertuples(index=False)
        for rows in [several[several["dataset"].eq(dataset) & several["model"].eq(model)]]
    }
    words = {"names": _NAMES, "measured": measured, "printed": printed}
    return prose("ambiguities.md.j2", settings=settings, enough=ENOUGH_IMAGES, **words)
