"""A table: its numbers, and its columns with name, unit, direction and format; Markdown, LaTeX and HTML."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from misure.paper.difference import Difference, difference
from misure.paper.latex import latex_table
from misure.paper.prose import prose
from misure.paper.published import DASH
from misure.paper.source import distinct
from misure.paper.statistics import Summary

PROVENANCE = ("source", "profile", "precision", "device", "weights")
"""Columns of a frame that LaTeX names below the table."""

ARROWS = {"higher": "↑", "lower": "↓", "": ""}
"""Signs for the better direction in headers."""

_DECIMALS = ((3, 9.9995), (2, 99.995), (1, 999.95))
"""Decimals of numbers below a limit, which rounds to the next power of ten."""


def printed(value: float | None) -> str:
    """Write a number as the paper prints it, or a dash."""
    return DASH if value is None or math.isnan(value) else f"{value:g}"


def measured(value: float) -> str:
    """Write one of our means with four significant digits, three decimals at most; a dash where there is none."""
    if math.isnan(value):
        return DASH
    decimals = next((d for d, limit in _DECIMALS if abs(value) < limit), 0)
    return f"{value:.{decimals}f}"


def duration(seconds: float) -> str:
    """Write seconds with three significant digits (whole seconds from 1000 on, none below a thousandth)."""
    if math.isnan(seconds):
        return DASH
    if 0 < seconds < 0.001:
        return "<0.001"
    return f"{seconds:.3g}" if seconds < 999.5 else f"{seconds:.0f}"


def plain(value: Any) -> str:
    """Write any value: text as it is, booleans as yes or no, numbers as the paper prints them, a dash for none."""
    if isinstance(value, str):
        return " ".join(value.split())
    if value is None or pd.isna(value):
        return DASH
    if pd.api.types.is_bool(value):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def interval(summary: Summary) -> str:
    """Write the interval of the mean; a dash where it is undefined (one sample)."""
    return f"[{DASH}]" if math.isnan(summary.low) else f"[{measured(summary.low)}, {measured(summary.high)}]"


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a GitHub-flavoured table; pipes inside cells are escaped."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


@dataclass(frozen=True)
class Column:
    """One column that a table shows.

    Attributes:
        name: Of the column in the table's frame: what is written, and what a reader sorts by.
        title: In words.
        write: Writes a value as plain text.
        unit: Such as ``"s"``; empty for none.
        better: Which direction is better, if one is.
        low: The frame's column with the lower end of the value's interval; empty where it has no interval.
        high: The frame's column with the upper end.
        paper: The frame's column with the paper's number, from which HTML tells the difference.
    """

    name: str
    title: str
    write: Callable[[Any], str] = plain
    unit: str = ""
    better: Literal["", "higher", "lower"] = ""
    low: str = ""
    high: str = ""
    paper: str = ""

    @property
    def header(self) -> str:
        """Title, unit and direction in one line."""
        return " ".join(part for part in (self.title, f"({self.unit})" if self.unit else "", self.arrow) if part)

    @property
    def arrow(self) -> str:
        """A sign for the better direction; empty where none is better."""
        return ARROWS[self.better]

    def text(self, row: Mapping[Any, Any]) -> str:
        """Write a row's cell as plain text: the value, and its interval in brackets where it has one."""
        value = self.write(row[self.name])
        if not self.low or value == DASH:
            return value
        low, high = row[self.low], row[self.high]
        return f"{value} [{DASH}]" if pd.isna(low) else f"{value} [{self.write(low)}, {self.write(high)}]"

    def difference(self, row: Mapping[Any, Any]) -> Difference | None:
        """Tell a row's value from the paper's; None for a column that is not compared.

        It is grey where the row is of a stand-in (column ``stand_in``) or the value has no interval, for want of
        images or volumes.
        """
        if not self.paper:
            return None
        grey = "no interval, too few images or volumes" if self.low and pd.isna(row[self.low]) else ""
        grey = "a stand-in is not the paper's data" if row.get("stand_in", False) else grey
        return difference(row[self.paper], row[self.name], factor=self.better == "lower", grey=grey)


