"""The selection of records that a table or figure is made from.

A sample is a (dataset, model, sample number, class). Numbers of different profiles, weights or
datasets are never mixed, and no sample counts twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from misure.errors import MisureError, did_you_mean
from misure.explainers import EXPLAINERS
from misure.paper.published import PAIRS, Pair, grouped
from misure.sweep.records import ADDED_ATTRIBUTES

METRICS = ("dice_explained", "perturbation_ratio", "region_ratio", "binary_dice_explained")

IDENTITY = (
    "unit",
    "status",
    "created",
    "dataset",
    "dataset_fingerprint",
    "dataset_source",
    "stand_in",
    "model",
    "weights",
    "profile",
    "explainer",
    "sample",
    "class_id",
    "input_noise",
)
"""What every record has."""

RESULTS = (
    "reason",
    "threshold",
    *METRICS,
    "prediction_size",
    "n_dilations",
    "truth_dice",
    "seconds",
    "batch_size",
    "precision",
    "device",
    "code_version",
    "class_name",
    "group",
    "confidence",
    "draw",
    "drawn",
    "intervention",
    "substitution",
    "network_source",
    "precision_reason",
    "initial_weights",
    "scale",
    "credit_licence",
    "credit_licence_name",
    "credit_licence_url",
    "credit_url",
)
"""What a finished record has besides; the parameters are columns named ``param_<name>``.

Records of older versions lack what stands last, from the class name on: see :func:`latest_run`.
"""

SAMPLE = ["dataset", "model", "sample", "class_id"]
"""The columns that name a sample."""

_FREE = ("seed", "n_masks", "n_iterations", "thresholds")
"""Parameters that a profile or a user may change without leaving the paper's setting."""

INDEPENDENT = "independent"
"""The column that :func:`latest_run` adds: the image, patient or volume of a sample, whose samples belong together."""

SETTING = "setting"
"""The column that :func:`latest_run` adds: all parameters as JSON."""

WORK = ("param_seed", "param_n_masks", "param_n_iterations")
"""Columns that selecting by parameters leaves open, as a profile may change them."""

_COUNTED_FREE = [*WORK, "precision"]

_DECIDING = [
    *(*SAMPLE, "threshold", "status", "created", "explainer", "input_noise", "intervention", "scale"),
    *(SETTING, *_COUNTED_FREE),
]
"""Columns that a selection looks at; the other sixty columns are taken once it is made."""


@dataclass(frozen=True)
class Tally:
    """Samples that have no numbers.

    Attributes:
        skipped: Samples skipped, because there was nothing to explain.
        failed: Samples whose computation failed.
    """

    skipped: int
    failed: int


def latest_run(records: pd.DataFrame, profile: str) -> pd.DataFrame:
    """Keep one profile and, for each dataset and model, only what was made with the newest weights.

    Where the same weights met several versions of a dataset (other fingerprints), the newest stays.
    A record without a class name gets its class's from the others, or ``"class 1"``, a finished one
    without an attribute that came later what records had before it; one without a draw keeps it missing,
    which counts as drawn early (see :func:`paper_draw`).

    Args:
        records: One row per unit and threshold, see :data:`IDENTITY` and :data:`RESULTS`.
        profile: A name from ``configs/profile/``, such as ``"quick"`` or ``"reference"``.

    Returns:
        Rows in the order of the samples; no rows where the profile was not run.

    Raises:
        MisureError: If the records lack a column.
    """
    missing = [name for name in IDENTITY if name not in records.columns]
    if missing and len(records):
        raise MisureError(f"the records lack the columns {', '.join(missing)}: they were not written by this version")
    records = records.reindex(columns=list(dict.fromkeys([*records.columns, *IDENTITY, *RESULTS])))
    run = records[records["profile"] == profile]
    unsaid = run[[*ADDED_ATTRIBUTES]].isna()
    unsaid["precision"] &= run["status"].eq("done")  # what older versions skipped had none
    said = {name: run[name].astype(object).mask(unsaid[name], before) for name, before in ADDED_ATTRIBUTES.items()}
    run = run.assign(created=_times(run["created"]), class_name=_class_names(run), **said)
    run[INDEPENDENT] = independent(run)
    made_with = ["weights", "dataset_fingerprint"]
    by_age = run.sort_values("created", kind="stable").groupby(["dataset", "model"])
    newest = by_age[made_with].transform("last").reindex(run.index)
    chosen = run[run[made_with].eq(newest).all(axis=1)]
    order = [*SAMPLE, "explainer", "threshold", "unit"]
    return chosen.sort_values(order, ignore_index=True).assign(**{SETTING: _settings})


