"""Tables as Markdown documents and as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

from misure.paper.cells import (
    READING,
    duration,
    interval,
    markdown_table,
    mean_interval_median,
    measured,
    printed,
    source_cell,
)
from misure.paper.maps import NoiseFloor
from misure.paper.reference import DASH, PAIRS, Pair
from misure.paper.selection import latest_run, of_pair
from misure.paper.statistics import summarise
from misure.paper.tables import distinct, summary_of, table1

_METRIC_TITLES = {
    "dice_explained": "Dice explained",
    "perturbation_ratio": "Perturbation ratio",
    "region_ratio": "Region ratio",
    "binary_dice_explained": "Binary Dice explained",
}

_DEFINITIONS = """\
Dice explained (higher is better) and perturbation ratio (lower is better) are as in the paper's section 3.4. Two
further columns are ours: the region ratio counts only pixels where the masked image is not blank, and binary Dice
explained sets every non-zero value of the mask to one. SR, the prediction itself and the random map are baselines that
the paper does not have. Times depend on the hardware and the number of masks; the paper does not name its hardware."""


def table1_document(frame: pd.DataFrame, head: str, floor: NoiseFloor) -> str:
    """Lay out Table 1 with its head note, definitions and noise floor."""
    columns: dict[str, Callable[[pd.Series], str]] = {
        "Dataset": lambda row: row["dataset"],
        "Model": lambda row: row["model"],
        "Method": lambda row: row["method"],
        "Threshold": lambda row: printed(row["threshold"]),
        "Dice explained, paper": lambda row: printed(row["paper_dice_explained"]),
        "Dice explained, ours": lambda row: mean_interval_median(summary_of(row, "dice_explained"), row["note"]),
        "Perturbation ratio, paper": lambda row: printed(row["paper_perturbation_ratio"]),
        "Perturbation ratio, ours": lambda row: mean_interval_median(summary_of(row, "perturbation_ratio")),
        "Region ratio, ours": lambda row: mean_interval_median(summary_of(row, "region_ratio")),
        "Binary Dice explained, ours": lambda row: mean_interval_median(summary_of(row, "binary_dice_explained")),
        "Seconds, paper": lambda row: printed(row["paper_seconds"]),
        "Seconds, ours": lambda row: duration(row["seconds_mean"]),
        "Samples": _samples,
        "Skipped": lambda row: str(row["n_skipped"]),
        "Masks": _masks,
        "Source": lambda row: source_cell(row["source"], stand_in=bool(row["stand_in"])),
        "Profile": lambda row: row["profile"] or DASH,
        "Precision": lambda row: row["precision"] or DASH,
    }
    rows = [[write(row) for write in columns.values()] for _, row in frame.iterrows()]
    title = "# Table 1: MSR, RISE, Seg-Grad-CAM and baselines"
    return "\n\n".join([title, head, READING, markdown_table(list(columns), rows), str(floor), _DEFINITIONS]) + "\n"


def lr_lambda_document(frame: pd.DataFrame, head: str, pair: Pair) -> str:
    """Lay out learning rate (columns) against lambda (rows), one grid per metric."""
    title = f"# Table {pair.lr_lambda_table}: learning rate and lambda of MSR ({pair.label}, mask 224 x 224)"
    rates, lambdas = frame["learning_rate"].unique(), frame["lambda"].unique()
    parts = [title, head, _CELL_NOTE]
    for metric in ("dice_explained", "perturbation_ratio", "region_ratio"):
        cells = {(row["lambda"], row["learning_rate"]): _paper_and_ours(row, metric) for _, row in frame.iterrows()}
        rows = [[f"{lam:g}", *(cells[lam, rate] for rate in rates)] for lam in lambdas]
        headers = ["lambda", *(f"learning rate {rate:g}" for rate in rates)]
        parts += [f"## {_METRIC_TITLES[metric]}", markdown_table(headers, rows)]
    parts += [_REGION_NOTE]
    return "\n\n".join(parts) + "\n"


_CELL_NOTE = (
    "Every cell: paper / our mean [95 % bootstrap interval of the mean over samples], number of samples. "
    f"{DASH} means no value, with the reason where a result of ours is missing."
)

_REGION_NOTE = """\
The region ratio (ours alone) counts only pixels where the masked image is not blank. It is here because the paper's
ratios below 1 at learning rate 0.001 are hard to explain otherwise: nothing is pruned there, and the sufficient region
contains the whole object."""


def table6_document(frame: pd.DataFrame, head: str) -> str:
    """Lay out the mask sizes."""
    headers = ["Dataset", "Model", "Mask size"]
    headers += [f"{_METRIC_TITLES[m]}, {who}" for m in _PRINTED_METRICS for who in ("paper", "ours")]
    headers += ["Region ratio, ours", "Samples", "Skipped"]
    rows = []
    for _, row in frame.iterrows():
        cells = [row["dataset"], row["model"], f"{row['mask_size']} x {row['mask_size']}"]
        for metric in _PRINTED_METRICS:
            note = row["note"] if metric == "dice_explained" else ""
            cells += [printed(row[f"paper_{metric}"]), mean_interval_median(summary_of(row, metric), note)]
        cells += [mean_interval_median(summary_of(row, "region_ratio")), _samples(row), str(row["n_skipped"])]
        rows.append(cells)
    title = "# Table 6: mask size of MSR (learning rate 0.1, lambda 0.01)"
    return "\n\n".join([title, head, READING, markdown_table(headers, rows)]) + "\n"


_PRINTED_METRICS = ("dice_explained", "perturbation_ratio")


def console_table(records: pd.DataFrame, profile: str) -> str:
    """Write Table 1, paper against ours, for a terminal of 110 columns.

    Args:
        records: All records, one row per unit and threshold.
        profile: Which profile to show.
    """
    run = latest_run(records, profile)
    frame = table1(run)
    parts = []
    for pair in PAIRS:
        mine = frame[(frame["dataset"] == pair.dataset_label) & (frame["model"] == pair.model_label)]
        known = of_pair(run, pair.dataset, pair.model)
        source = distinct(known["dataset_source"]) or "no records"
        marked = f"{source} (stand-in)" if known["stand_in"].astype(bool).any() else source
        title = f"Table 1: {pair.label}, profile {profile}, data: {marked}; the paper: {pair.paper_samples} samples"
        parts.append(f"{title}\n{_console_rows(mine)}")
    return "\n\n".join(parts)


def experiment_summary(rows: pd.DataFrame) -> str:
    """Write one experiment's means over samples for a terminal, a line per threshold.

    Args:
        rows: The experiment's records, one row per unit and threshold.
    """
    done = rows[rows["status"] == "done"]
    skipped = rows.loc[rows["status"] == "skipped", "unit"].nunique()
    lines = []
    for threshold, group in done.groupby("threshold", dropna=False) if len(done) else []:
        cells = [
            f"{label} {measured(summary.mean)} {interval(summary)}, median {measured(summary.median)}"
            for label, metric in (("Dice explained", "dice_explained"), ("perturbation ratio", "perturbation_ratio"))
            for summary in [summarise(group[metric])]
        ]
        at = "" if pd.isna(threshold) else f"threshold {threshold!s}: "
        lines.append(f"{at}{'; '.join(cells)}; {duration(group['seconds'].mean())} s an image; n = {len(group)}")
    return "\n".join([*lines, *([f"{skipped} samples had nothing to explain"] if skipped else [])])


def _console_rows(frame: pd.DataFrame) -> str:
    groups = ["", "", "Dice", "Dice explained", "Ratio", "Perturbation ratio", "Seconds", "Seconds", "", ""]
    headers = ["", "thr.", "paper", "ours [95 % CI]", "paper", "ours [95 % CI]", "paper", "ours", "n", "skipped"]
    rows = [groups, headers]
    for _, row in frame.iterrows():
        masks = "" if math.isnan(row["masks"]) else f" ({row['masks']:.0f} masks)"
        dice, ratio = (_console_cell(row, metric) for metric in _PRINTED_METRICS)
        rows.append(
            [
                row["method"] + masks,
                printed(row["threshold"]),
                printed(row["paper_dice_explained"]),
                dice,
                printed(row["paper_perturbation_ratio"]),
                ratio,
                printed(row["paper_seconds"]),
                duration(row["seconds_mean"]),
                str(row["n_samples"]),
                str(row["n_skipped"]),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in rows
    ]
    notes = sorted({f"{DASH} {row['method']}: {row['note']}" for _, row in frame.iterrows() if row["note"]})
    return "\n".join([*lines[:2], "-" * max(map(len, lines)), *lines[2:], *notes])


def _console_cell(row: pd.Series, metric: str) -> str:
    summary = summary_of(row, metric)
    return f"{measured(summary.mean)} {interval(summary)}" if summary.n else DASH


def _paper_and_ours(row: pd.Series, metric: str) -> str:
    summary = summary_of(row, metric)
    ours = f"{DASH} ({row['note']})"
    if summary.n:
        ours = ", ".join(
            part for part in (f"{measured(summary.mean)} {interval(summary)}", f"n = {summary.n}", row["note"]) if part
        )
    return f"{printed(row[f'paper_{metric}'])} / {ours}" if f"paper_{metric}" in row else ours


def _samples(row: pd.Series) -> str:
    return str(row["n_samples"]) + (f" ({row['n_failed']} failed)" if row["n_failed"] and row["n_samples"] else "")


def _masks(row: pd.Series) -> str:
    if math.isnan(row["paper_masks"]):
        return DASH
    return f"{printed(row['masks'])} (paper {row['paper_masks']:.0f})"
