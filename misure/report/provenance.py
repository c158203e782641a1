"""A nested mapping as tables for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from misure.paper.table import Column, Table


def provenance_tables(provenance: Mapping[str, Any]) -> list[Table]:
    """Make a table of each top-level part; plain values share the first."""
    alone = {key: value for key, value in provenance.items() if not _nested(value)}
    first = [_table("general", _pairs(alone))] if alone else []
    return first + [_table(key, _frame(value)) for key, value in provenance.items() if key not in alone]


def _table(name: str, frame: pd.DataFrame) -> Table:
    return Table(name, _words(name), [Column(str(key), _words(key)) for key in frame.columns], frame)


def _frame(value: Any) -> pd.DataFrame:
    """Lay out records as rows below each other, and anything else as names and values."""
    records = dict(enumerate(value, start=1)) if isinstance(value, list | tuple) else dict(value)
    if not records or not all(isinstance(part, Mapping) for part in records.values()):
        return _pairs(records)
    rows = [{"name": str(key), **dict(_flat(part))} for key, part in records.items()]
    return pd.DataFrame(rows, dtype=object)


def _pairs(values: Mapping[Any, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(_flat(values)), columns=["name", "value"], dtype=object)


def _flat(values: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list | tuple) and any(_nested(part) for part in value):
            yield from _flat(dict(enumerate(value, start=1)), f"{name}.")
        else:
            yield name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value)
    )


def _words(key: Any) -> str:
    text = str(key).replace("_", " ")
    return text[:1].upper() + text[1:]
