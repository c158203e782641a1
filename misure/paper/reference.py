"""The reference run, whose records ship with the project, beside one's own numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from misure.io.installed import DATA_FOLDER
from misure.paper.maps import ROUNDING
from misure.paper.material import Material
from misure.paper.prose import prose
from misure.paper.published import DASH
from misure.paper.query import further_pairs, latest_run, shown_pairs
from misure.paper.statistics import apart
from misure.paper.table import Column, Table
from misure.sweep.records import RecordStore

PROFILE = "reference"
"""Of the run whose records ship."""

FOLDER = DATA_FOLDER / "reference"
"""A store of records with the archive of their maps, ``volumes/`` and ``about.json``; it is read and never written."""

GET_ANEW = "get it anew, by git checkout or pip install"
"""What to do about damage in it."""

RECORDS = "records.jsonl.gz"
"""The file of records in it."""

_SETTINGS = {
    "stand_in": "stand-in",
    "substitution": "network",
    "scale": "scale",
    "masks": "masks",
    "iterations": "iterations",
}
"""What must be equal for two numbers to be compared, and the word for where it is not."""

AGREES, DIFFERS = "agrees", "differs"

_SHARED = "shared"
"""The word for a cell whose own records are those of the reference, which agree with themselves."""


def reference_material() -> Material | None:
    """Return the numbers of the reference run; None where it does not ship. Its maps are there once it is unpacked."""
    return _material_of(FOLDER)


@cache
def _material_of(folder: Path) -> Material | None:
    run = latest_run(RecordStore(folder).load(), PROFILE)
    pairs = shown_pairs(run), further_pairs(run)
    return Material(run, PROFILE, folder, pd.DataFrame(), *pairs) if len(run) else None


def mark_shared(run: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Mark, in a column ``shared``, the records of a run that are the reference's own and were not made anew."""
    names = ["unit", "created"]
    return run.assign(shared=pd.MultiIndex.from_frame(run[names]).isin(pd.MultiIndex.from_frame(theirs[names])))


def agreement(own: Sequence[float], theirs: Sequence[float]) -> str:
    """Say whether two means over different samples agree within their intervals, see :func:`apart`.

    Args:
        own: The mean and both ends of its 95 % interval.
        theirs: Those of the reference.

    Returns:
        :data:`AGREES` where 0 lies in the interval of the difference, or the difference is as large as rounding;
        else :data:`DIFFERS`; a dash where a mean or an interval is missing.
    """
    difference, low, high = apart(own, theirs)
    if math.isnan(difference + low + high):
        return DASH
    return AGREES if low <= 0 <= high or abs(difference) <= ROUNDING else DIFFERS


def beside(
    table: Table,
    material: Material | None,
    rows: Callable[[Material], pd.DataFrame],
    keys: Sequence[str],
    *,
    n: str,
) -> Table:
    """Put the reference's numbers beside a table's own, and say for each whether they agree.

    Args:
        table: Its columns with an interval and the paper's number are compared.
        material: Of the reference; None leaves the table as it is.
        rows: Makes the frame of the same table from it.
        keys: Columns that name a row.
        n: The column with the number of samples.

    Returns:
        The table with columns ``reference_<name>`` for each number, its interval's ends and ``n``,
        ``<name>_agreement``, and ``agreement``, which is shown: one word where all numbers of a row have the same.
    """
    if material is None or table.frame.empty:
        return table
    theirs = rows(material)
    compared = [column for column in table.columns if column.low and column.paper]
    settings = [name for name in _SETTINGS if name in table.frame]
    numbers = [name for column in compared for name in (column.name, column.low, column.high)]
    added = theirs[[*keys, *numbers, n, *settings]].rename(columns=lambda name: name if name in keys else _of(name))
    frame = table.frame.merge(added, how="left", on=list(keys), validate="one_to_one")
    verdicts = pd.DataFrame([_verdicts(row, compared, settings, n) for row in frame.to_dict("records")], frame.index)
    frame = frame.drop(columns=[_of(name) for name in settings]).join(verdicts)
    columns = [new for column in table.columns for new in _columns(column, compared, n)]
    notes = "\n\n".join(filter(None, [table.notes, prose("beside.md.j2", words=list(_SETTINGS.values()))]))
    return replace(table, columns=columns, frame=frame, notes=notes)


def _of(name: str) -> str:
    return f"reference_{name}"


def _columns(column: Column, compared: Sequence[Column], n: str) -> Iterator[Column]:
    """Yield what takes the place of a column."""
    if column in compared:
        title, name = column.title.replace("ours", "reference"), _of(column.name)
        yield replace(column, title=title, paper="", name=name, low=_of(column.low), high=_of(column.high))
    if column.name == n:
        yield Column(_of(n), "n, reference")
    yield replace(column, title="n, yours" if column.name == n else column.title.replace("ours", "yours"))
    if column.name == n:
        yield Column("agreement", "Beside the reference")


def _verdicts(row: Mapping[Any, Any], compared: Sequence[Column], settings: Sequence[str], n: str) -> dict[str, str]:
    there = row[n] > 0 and row[_of(n)] > 0
    differing = _differing(row, settings) if there else DASH
    words = {}
    for column in compared:
        own = [row[name] for name in (column.name, column.low, column.high)]
        theirs = [row[_of(name)] for name in (column.name, column.low, column.high)]
        words[column] = differing or agreement(own, theirs)
    verdicts = {f"{column.name.removesuffix('_mean')}_agreement": word for column, word in words.items()}
    each = ", ".join(f"{column.title.split()[0]} {word}" for column, word in words.items())
    return verdicts | {"agreement": each if len({*words.values()}) > 1 else next(iter(words.values()))}


def _differing(row: Mapping[Any, Any], settings: Sequence[str]) -> str:
    """Name in one word what forbids comparing a row; empty where nothing does."""
    if row.get("n_shared", 0):
        return _SHARED
    pairs = {name: (row[name], row[_of(name)]) for name in settings}
    known = {name: pair for name, pair in pairs.items() if not any(pd.isna(value) for value in pair)}
    return next((_SETTINGS[name] for name, (own, theirs) in known.items() if own != theirs), "")
