"""Contradictions of the paper with itself in numbers, with ours beside them (``inconsistencies.yaml``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pandas as pd

from misure.paper.claims.records import METRICS, PairRecords, variants
from misure.paper.material import Material
from misure.paper.published import Pair, lr_lambda_reference, shipped, table1_reference, table6_reference
from misure.paper.statistics import Summary, bounds_of, summarise

_NAN = float("nan")


def inconsistencies(material: Material) -> pd.DataFrame:
    """List the paper's contradictions that have numbers.

    Returns:
        One row per number: ``id`` and ``contradiction`` (a sentence), dataset and model, ``quantity``, the paper's
        number (NaN where it prints none), our mean with its 95 % interval over images or volumes, the
        number of samples and where ours come from.
    """
    contradictions = shipped("claims/inconsistencies.yaml")["inconsistencies"]
    rows: list[dict[str, Any]] = []
    for pair in material.pairs:
        names, records = {pair.dataset, pair.model}, PairRecords(material, pair)
        for entry in contradictions:
            if names & set(entry.get("where", names)) and not names & set(entry.get("other_than", ())):
                rows += _rows(records, entry)
    return pd.DataFrame(rows)


def _rows(records: PairRecords, entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    pair = records.pair
    first = {"id": entry["id"], "contradiction": entry["text"].format(pair=pair)}
    first |= {"dataset": pair.dataset_label, "model": pair.model_label}
    for fields in entry["numbers"]:
        for quantity, printed, ours in _numbers(records, **fields):
            interval = {"low": ours.low, "high": ours.high, "n": ours.n}
            row = first | {"quantity": quantity, "paper": printed, "ours": ours.mean} | interval
            yield row | records.origin.columns()


def _numbers(
    records: PairRecords,
    metric: str | list[str] = "",
    variant: str | list[str] = "",
    table: Any = None,
    majority_of: str = "",
) -> Iterator[tuple[str, float, Summary]]:
    """Yield each combination's name, the paper's number and ours."""
    if majority_of:  # what an accuracy must be read against
        labelled = records.organs[majority_of]
        ours = Summary(len(labelled.rows), labelled.majority_accuracy, _NAN, _NAN, _NAN)
        yield f"{majority_of}, accuracy of always naming the majority", _NAN, ours
        return
    for name, label, place in product(
        *(each if isinstance(each, list) else [each] for each in (metric, variant, table))
    ):
        (values,), samples = records.table(name, label)
        number = records.pair.lr_lambda_table if place == "lr_lambda" else place
        quantity = f"{label}, {METRICS[name]}" + (f", Table {number}" if place else "")
        yield quantity, _printed(records.pair, name, label, place), summarise(values, samples.groups, bounds_of(name))


def _printed(pair: Pair, metric: str, label: str, table: Any) -> float:
    """Return what a table of the paper prints; NaN without a table."""
    if table is None:
        return _NAN
    variant = variants()[label]
    setting = {"lam": 0.01, "lr": 0.1, "mask_size": 224} | dict(variant.parameters)
    value = {
        1: lambda: table1_reference(pair)[variant.title, variant.threshold],
        6: lambda: table6_reference(pair)[setting["mask_size"]],
        "lr_lambda": lambda: lr_lambda_reference(pair)[setting["lam"], setting["lr"]],
    }[table]()
    printed = getattr(value, metric)
    return _NAN if printed is None else float(printed)
