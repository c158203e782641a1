"""Tables as Markdown documents and as text for a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping

import pandas as pd

from misure.paper.extensions.readings_markdown import alternatives
from misure.paper.maps import NOT_MEASURED, NoiseFloor
from misure.paper.published import DASH, PAPER_MASKS, Pair
from misure.paper.query import latest_run, paper_draw, shown_pairs
from misure.paper.source import Origin, heading
from misure.paper.statistics import summarise
from misure.paper.table import (
    READING,
    duration,
    interval,
    markdown_table,
    mean_interval_median,
    measured,
    printed,
)
from misure.paper.tables.rows import NOT_RUN, summary_of, table1

_CONSOLE_WIDTH = 110

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


_HEAVY_TAIL = """\
A small prediction makes the perturbation ratio large: a few of them can decide its mean, so compare medians too."""


def table1_document(frame: pd.DataFrame, head: str, floors: Mapping[str, NoiseFloor]) -> str:
    """Lay out Table 1 with its head note, definitions and each pair's noise floor by its label."""
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
        "Source": _source,
        "Profile": lambda row: row["profile"] or DASH,
        "Precision": lambda row: row["precision"] or DASH,
    }
    measured_floors = [f"- {label}: {floor}" for label, floor in floors.items() if floor.n]
    noise = "\n".join(measured_floors) or str(NOT_MEASURED)
    title = heading("Table 1: MSR, RISE, Seg-Grad-CAM and baselines", frame)
    parts = [title, head, READING, _laid_out(columns, frame), noise, _DEFINITIONS, _HEAVY_TAIL]
    return "\n\n".join(parts) + "\n"


def by_class_document(frame: pd.DataFrame, head: str, pair: Pair) -> str:
    """Lay out Table 1's MSR and SR by class, for the models of a pair's dataset."""
    columns: dict[str, Callable[[pd.Series], str]] = {
        "Model": lambda row: row["model"],
        pair.class_word.capitalize(): lambda row: row["class"],
        "Method": lambda row: row["method"],
        "Samples": _samples,
        "Dice explained": lambda row: mean_interval_median(summary_of(row, "dice_explained"), row["note"]),
        "Perturbation ratio": lambda row: mean_interval_median(summary_of(row, "perturbation_ratio")),
        "Dilations, median": lambda row: printed(row["n_dilations_median"]),
        "Prediction size, median pixels": lambda row: printed(row["prediction_size_median"]),
        "Source": _source,
    }
    name = f"Table 1 for {pair.dataset_label}, {pair.class_word} by {pair.class_word}"
    title = heading(f"{name} (the paper prints only the mean over all)", frame)
    return "\n\n".join([title, head, READING, _laid_out(columns, frame), _HEAVY_TAIL]) + "\n"


def lr_lambda_document(frame: pd.DataFrame, head: str, pair: Pair, readings: pd.DataFrame | None = None) -> str:
    """Lay out learning rate (columns) against lambda (rows), one grid per metric.

    Args:
        frame: As :func:`misure.paper.tables.rows.lr_lambda_table` returns it.
        head: What it was made from.
        pair: Dataset and model.
        readings: As :func:`misure.paper.extensions.readings.readings_table` returns it; the nearest other than the
            literal one then stands beside it.
    """
    other, beside = alternatives(readings) if readings is not None else ("", {})
    name = f"Table {pair.lr_lambda_table}: learning rate and lambda of MSR ({pair.label}, mask 224 x 224)"
    rates, lambdas = frame["learning_rate"].unique(), frame["lambda"].unique()
    parts = [heading(name, frame), head, _CELL_NOTE]
    parts += [_readings_note(pair, other)] if readings is not None else []
    for metric in ("dice_explained", "perturbation_ratio", "region_ratio"):
        cells = {(row["lambda"], row["learning_rate"]): _paper_and_ours(row, metric) for _, row in frame.iterrows()}
        for lam, rate in cells:
            if (metric, lam, rate) in beside:
                cells[lam, rate] += f"; other reading: {beside[metric, lam, rate]}"
        rows = [[f"{lam:g}", *(cells[lam, rate] for rate in rates)] for lam in lambdas]
        headers = ["lambda", *(f"learning rate {rate:g}" for rate in rates)]
        parts += [f"## {_METRIC_TITLES[metric]}", markdown_table(headers, rows)]
    parts += [_REGION_NOTE]
    return "\n\n".join(parts) + "\n"


_CELL_NOTE = (
    "Every cell: paper / our mean [95 % bootstrap interval of the mean over samples], median, number of samples. "
    f"{DASH} means no value, with the reason where a result of ours is missing."
)


def _readings_note(pair: Pair, other: str) -> str:
    where = f"`table{pair.lr_lambda_table}_readings.md` compares readings of where stage 2 starts, with a verdict."
    if not other:
        return f"All cells are the literal reading. {where}"
    return (
        f"All cells are the literal reading; beside it, where it was run, stands the other reading that comes nearest "
        f'to the paper: "{other}". {where}'
    )


_REGION_NOTE = """\
The region ratio (ours alone) counts only pixels where the masked image is not blank. It is here because the paper's
ratios below 1 on Triangle at learning rate 0.001 are hard to explain otherwise: nothing is pruned there, and the
sufficient region contains the whole object."""