def estimate(
    metric: str,
    title: str,
    *,
    better: Literal["", "higher", "lower"] = "",
    unit: str = "",
    paper: str = "",
    write: Callable[[Any], str] = measured,
) -> Column:
    """Describe a mean with its interval: the frame's columns ``<metric>_mean``, ``<metric>_low`` and ``_high``.

    Args:
        metric: The common part of the columns' names.
        title: In words.
        better: Which direction is better, if one is.
        unit: Such as ``"s"``.
        paper: The frame's column with the paper's number.
        write: Writes the mean and the interval's ends.
    """
    return Column(f"{metric}_mean", title, write, unit, better, f"{metric}_low", f"{metric}_high", paper)


@dataclass(frozen=True)
class Table:
    """Numbers, and the columns that are shown of them.

    Attributes:
        name: Of its files, without suffix.
        title: In one line of plain text.
        columns: What is shown, from left to right; a column whose cells are all empty is left out.
        frame: All numbers, one row per line: the CSV file.
        head: What it was made from, in Markdown.
        notes: How to read it, in Markdown.
        n_parts: How many of the first columns divide the table: Markdown lays out a table of its own for each
            combination of their values, under that heading.

    Raises:
        ValueError: If two columns have one header.
    """

    name: str
    title: str
    columns: Sequence[Column]
    frame: pd.DataFrame
    head: str = ""
    notes: str = ""
    n_parts: int = 0

    def __post_init__(self) -> None:
        headers = [column.header for column in self.columns]
        if len(set(headers)) < len(headers):
            raise ValueError(f"{self.name} has two columns with one header: {headers}")

    def markdown(self) -> str:
        """Lay out the document: title, what the table was made from, the table and how to read it."""
        return "\n\n".join(part for part in (f"# {self.title}", self.head, self.body(), self.notes) if part) + "\n"

    def body(self, level: int = 2) -> str:
        """Lay out the table alone, in Markdown.

        Args:
            level: Of the headings of its parts.
        """
        blocks = []
        for title, cells in self._parts():
            blocks += [f"{'#' * level} {title}"] if title else []
            blocks.append(markdown_table(list(cells.columns), cells.to_numpy().tolist()))
        return "\n\n".join(blocks)

    def latex(self) -> str:
        r"""Lay out a ``table`` environment, to be read with ``\input``; see :mod:`misure.paper.latex`."""
        shown = self._shown(self.frame)
        cells = pd.DataFrame({column.header: texts for column, texts in shown.items()})
        numeric = [self.is_numeric(column) for column in shown]
        values = {word: distinct(self.frame[word]) for word in PROVENANCE if word in self.frame}
        notes = [f"{word.capitalize()}: {text}." for word, text in values.items() if text]
        return latex_table(self.name, self.title, cells, numeric, [prose("intervals.md.j2"), *notes])

    def csv(self) -> str:
        """Lay out all numbers; text that a spreadsheet would take for a formula begins with an apostrophe."""
        frame = self.frame.copy()
        for name, values in frame.items():
            if not pd.api.types.is_numeric_dtype(values):
                frame[name] = pd.Series(map(_no_formula, values), values.index, object)
        text: str = frame.to_csv(index=False)
        return text

    def html(self) -> str:
        """Lay out a ``<table>``; each cell has its raw value as ``data-value`` and its difference from the paper."""
        return prose("table.html.j2", table=self, columns=list(self._shown(self.frame)), rows=self.rows)

    @property
    def rows(self) -> list[dict[Any, Any]]:
        """All numbers of each line by name."""
        return self.frame.to_dict("records")

    def is_numeric(self, column: Column) -> bool:
        """Tell whether a column holds numbers (and is aligned to the right)."""
        values = self.frame.get(column.name, pd.Series(dtype=object))
        return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)

    def _parts(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Return the parts' titles and their cells by header."""
        dividing = [column.name for column in self.columns[: self.n_parts]]
        groups = self.frame.groupby(dividing, sort=False, dropna=False) if dividing and len(self.frame) else ()
        for _, frame in groups or [((), self.frame)]:
            shown = {column: texts for column, texts in self._shown(frame).items() if column.name not in dividing}
            first = frame.to_dict("records")[:1]
            title = ", ".join(column.text(row) for row in first for column in self.columns[: self.n_parts])
            yield title, pd.DataFrame({column.header: texts for column, texts in shown.items()}, dtype=object)

    def _shown(self, frame: pd.DataFrame) -> dict[Column, list[str]]:
        rows = frame.to_dict("records")
        cells = {column: [column.text(row) for row in rows] for column in self.columns}
        return {column: texts for column, texts in cells.items() if not rows or any(texts)}
