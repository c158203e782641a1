"""The READMEs' numbers, from the reference records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from itertools import chain

import pandas as pd

from misure.paper.catalogue import like_for_like_tables, paper_tables, stability_tables
from misure.paper.claims import claims, inconsistencies, inconsistencies_table
from misure.paper.findings import key_findings
from misure.paper.material import Material
from misure.paper.published import DASH
from misure.paper.reference import FOLDER, reference_material
from misure.paper.source import Origin
from misure.paper.table import Table, markdown_table

_SHOWN = {"MSR": None, "SR": None, "RISE": 0.2, "Seg-Grad-CAM": 0.05, "Prediction itself": None, "Random map": 0.2}
"""Methods, and the threshold at which they are shown."""

_N_FINDINGS = 5
_VARIANTS = ("MSR", "MSR, stable variant", "RISE", "Seg-Grad-CAM")


@cache
def _material() -> Material:
    material = reference_material()
    assert material is not None, f"{FOLDER} has no records"
    return material


@cache
def _tables() -> dict[str, Table]:
    made = (paper_tables, like_for_like_tables, stability_tables)
    return {table.name: table for table in chain.from_iterable(tables(_material()) for tables in made)}


def results() -> str:
    """Return the table of results, the rows of real images, and what it was made from."""
    headers = (
        "data, network",
        "method",
        "Dice explained: paper",
        "reference",
        "ratio: paper",
        "reference, median",
        "n",
    )
    return f"{markdown_table((*headers, 'source'), _rows(_tables()['table1'].frame))}\n\n{_made_from()}"


def findings() -> str:
    """Return the first findings that have records, those of too few last, with what each rests on."""
    material, contradictions = _material(), inconsistencies(_material())
    tables = [*_tables().values(), inconsistencies_table(contradictions, "")]
    found = key_findings(material, tables, claims(material))
    decided = [finding for finding in found if finding.outcome not in ("missing", "few")]
    shown = [*decided, *(finding for finding in found if finding.outcome == "few")][:_N_FINDINGS]
    return "\n".join(f"- {finding.sentence} ({finding.where}; n = {finding.number.n})" for finding in shown)


def variants() -> str:
    """Return how far noise of one grey value moves the maps of MSR, its stable variant, RISE and Seg-Grad-CAM."""
    headers = ("data, network", "method", "IoU of the maps", "Dice explained", "ratio", "n", "source")
    frame = _tables()["stability"].frame
    frame = frame[frame["method"].isin(_VARIANTS) & ~frame["stand_in"] & (frame["n"] > 0) & (frame["noise"] > 1e-3)]
    rows = [
        [
            f"{row['dataset']}, {row['model']}",
            row["method"] if pd.isna(row["threshold"]) else f"{row['method']} at {row['threshold']}",
            *(_interval(row, name) for name in ("iou", "dice_explained", "perturbation_ratio")),
            str(int(row["n"])),
            _source(row),
        ]
        for _, row in frame.iterrows()
    ]
    return markdown_table(headers, rows) if rows else "No sample of it is in the reference records yet."


def _made_from() -> str:
    """Name the run: commands, time and machines."""
    about = json.loads((FOLDER / "about.json").read_text(encoding="utf-8"))
    commands = ", ".join(f"`{made['command']}`" for made in about["made_by"])
    hours = sum(about["hours_of_explaining"].values())
    n = sum(chain.from_iterable(cells.values() for cells in about["n"].values()))
    where = "[ship](data/README.md#the-reference-records)"
    return f"Reference: {n} explanations in {hours:.2g} hours, made by {commands}; their records {where}."


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
