"""The README's table of results, from the CSV of its run: ``python tests/readme_results.py`` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from misure.paper.published import DASH
from misure.paper.source import Origin
from misure.paper.table import markdown_table

RUN = Path(__file__).resolve().parents[1] / "data" / "readme" / "table1.csv"
"""Table 1 as ``make reproduce`` wrote it."""

_SHOWN = {
    "RISE": 0.2,
    "Seg-Grad-CAM": 0.05,
    "MSR": None,
    "SR": None,
    "Prediction itself": None,
    "Random map": 0.2,
}
"""Methods, and the threshold at which they are shown."""

_HEADERS = (
    "data, network",
    "method",
    "Dice explained, paper",
    "ours [95 %]",
    "ratio, paper",
    "ours [95 %], median",
    "object, pixels",
    "seconds",
    "n",
    "source",
)


def results(path: Path = RUN) -> list[str]:
    """Return the lines of the Markdown table."""
    return markdown_table(_HEADERS, _rows(pd.read_csv(path))).splitlines()


def _rows(frame: pd.DataFrame) -> Iterator[list[str]]:
    for _, row in frame.iterrows():
        if row["method"] not in _SHOWN:
            continue
        threshold = _SHOWN[row["method"]]
        if (threshold is None) != pd.isna(row["threshold"]) or (threshold and row["threshold"] != threshold):
            continue
        method = row["method"] if threshold is None else f"{row['method']} at {threshold}"
        masks = f" ({row['masks']:.0f} masks)" if row["method"] == "RISE" and pd.notna(row["masks"]) else ""
        source = "**stand-in**" if row["stand_in"] else "real" if row["n_samples"] else DASH
        reduction = Origin("", stand_in=False, scale=row.get("scale", 1.0)).reduction
        marks = [mark for mark in (row["substitution"], reduction) if isinstance(mark, str) and mark]
        source = ", ".join([source, *(f"**{mark}**" for mark in marks)])
        yield [
            f"{row['dataset']}, {row['model']}",
            method + masks,
            _number(row["paper_dice_explained"]),
            _interval(row, "dice_explained"),
            _number(row["paper_perturbation_ratio"]),
            _interval(row, "perturbation_ratio") + f", {_number(row['perturbation_ratio_median'])}",
            _number(row["prediction_size_median"]),
            _number(row["seconds_mean"]),
            str(row["n_samples"]),
            source,
        ]


def _interval(row: pd.Series, name: str) -> str:
    ends = "" if pd.isna(row[f"{name}_low"]) else f" [{row[f'{name}_low']:.3g}, {row[f'{name}_high']:.3g}]"
    return _number(row[f"{name}_mean"]) + ends


def _number(value: float) -> str:
    return DASH if pd.isna(value) else f"{value:.3g}"


if __name__ == "__main__":
    print("\n".join(results()))
