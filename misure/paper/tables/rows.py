"""Tables 1 to 6 as data frames: the paper's numbers beside ours, row by row.

Every row the paper has is there. Where we have no result the numbers are NaN and ``note`` says why; ``remarks`` has
beside it what stands in for the paper's data or network, samples skipped, and another number of masks than the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from misure.explainers import EXPLAINERS
from misure.paper.published import (
    PAPER_MASKS,
    Pair,
    PaperValue,
    lr_lambda_reference,
    table1_reference,
    table6_reference,
)
from misure.paper.query import (
    INDEPENDENT,
    METRICS,
    Tally,
    at_threshold,
    class_labels,
    in_class,
    paper_draw,
    select_and_tally,
    shown_pairs,
)
from misure.paper.source import Origin, distinct
from misure.paper.statistics import bounds_of, summarise

NOT_RUN = "not run in this profile"

STATISTICS = ("mean", "low", "high", "median")
"""Per metric, columns ``<metric>_<statistic>``; low and high bound the mean's 95 % interval over images or volumes."""

_FEWEST_TIMED = 5
"""Samples timed alone that stand for all others: a few are what other runs have left."""

_BY_CLASS = ("msr", "sufficient_region")

_BASELINES = ("sufficient_region", "prediction", "random_map")


def method_rows(run: pd.DataFrame, pairs: Sequence[Pair] | None = None) -> pd.DataFrame:
    """Compare methods, as Table 1 does, then the baselines that the paper lacks.

    Args:
        run: As :func:`misure.paper.query.latest_run` returns it.
        pairs: Datasets and models to show; the paper's by default. What the paper does not have has its rows
            without the paper's numbers.

    Returns:
        One row per dataset, model, method and threshold.
    """
    explainers = {cls.title: name for name, cls in EXPLAINERS.items()}
    rows = []
    for pair in shown_pairs(run) if pairs is None else pairs:
        records, printed = paper_draw(run, pair), table1_reference(pair)
        baselines = {
            (EXPLAINERS[name].title, threshold): PaperValue()
            for name in _BASELINES
            for threshold in EXPLAINERS[name]().thresholds or (None,)
        }
        for (method, threshold), paper in (printed | baselines).items():
            name = explainers[method]
            heading = {
                **_names(pair),
                "method": method,
                "threshold": threshold,
                "paper_masks": PAPER_MASKS if name == "rise" else None,
            }
            rows.append(heading | _result(records, pair, name, paper, threshold))
    return pd.DataFrame(rows).astype({"threshold": float, "masks": float, "paper_masks": float})