def select(records: pd.DataFrame, explainer: str, **overrides: Any) -> pd.DataFrame:
    """Select the results of an explainer at its published parameters, except for overrides.

    Lengths in pixels are those of the paper's images; where images were smaller, so were they. The seed, the
    thresholds and the numbers of RISE masks and MSR iterations are not compared unless overridden, because a
    profile may change them. Where several seeds, counts or precisions are left, the one with the most samples is
    taken (the newest of equals).

    Args:
        records: As :func:`latest_run` returns them.
        explainer: A name from ``misure.EXPLAINERS``.
        **overrides: Parameters that differ from these, such as ``lr=0.01``.

    Returns:
        Rows without input noise whose status is ``"done"``, one per sample and threshold.

    Raises:
        MisureError: If the explainer or a parameter does not exist.
    """
    return select_and_tally(records, explainer, **overrides)[0]


def select_and_tally(records: pd.DataFrame, explainer: str, **overrides: Any) -> tuple[pd.DataFrame, Tally]:
    """Do as :func:`select` does, and count the samples that have no numbers."""
    own = records[records["explainer"].eq(explainer)].reset_index(drop=True)
    rows = at_parameters(own.reindex(columns=_DECIDING), explainer, **overrides)
    if rows.empty:
        return own.head(0), Tally(0, 0)
    done = _one_setting(rows[rows["status"] == "done"], overrides)
    newest = done.sort_values("created", kind="stable").drop_duplicates([*SAMPLE, "threshold"], keep="last")
    explained = _samples(done)
    skipped = _samples(rows[rows["status"] == "skipped"]) - explained
    failed = _samples(rows[rows["status"] == "failed"]) - explained - skipped
    places = newest.sort_values([*SAMPLE, "threshold"]).index
    return own.iloc[places].reset_index(drop=True), Tally(len(skipped), len(failed))


def at_parameters(records: pd.DataFrame, explainer: str, **overrides: Any) -> pd.DataFrame:
    """Keep the undisturbed rows of an explainer at parameters as for :func:`select`, finished or not."""
    if explainer not in EXPLAINERS:
        raise MisureError(f"there is no method {explainer!r}{did_you_mean(explainer, EXPLAINERS)}")
    usual = EXPLAINERS[explainer].published()
    for name in overrides:
        if name not in usual.parameters:
            raise MisureError(f"{explainer} has no parameter {name!r}{did_you_mean(name, usual.parameters)}")
    if records.empty:
        return records
    rows = records[(records["explainer"] == explainer) & undisturbed(records)]
    fits = [pd.Series(False, rows.index)]
    for scale, reduced in rows.groupby(rows["scale"].astype(float).fillna(1.0)):
        at_scale = replace(usual, **overrides).at_scale(float(str(scale))).parameters
        wanted = {name: value for name, value in at_scale.items() if name not in _FREE or name in overrides}
        of_setting = {s: _fits(json.loads(s), wanted, usual.parameters) for s in reduced[SETTING].unique()}
        fits.append(reduced[SETTING].map(of_setting).astype(bool))
    return rows[pd.concat(fits).groupby(level=0).any()]


def independent(records: pd.DataFrame) -> pd.Series:
    """Name the group of each record; one of an older version that knows none is grouped by its image."""
    groups = records["group"].astype(object).groupby([records["dataset"], records["sample"]]).transform("first")
    return groups.where(groups.notna(), "image " + records["sample"].astype(str)).astype(str)


def undisturbed(records: pd.DataFrame) -> pd.Series:
    """Mark the records of images without noise and of networks as they were trained."""
    return records["input_noise"].eq(0) & records["intervention"].eq("")


def at_threshold(rows: pd.DataFrame, threshold: float | None) -> pd.DataFrame:
    """Keep the rows evaluated at a threshold; None means that the map itself was the mask."""
    if threshold is None:
        return rows[rows["threshold"].isna()]
    return rows[np.isclose(rows["threshold"].astype(float), threshold)]


def of_pair(records: pd.DataFrame, pair: Pair) -> pd.DataFrame:
    """Keep the rows of one dataset and model, also of samples beyond the paper's number."""
    return records[(records["dataset"] == pair.dataset) & (records["model"] == pair.model)]


def shown_pairs(run: pd.DataFrame) -> list[Pair]:
    """Choose what tables and figures show of the paper's datasets and models.

    Several networks of ours may stand for one of the paper's. Only one of them is shown: the first that has
    finished records, and the first of all where none has, as holes.

    Args:
        run: As :func:`latest_run` returns it.
    """
    done = run[run["status"] == "done"]
    return [next((pair for pair in pairs if len(of_pair(done, pair))), pairs[0]) for pairs in grouped(PAIRS, "label")]


