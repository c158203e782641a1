"""What the paper leaves open, each reading tried: how far numbers move, and which comes nearest to the printed ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from misure.explainers import EXPLAINERS
from misure.paper.published import Pair, PaperValue, table1_reference
from misure.paper.query import at_threshold, paper_draw, select
from misure.paper.source import Origin
from misure.paper.statistics import NOTHING, Summary, resampled_means, summarise_groups
from misure.paper.tables.rows import NOT_RUN

QUANTITIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "dice_explained": ("dice_explained", "binary_dice_explained"),
        "perturbation_ratio": ("perturbation_ratio", "region_ratio"),
    }
)
"""What each printed number may mean, as columns of the records; the first is the literal reading."""

THRESHOLDS: Mapping[str, tuple[float | None, ...]] = MappingProxyType({"msr": (None,), "rise": (0.2, 0.4)})
"""The rows of Table 1 that are compared."""

_LEAST_SHARE = 0.5
"""A reading with a smaller share of the typical number of samples is left out: it would take samples from all."""

_KEY = ["sample", "class_id"]


@dataclass(frozen=True)
class Choice:
    """One reading of what the paper leaves open.

    Attributes:
        explainer: The method's name.
        title: The reading in words.
        parameters: What differs from the method's defaults.
    """

    explainer: str
    title: str
    parameters: tuple[tuple[str, Any], ...] = ()

    @property
    def literal(self) -> bool:
        """Whether it is the literal reading, which the defaults are."""
        return not self.parameters

    def differs_on(self, pair: Pair) -> bool:
        """Whether it can differ from the literal reading: black is zero where images are not normalised."""
        return bool(pair.mean) or dict(self.parameters).get("blanking") != "black"


def _choices(explainer: str, readings: Mapping[str, Mapping[str, Any]]) -> tuple[Choice, ...]:
    return tuple(Choice(explainer, title, tuple(parameters.items())) for title, parameters in readings.items())


_HALF = {"context_value": 0.5}
_POSITIVE = {"initial_support": "positive_first_channel"}
_AUTHORS = {"clamp_start": 11, "softmax_passes": 2, "returned": "last_forward", **_HALF, **_POSITIVE}

CHOICES = (
    *_choices(
        "msr",
        {
            "literal": {},
            "start at 0.5 around the object": _HALF,
            "start only where the first channel is positive": _POSITIVE,
            "both of these starts": {**_HALF, **_POSITIVE},
            "small values zeroed only from the twelfth iteration on": {"clamp_start": 11},
            "soft target": {"dice_target": "soft"},
            "softmax twice": {"softmax_passes": 2},
            "no weight decay": {"weight_decay": 0.0},
            "returns the mask before the last step": {"returned": "last_forward"},
            "returns the mask of the lowest loss": {"returned": "best"},
            "black blanking": {"blanking": "black"},
            "blanking with the mean colour": {"blanking": "mean"},
            "blanking with a blurred image": {"blanking": "blur"},
            "the authors' later code": _AUTHORS,
        },
    ),
    *_choices(
        "rise",
        {
            "literal": {},
            "bilinear masks": {"style": "bilinear"},
            "keep probability 0.5": {"keep_probability": 0.5},
            "keep probability 0.1": {"keep_probability": 0.1},
        },
    ),
)
"""Every reading, the literal one of each method first; ``configs/sweep/ambiguities*.yaml`` runs them."""


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
    parts = [
        row
        for explainer, thresholds in THRESHOLDS.items()
        for threshold in thresholds
        for row in _rows(records, pair, explainer, threshold)
    ]
    return pd.DataFrame(parts).astype({"threshold": float, "paper": float, "nearest_share": float})


def costs_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Say how far readings move each printed number.

    Args:
        frame: As :func:`ambiguities_table` returns it, of one or more pairs.

    Returns:
        One row per printed number: the lowest and the highest of our means, of which reading and definition each is,
        how many were compared, their difference (``span``) and quotient (``factor``; infinite where the lowest is
        zero). Columns are empty where nothing was measured.
    """
    by = ["dataset", "model", "method", "threshold", "measure"]
    return pd.DataFrame([_cost(rows) for _, rows in frame.groupby(by, sort=False, dropna=False)])


def _rows(records: pd.DataFrame, pair: Pair, explainer: str, threshold: float | None) -> Iterator[dict[str, Any]]:
    title = EXPLAINERS[explainer].title
    printed = table1_reference(pair).get((title, threshold), PaperValue())
    choices = [choice for choice in CHOICES if choice.explainer == explainer and choice.differs_on(pair)]
    found = {c: at_threshold(select(records, explainer, **dict(c.parameters)), threshold) for c in choices}
    shared = shared_samples(found)
    for measure, definitions in QUANTITIES.items():
        paper = getattr(printed, measure)
        named = definitions if threshold is None or measure == "perturbation_ratio" else definitions[:1]
        values = _measured(shared, named)
        shares = _nearest_shares(values, measure, paper)
        for quantity in named:
            for choice in choices:
                row: dict[str, Any] = {"dataset": pair.dataset_label, "model": pair.model_label, "method": title}
                row |= {"threshold": threshold, "measure": measure, "quantity": quantity, "reading": choice.title}
                row |= {"literal": choice.literal and quantity == definitions[0], "paper": paper}
                row |= _numbers(values, (choice, quantity), (choices[0], definitions[0]))
                row |= {"distance": distance(measure, row["mean"], paper)}
                row |= {"nearest_share": shares.get((choice, quantity), math.nan)}
                row |= {"note": _note(choice, found, shared)}
                yield row | Origin.of(records).columns()