def class_rows(run: pd.DataFrame, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Split Table 1's MSR, and the SR it started from, by class; the paper has no such table.

    Args:
        run: As :func:`misure.paper.query.latest_run` returns it.
        pairs: The models of a dataset with several classes.

    Returns:
        One row per model, class and method; a class without samples has its rows.
    """
    rows = []
    for pair in pairs:
        records = paper_draw(run, pair)
        for label in class_labels(records, pair.classes):
            of_class = in_class(records, label)
            for name in _BY_CLASS:
                heading = {**_names(pair), "class": label, "method": EXPLAINERS[name].title}
                rows.append(heading | _result(of_class, pair, name, PaperValue()))
    return pd.DataFrame(rows)


def lr_lambda_rows(run: pd.DataFrame, pair: Pair) -> pd.DataFrame:
    """Vary MSR's lambda and learning rate at mask size 224, as Tables 2 to 5 do."""
    records = paper_draw(run, pair)
    return pd.DataFrame(
        [
            {**_names(pair), "lambda": lam, "learning_rate": lr} | _result(records, pair, "msr", paper, lr=lr, lam=lam)
            for (lam, lr), paper in lr_lambda_reference(pair).items()
        ]
    )


def mask_size_rows(run: pd.DataFrame, pairs: Sequence[Pair] | None = None) -> pd.DataFrame:
    """Vary MSR's mask size at learning rate 0.1 and lambda 0.01, as Table 6 does."""
    return pd.DataFrame(
        [
            {**_names(pair), "mask_size": size} | _result(records, pair, "msr", paper, mask_size=size)
            for pair, records in (
                (pair, paper_draw(run, pair)) for pair in (shown_pairs(run) if pairs is None else pairs)
            )
            for size, paper in table6_reference(pair).items()
        ]
    )


def _names(pair: Pair) -> dict[str, str]:
    return {"dataset": pair.dataset_label, "model": pair.model_label}


def _result(
    records: pd.DataFrame,
    pair: Pair,
    explainer: str,
    paper: PaperValue,
    threshold: float | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Return the paper's numbers, ours, and where ours come from."""
    selected, missing = select_and_tally(records, explainer, **overrides)
    rows = at_threshold(selected, threshold)
    numbers: dict[str, Any] = {}
    for metric in METRICS:
        summary = summarise(rows[metric], rows[INDEPENDENT], bounds_of(metric, explainer))
        if metric in {"dice_explained", "perturbation_ratio"}:
            numbers[f"paper_{metric}"] = getattr(paper, metric)
        numbers |= {f"{metric}_{name}": getattr(summary, name) for name in STATISTICS}
    masks = rows["param_n_masks"].iloc[0] if explainer == "rise" and len(rows) else None
    origin, note = Origin.of(rows), _note(len(rows), missing)
    seconds, how = _seconds(rows)
    remarks = [*origin.marks, note, *_reservations(len(rows), missing, masks), how]
    return numbers | {
        "paper_seconds": paper.seconds,
        "seconds_mean": seconds,
        "n_dilations_median": rows["n_dilations"].astype(float).median(skipna=False),
        "prediction_size_median": rows["prediction_size"].astype(float).median(skipna=False),
        "n_samples": len(rows),
        "n_groups": rows[INDEPENDENT].nunique(),
        "n_classes": rows["class_id"].nunique(),
        "n_skipped": missing.skipped,
        "n_failed": missing.failed,
        "n_shared": int(rows["shared"].sum()) if "shared" in rows else 0,
        "paper_n_samples": None if paper == PaperValue() else pair.paper_samples,
        "masks": masks,
        "iterations": next(iter(rows.get("param_n_iterations", ())), None),
        **origin.columns(),
        "profile": distinct(rows["profile"]),
        "precision": distinct(rows["precision"]),
        "device": distinct(rows["device"]),
        "weights": distinct(rows["weights"]),
        "note": note,
        "remarks": ", ".join(filter(None, remarks)),
    }


def _seconds(rows: pd.DataFrame) -> tuple[float, str]:
    """Return the mean time an image, and what is to be known of it.

    Those explained one at a time count, as the paper timed them, on the device that has most of them; where there are
    too few, the throughput of several together, on whatever devices.
    """
    alone = rows[rows["batch_size"].astype(float) == 1]
    devices = alone["device"].value_counts()
    if devices.empty or devices.iloc[0] < min(len(rows), _FEWEST_TIMED):
        together = rows["batch_size"].astype(float).max()
        how = f"seconds: throughput of {together:.0f} images together" if together > 1 else ""
        return float(rows["seconds"].astype(float).mean(skipna=False)), how
    timed = alone.loc[alone["device"] == devices.index[0], "seconds"].astype(float)
    device = str(devices.index[0]).replace(", ", " with ")  # remarks stand in one line, separated by commas
    how = f"seconds: of the {len(timed)} timed alone on {device}" if len(timed) < len(rows) else ""
    return float(timed.mean(skipna=False)), how


def _note(n: int, missing: Tally) -> str:
    parts = []
    if missing.failed:
        parts.append(f"{missing.failed} failed")
    if n == 0 and missing.skipped:
        parts.append(f"all {missing.skipped} samples skipped" if not missing.failed else f"{missing.skipped} skipped")
    return ", ".join(parts) or ("" if n else NOT_RUN)


def _reservations(n: int, missing: Tally, masks: float | None) -> list[str]:
    """Name what our numbers should be read with: samples without numbers, and another number of masks."""
    skipped = [f"{missing.skipped} skipped"] if missing.skipped and n else []
    return skipped + ([f"{masks:.0f} masks"] if masks and masks != PAPER_MASKS else [])
