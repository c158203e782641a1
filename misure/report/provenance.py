"""A nested mapping as tables for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from misure.paper.published import DASH


@dataclass(frozen=True)
class Sheet:
    """A table of texts.

    Attributes:
        title: Its heading.
        headers: Of its columns.
        rows: Its cells, the first of each row being its name.
    """

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


def sheets(provenance: Mapping[str, Any]) -> list[Sheet]:
    """Make a table of each top-level part; plain values share the first."""
    plain = {key: value for key, value in provenance.items() if not _nested(value)}
    first = [Sheet("General", ("What", "Value"), _pairs(plain))] if plain else []
    return first + [_sheet(_words(key), value) for key, value in provenance.items() if key not in plain]


def _sheet(title: str, value: Any) -> Sheet:
    records = dict(enumerate(value, start=1)) if isinstance(value, list | tuple) else dict(value)
    if not records or not all(isinstance(part, Mapping) for part in records.values()):
        return Sheet(title, ("What", "Value"), _pairs(records))
    flat = {key: dict(_flat(part)) for key, part in records.items()}
    names = list(dict.fromkeys(name for part in flat.values() for name in part))
    rows = [[str(key), *(part.get(name, DASH) for name in names)] for key, part in flat.items()]
    return Sheet(title, ["", *(_words(name) for name in names)], rows)


def _pairs(values: Mapping[Any, Any]) -> list[list[str]]:
    return [list(pair) for pair in _flat(values)]


def _flat(values: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list | tuple) and any(_nested(part) for part in value):
            yield from _flat(dict(enumerate(value, start=1)), f"{name}.")
        else:
            yield name, _text(value)


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value)
    )


def _text(value: Any) -> str:
    if value is None or value == "":
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _words(key: Any) -> str:
    text = str(key).replace("_", " ")
    return text[:1].upper() + text[1:]