def table6_document(frame: pd.DataFrame, head: str) -> str:
    """Lay out the mask sizes."""
    columns: dict[str, Callable[[pd.Series], str]] = {
        "Dataset": lambda row: row["dataset"],
        "Model": lambda row: row["model"],
        "Mask size": lambda row: f"{row['mask_size']} x {row['mask_size']}",
        "Dice explained, paper": lambda row: printed(row["paper_dice_explained"]),
        "Dice explained, ours": lambda row: mean_interval_median(summary_of(row, "dice_explained"), row["note"]),
        "Perturbation ratio, paper": lambda row: printed(row["paper_perturbation_ratio"]),
        "Perturbation ratio, ours": lambda row: mean_interval_median(summary_of(row, "perturbation_ratio")),
        "Region ratio, ours": lambda row: mean_interval_median(summary_of(row, "region_ratio")),
        "Samples": _samples,
        "Skipped": lambda row: str(row["n_skipped"]),
        "Source": _source,
    }
    title = heading("Table 6: mask size of MSR (learning rate 0.1, lambda 0.01)", frame)
    return "\n\n".join([title, head, READING, _laid_out(columns, frame)]) + "\n"


def console_table(records: pd.DataFrame, profile: str) -> str:
    """Write Table 1, paper against ours, for a terminal of 110 columns.

    Args:
        records: All records, one row per unit and threshold.
        profile: Which profile to show.
    """
    run = latest_run(records, profile)
    parts = []
    for pair in shown_pairs(run):
        known = paper_draw(run, pair)
        title = f"Table 1: {pair.label}, profile {profile}"
        if known.empty:
            parts.append(f"{title}: {NOT_RUN}")
            continue
        title += f", data: {Origin.of(known).label}; the paper: {pair.paper_samples} samples"
        parts.append(f"{_wrapped(title)}\n{_console_rows(table1(run, [pair]))}")
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
        seconds = f"{duration(group['seconds'].mean())} s an image"
        origin = Origin.of(group)
        source = [origin.label] if origin.marks else []
        lines.append(at + "; ".join([*cells, seconds, f"n = {len(group)}", *source]))
    return "\n".join([*lines, *([f"{skipped} samples had nothing to explain"] if skipped else [])])


def _console_rows(frame: pd.DataFrame) -> str:
    groups = ["", "Dice", "Dice explained", "Ratio", "Perturbation ratio", "Secs", "Secs", "", ""]
    headers = ["", "paper", "ours [95 % CI]", "paper", "ours [95 % CI]", "paper", "ours", "n", ""]
    rows = [groups, headers]
    for _, row in frame.iterrows():
        rows.append(
            [
                row["method"] + ("" if math.isnan(row["threshold"]) else f" > {row['threshold']:g}"),
                printed(row["paper_dice_explained"]),
                _console_cell(row, "dice_explained"),
                printed(row["paper_perturbation_ratio"]),
                _console_cell(row, "perturbation_ratio"),
                printed(row["paper_seconds"]),
                duration(row["seconds_mean"]),
                str(row["n_samples"]),
                ", ".join(mark.split()[-1] for mark in Origin.of_row(row).marks),  # in full in the title
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in rows
    ]
    return "\n".join([*lines[:2], "-" * max(map(len, lines)), *lines[2:], *_console_notes(frame)])


def _console_notes(frame: pd.DataFrame) -> list[str]:
    """Say once per reason which methods have no numbers, fewer samples or other masks than the paper."""
    methods: dict[str, list[str]] = {}
    for _, row in frame.iterrows():
        notes = [row["note"]] if row["note"] else []
        notes += [f"{row['n_skipped']} samples skipped"] if row["n_skipped"] and row["n_samples"] else []
        notes += [f"{row['masks']:.0f} masks"] if row["masks"] > 0 and row["masks"] != PAPER_MASKS else []
        for note in notes:
            methods.setdefault(note, []).append(row["method"])
    return [_wrapped(f"{DASH} {note}: {', '.join(dict.fromkeys(names))}") for note, names in methods.items()]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _CONSOLE_WIDTH, subsequent_indent="  ")


def _console_cell(row: pd.Series, metric: str) -> str:
    summary = summary_of(row, metric)
    return f"{measured(summary.mean)} {interval(summary)}" if summary.n else DASH


def _paper_and_ours(row: pd.Series, metric: str) -> str:
    ours = mean_interval_median(summary_of(row, metric), row["note"])
    if row["n_samples"]:
        ours = ", ".join(part for part in (ours, f"n = {row['n_samples']}", row["note"]) if part)
    return f"{printed(row[f'paper_{metric}'])} / {ours}" if f"paper_{metric}" in row else ours


def _laid_out(columns: Mapping[str, Callable[[pd.Series], str]], frame: pd.DataFrame) -> str:
    return markdown_table(list(columns), [[write(row) for write in columns.values()] for _, row in frame.iterrows()])


def _source(row: pd.Series) -> str:
    return Origin.of_row(row).cell


def _samples(row: pd.Series) -> str:
    classes = f" of {row['n_classes']} classes" if row["n_classes"] > 1 else ""
    failed = f" ({row['n_failed']} failed)" if row["n_failed"] and row["n_samples"] else ""
    return f"{row['n_samples']}{classes}{failed}"


def _masks(row: pd.Series) -> str:
    if math.isnan(row["paper_masks"]):
        return DASH
    return f"{printed(row['masks'])} (paper {row['paper_masks']:.0f})"
