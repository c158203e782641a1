"""How numbers and tables are written down: cells, head notes, Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from misure.paper.reference import DASH, PAIRS, Pair
from misure.paper.selection import of_pair
from misure.paper.statistics import Summary
from misure.paper.tables import distinct

READING = (
    "Ours: mean [95 % bootstrap interval of the mean over samples], median. "
    f"{DASH} means no value, with the reason where a result of ours is missing."
)

_PROFILE_NOTES = {"smoke": " (checks that everything runs, at a tiny size: its numbers mean nothing)"}

_REASONS_SHOWN = 3


def printed(value: float | None) -> str:
    """Write a number as the paper prints it, or a dash."""
    return DASH if value is None or math.isnan(value) else f"{value:g}"


def measured(value: float) -> str:
    """Write one of our means: three decimals, two from 10 on; a dash where there is none."""
    if math.isnan(value):
        return DASH
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """Write seconds with three significant digits (whole seconds from 1000 on)."""
    if math.isnan(seconds):
        return DASH
    return f"{seconds:.3g}" if seconds < 999.5 else f"{seconds:.0f}"


def interval(summary: Summary) -> str:
    """Write the interval of the mean; a dash where it is undefined (one sample)."""
    return f"[{DASH}]" if math.isnan(summary.low) else f"[{measured(summary.low)}, {measured(summary.high)}]"


def mean_interval_median(summary: Summary, note: str = "") -> str:
    """Write mean, interval and median; without samples a dash and the reason."""
    if summary.n == 0 or math.isnan(summary.mean):
        return f"{DASH} ({note})" if note else DASH
    return f"{measured(summary.mean)} {interval(summary)}, median {measured(summary.median)}"


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a GitHub-flavoured table; pipes inside cells are escaped."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def source_cell(source: str, *, stand_in: bool) -> str:
    """Name where the data came from, and say so if it is a stand-in."""
    return " ".join(part for part in (source or DASH, "**(stand-in)**" if stand_in else "") if part)


def head_note(run: pd.DataFrame, profile: str, pairs: Sequence[Pair] = PAIRS) -> str:
    """Say what a table or figure was made from: a Markdown list.

    Args:
        run: As :func:`misure.paper.selection.latest_run` returns it.
        profile: Of the run.
        pairs: Datasets and models shown.
    """
    lines = [f"- Profile: `{profile}`{_PROFILE_NOTES.get(profile, '')}"]
    for pair in pairs:
        records = of_pair(run, pair.dataset, pair.model)
        lines += [f"- {pair.label}: {'; '.join(_provenance(records)) if len(records) else 'no records'}"]
        lines.append(
            f"- The paper's setting for {pair.label}: {pair.paper_samples} samples; MSR with learning rate 0.1, "
            "lambda 0.01, mask 224 x 224, 100 iterations (where the table does not vary them); RISE with 2000 masks."
        )
    return "\n".join(lines)


def caption(run: pd.DataFrame, profile: str, pair: Pair) -> str:
    """Say in one line what a figure was made from."""
    records = of_pair(run, pair.dataset, pair.model)
    parts = [pair.label, f"profile {profile}"]
    if len(records):
        source = distinct(records["dataset_source"])
        parts += [f"data: {source}" + (" (stand-in)" if records["stand_in"].astype(bool).any() else "")]
        parts += [f"weights {distinct(records['weights'])}"]
    return " · ".join(parts)


def _provenance(records: pd.DataFrame) -> list[str]:
    clean = records[records["input_noise"] == 0]
    done, skipped = (clean[clean["status"] == status] for status in ("done", "skipped"))
    explained = {tuple(key) for key in done[["sample", "class_id"]].to_numpy()}
    left_out = {tuple(key) for key in skipped[["sample", "class_id"]].to_numpy()} - explained
    reasons = skipped["reason"].dropna().unique()[:_REASONS_SHOWN]
    why = f" ({'; '.join(map(str, reasons))})" if left_out and len(reasons) else ""
    source = source_cell(distinct(records["dataset_source"]), stand_in=bool(records["stand_in"].astype(bool).any()))
    return [
        f"{len(explained)} samples explained, {len(left_out)} skipped{why}",
        f"data: {source}",
        f"weights `{distinct(records['weights'])}`",
        f"device: {distinct(records['device']) or DASH}",
        f"precision: {distinct(records['precision']) or DASH}",
        f"code {distinct(records['code_version']) or DASH}",
        *_network_quality(done),
    ]


def _network_quality(done: pd.DataFrame) -> list[str]:
    truth = done.drop_duplicates(["sample", "class_id"])["truth_dice"].dropna()
    return [f"network's mean Dice with the ground truth on them {truth.mean():.3f}"] if len(truth) else []