_Values = dict[tuple[Choice, str], pd.Series]


def shared_samples(found: Mapping[Choice, pd.DataFrame]) -> dict[Choice, pd.DataFrame]:
    """Keep the samples that all readings have; readings with far fewer than the others are dropped.

    Args:
        found: One row per sample for each reading.

    Returns:
        Rows by sample and class, the same ones for each reading that is left.
    """
    counts = [len(rows) for rows in found.values() if len(rows)]
    least = _LEAST_SHARE * float(np.median(counts)) if counts else math.inf
    kept = {choice: rows.set_index(_KEY).sort_index() for choice, rows in found.items() if len(rows) >= least}
    everywhere = [rows.index for rows in kept.values()]
    for other in everywhere[1:]:
        everywhere[0] = everywhere[0].intersection(other)
    return {choice: rows.loc[everywhere[0]] for choice, rows in kept.items()}


def _measured(shared: Mapping[Choice, pd.DataFrame], names: tuple[str, ...]) -> _Values:
    """Return the values of each reading and definition; records of older versions may lack a definition."""
    values = {(choice, name): rows[name].astype(float) for choice, rows in shared.items() for name in names}
    return {key: column for key, column in values.items() if len(column) and column.notna().all()}


def _images(values: pd.Series) -> NDArray[np.int64]:
    return values.index.get_level_values("sample").to_numpy()


def _summary(values: pd.Series | None) -> Summary:
    return NOTHING if values is None else summarise_groups(values, _images(values))


def _numbers(values: _Values, mine: tuple[Choice, str], literal: tuple[Choice, str]) -> dict[str, float]:
    column, base = values.get(mine), values.get(literal)
    summary = _summary(column)
    change = NOTHING if column is None or base is None else _summary(column - base)
    row = {part: getattr(summary, part) for part in ("mean", "low", "high", "median", "n")}
    row["n_images"] = 0 if column is None else len(np.unique(_images(column)))
    return row | {f"change_{part}": getattr(change, part) for part in ("mean", "low", "high")}


def distance(measure: str, mean: Any, paper: float | None) -> Any:
    """Return how far means are from a printed number: of the Dice by difference, of the ratio by logarithm."""
    if paper is None:
        return math.nan
    if measure == "dice_explained":
        return abs(mean - paper)
    with np.errstate(divide="ignore"):  # a mean of zero is infinitely far
        return np.abs(np.log(np.asarray(mean, dtype=np.float64) / paper))[()]


def _nearest_shares(values: _Values, measure: str, paper: float | None) -> dict[tuple[Choice, str], float]:
    """Return in which share of the resamples of images each is the nearest to a printed number."""
    if paper is None or len(values) < 2 or len(np.unique(_images(next(iter(values.values()))))) < 2:
        return {}
    away = np.stack(
        [distance(measure, resampled_means(v.to_numpy(), _images(v)), paper) for v in values.values()]
    )  # readings x resamples
    nearest = away == away.min(axis=0)
    shares = (nearest / nearest.sum(axis=0)).mean(axis=1)
    return dict(zip(values, shares.tolist(), strict=True))


def _note(choice: Choice, found: Mapping[Choice, pd.DataFrame], shared: Mapping[Choice, pd.DataFrame]) -> str:
    if not len(found[choice]):
        return NOT_RUN
    if choice not in shared:
        return f"too few samples yet ({len(found[choice])})"
    return "" if len(shared[choice]) else "no sample in common with the other readings"


def _cost(rows: pd.DataFrame) -> dict[str, Any]:
    first = rows.iloc[0]
    cost = {name: first[name] for name in ("dataset", "model", "method", "threshold", "measure", "paper")}
    known = rows[rows["n"] > 0]
    literal = known[known["literal"].astype(bool)]
    cost |= {"n_readings": known["reading"].nunique(), "n": int(known["n"].max()) if len(known) else 0}
    cost |= {"n_images": int(known["n_images"].max()) if len(known) else 0}
    cost["literal"] = float(literal["mean"].iloc[0]) if len(literal) else math.nan
    for end, place in (("lowest", np.argmin), ("highest", np.argmax)) if len(known) else ():
        row = known.iloc[int(place(known["mean"].to_numpy()))]
        cost |= {end: row["mean"], f"{end}_reading": row["reading"], f"{end}_quantity": row["quantity"]}
    cost |= {"span": math.nan, "factor": math.nan}
    if len(known):
        cost["span"] = cost["highest"] - cost["lowest"]
        cost["factor"] = cost["highest"] / cost["lowest"] if cost["lowest"] else math.inf
    return cost | {name: first[name] for name in ("source", "stand_in", "substitution")}
