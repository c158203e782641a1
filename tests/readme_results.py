"""The README's numbers, from Table 1 of the run that is named there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from misure.paper.published import DASH
from misure.paper.source import Origin
from misure.paper.table import markdown_table

TABLES = Path(__file__).resolve().parents[1] / "data" / "readme"
"""Tables as ``make reproduce`` wrote them."""

_SHOWN = {"MSR": None, "SR": None, "RISE": 0.2, "Seg-Grad-CAM": 0.05, "Prediction itself": None, "Random map": 0.2}
"""Methods, and the threshold at which they are shown."""


def results() -> str:
    """Return the table of results: the rows of real images."""
    frame = pd.read_csv(TABLES / "table1.csv")
    ours = "reference" if set(frame["profile"].dropna()) == {"reference"} else "ours"
    headers = (
        "data, network",
        "method",
        "Dice explained: paper",
        ours,
        "ratio: paper",
        f"{ours}, median",
        "n",
        "source",
    )
    return markdown_table(headers, _rows(frame))


def _rows(frame: pd.DataFrame) -> Iterator[list[str]]:
    for (dataset, model), pair in frame[(~frame["stand_in"]) & (frame["n_samples"] > 0)].groupby(
        ["dataset", "model"], sort=False
    ):
        for method, threshold in _SHOWN.items():
            of_method = pair[pair["method"] == method]
            rows = of_method[
                of_method["threshold"].isna() if threshold is None else of_method["threshold"] == threshold
            ]
            for _, row in rows.iterrows():
                yield [f"{dataset}, {model}", _method(row), *_numbers(row), str(int(row["n_samples"])), _source(row)]


def _method(row: pd.Series) -> str:
    name = row["method"] if pd.isna(row["threshold"]) else f"{row['method']} at {row['threshold']}"
    return f"{name} ({row['masks']:.0f} masks)" if row["method"] == "RISE" and pd.notna(row["masks"]) else name


def _source(row: pd.Series) -> str:
    reduction = Origin("", stand_in=False, scale=row.get("scale", 1.0)).reduction
    marks = [mark for mark in (row["substitution"], reduction) if isinstance(mark, str) and mark]
    return ", ".join(["real", *(f"**{mark}**" for mark in marks)])


def _numbers(row: pd.Series) -> Iterator[str]:
    yield _number(row["paper_dice_explained"])
    yield _interval(row, "dice_explained")
    yield _number(row["paper_perturbation_ratio"])
    yield f"{_interval(row, 'perturbation_ratio')}, {_number(row['perturbation_ratio_median'])}"


def _interval(row: pd.Series, name: str) -> str:
    ends = "" if pd.isna(row[f"{name}_low"]) else f" [{row[f'{name}_low']:.3g}, {row[f'{name}_high']:.3g}]"
    return _number(row[f"{name}_mean"]) + ends


def _number(value: float) -> str:
    return DASH if pd.isna(value) else f"{value:.3g}"
