"""Text for a terminal of 110 columns: Table 1, and one experiment's means."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import pandas as pd

from misure.paper.published import DASH
from misure.paper.query import further_pairs, independent, latest_run, paper_draw, shown_pairs
from misure.paper.source import Origin
from misure.paper.statistics import bounds_of, summarise
from misure.paper.table import duration, estimate, interval, measured, printed
from misure.paper.tables.rows import NOT_RUN, method_rows

_WIDTH = 110


def console_table(stored: pd.DataFrame, profile: str) -> str:
    """Write Table 1, paper against ours.

    Args:
        stored: All records, one row per unit and threshold.
        profile: Which profile to show.
    """
    run = latest_run(stored, profile)
    parts = []
    for pair in (*shown_pairs(run), *further_pairs(run)):
        records = paper_draw(run, pair)
        title = f"Table 1: {pair.label}, profile {profile}"
        if records.empty:
            parts.append(f"{title}: {NOT_RUN}")
            continue
        title += f", data: {Origin.of(records).label}"
        title += f"; the paper: {pair.paper_samples} samples" if pair.paper_samples else ""
        parts.append(f"{_wrapped(title)}\n{_rows(method_rows(run, [pair]))}")
    return "\n\n".join(parts)


def experiment_summary(rows: pd.DataFrame) -> str:
    """Write one experiment's means over samples, a line per threshold.

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
            for summary in [
                summarise(group[metric], independent(group), bounds_of(metric, str(group["explainer"].iloc[0])))
            ]
        ]
        at = "" if pd.isna(threshold) else f"threshold {threshold!s}: "
        seconds = f"{duration(group['seconds'].mean())} s an image"
        origin = Origin.of(group)
        source = [origin.label] if origin.marks else []
        lines.append(at + "; ".join([*cells, seconds, f"n = {len(group)}", *source]))
    return "\n".join([*lines, *([f"{skipped} samples had nothing to explain"] if skipped else [])])


def _rows(frame: pd.DataFrame) -> str:
    groups = ["", "Dice", "Dice explained", "Ratio", "Perturbation ratio", "Secs", "Secs", "", ""]
    headers = ["", "paper", "ours [95 % CI]", "paper", "ours [95 % CI]", "paper", "ours", "n", ""]
    rows = [groups, headers, *(_cells(row) for row in frame.to_dict("records"))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in rows
    ]
    return "\n".join([*lines[:2], "-" * max(map(len, lines)), *lines[2:], *_notes(frame)])


def _cells(row: Mapping[Any, Any]) -> list[str]:
    return [
        row["method"] + ("" if math.isnan(row["threshold"]) else f" > {row['threshold']:g}"),
        printed(row["paper_dice_explained"]),
        estimate("dice_explained", "").text(row),
        printed(row["paper_perturbation_ratio"]),
        estimate("perturbation_ratio", "").text(row),
        printed(row["paper_seconds"]),
        duration(row["seconds_mean"]),
        str(row["n_samples"]),
        ", ".join(
            mark if mark == Origin.of_row(row).reduction else mark.split()[-1] for mark in Origin.of_row(row).marks
        ),
    ]


def _notes(frame: pd.DataFrame) -> list[str]:
    """Say once per remark which methods it is about; marks stand in their rows."""
    methods: dict[str, list[str]] = {}
    for row in frame.to_dict("records"):
        for remark in filter(None, row["remarks"].split(", ")):
            if remark not in Origin.of_row(row).marks:
                methods.setdefault(remark, []).append(row["method"])
    return [_wrapped(f"{DASH} {remark}: {', '.join(dict.fromkeys(names))}") for remark, names in methods.items()]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent="  ")