def further_pairs(run: pd.DataFrame) -> list[Pair]:
    """Name the datasets and models with finished records that the paper does not have, as the records spell them."""
    done = run[run["status"] == "done"]
    published = {(pair.dataset, pair.model) for pair in PAIRS}
    pairs = []
    for names, rows in done.groupby(["dataset", "model"]):
        dataset, model = map(str, names)
        if (dataset, model) not in published:
            classes = tuple(labels) if len(labels := class_labels(rows)) > 1 else ()
            pairs.append(Pair(dataset_label=dataset, model_label=model, dataset=dataset, model=model, classes=classes))
    return sorted(pairs, key=lambda pair: pair.label)


def paper_draw(records: pd.DataFrame, pair: Pair) -> pd.DataFrame:
    """Keep a pair's samples that Tables 1 to 6 and the figures are made from: the first draws of each class.

    A record without a draw stays: it is of a version that never made more than the paper's number.
    """
    rows = of_pair(records, pair)
    return rows[~(pd.to_numeric(rows["draw"]) >= pair.draws_per_class)]


def in_one_precision(records: pd.DataFrame) -> pd.DataFrame:
    """Keep what was computed in the precision that the most records have; what has no numbers stays."""
    done = records["status"].eq("done")
    precisions = records.loc[done, "precision"].value_counts()
    return records[~done | records["precision"].eq(str(precisions.idxmax()))] if len(precisions) > 1 else records


def in_class(rows: pd.DataFrame, label: str) -> pd.DataFrame:
    """Keep the rows of the class with a name, whatever its capitals and spaces."""
    return rows[rows["class_name"].map(_bare).eq(_bare(label))]


def class_labels(rows: pd.DataFrame, first: Sequence[str] = ()) -> list[str]:
    """Name the classes: ``first``, whether or not they have rows, then those others that have, by class id."""
    labels: dict[str, str] = {}
    for label in (*first, *rows.sort_values("class_id", kind="stable")["class_name"]):
        labels.setdefault(_bare(label), label)
    return list(labels.values())


def _bare(label: str) -> str:
    return "".join(character for character in label.casefold() if character.isalnum())


def _class_names(rows: pd.DataFrame) -> pd.Series:
    names = rows["class_name"].astype(object).groupby([rows["dataset"], rows["class_id"]]).transform("first")
    return names.where(names.notna(), "class " + rows["class_id"].astype(str)).astype(object)


def _settings(rows: pd.DataFrame) -> list[str]:
    """Write each row's parameters as JSON, so that selecting compares the few different settings and not every row."""
    names = [name for name in rows.columns if name.startswith("param_")]
    return [
        json.dumps({name.removeprefix("param_"): v for name, v in zip(names, values, strict=True) if pd.notna(v)})
        for values in rows[names].astype(object).itertuples(index=False, name=None)
    ]


def _fits(recorded: dict[str, Any], wanted: dict[str, Any], usual: dict[str, Any]) -> bool:
    """Compare parameters; a record from before a parameter existed did as published."""
    complete = {name: value for name, value in usual.items() if isinstance(value, int | float | str)} | recorded
    return all(_equals(complete.get(name), value) for name, value in wanted.items())


def _one_setting(rows: pd.DataFrame, overrides: dict[str, Any]) -> pd.DataFrame:
    free = [name for name in _COUNTED_FREE if name.removeprefix("param_") not in overrides]
    if not free or len(rows[free].drop_duplicates()) < 2:
        return rows
    kept = []
    for _, group in rows.groupby(["dataset", "model"]):
        settings = [part for _, part in group.groupby(free, dropna=False)]
        kept.append(max(settings, key=lambda part: (len(_samples(part)), part["created"].max())))
    return pd.concat(kept)


def _samples(rows: pd.DataFrame) -> set[tuple[Any, ...]]:
    return set(rows[SAMPLE].itertuples(index=False, name=None))


def _equals(recorded: Any, wanted: Any) -> bool:
    if isinstance(wanted, list | tuple):
        return isinstance(recorded, str) and json.loads(recorded) == list(wanted)
    if isinstance(wanted, int | float) and isinstance(recorded, int | float):
        return math.isclose(recorded, wanted, rel_tol=1e-9)
    return bool(recorded == wanted)


def _times(column: pd.Series) -> pd.Series:
    try:
        return pd.to_datetime(column, utc=True, format="ISO8601")
    except (ValueError, TypeError) as error:
        raise MisureError(f"a record has a creation time that is not ISO 8601: {error}") from error
