r"""Tables as LaTeX (``booktabs``, ``threeparttable``, ``graphicx``), to be read with ``\input``."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from misure.paper.source import Origin, distinct
from misure.paper.table import measured, printed

PACKAGES = ("booktabs", "threeparttable", "graphicx")
"""What a document needs that reads one of the tables."""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",  # a row must not begin with what reads as an argument of the line break before it
    "]": "{]}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    **{character: f"\\{character}" for character in "_%&#$"},
    "–": "--",  # noqa: RUF001 - an en dash
    "—": "---",
    "−": "$-$",  # noqa: RUF001 - a minus sign
    "×": r"$\times$",  # noqa: RUF001 - a multiplication sign
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\rightarrow$",
    "≈": r"$\approx$",
    **{
        letter: f"${{\\{name}}}$"
        for letter, name in {
            "α": "alpha",  # noqa: RUF001
            "β": "beta",
            "γ": "gamma",  # noqa: RUF001
            "λ": "lambda",
            "μ": "mu",
            "τ": "tau",
            "Ω": "Omega",
        }.items()
    },
}
_LATIN = "ÀÁÂÃÄÅÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåçèéêëìíîïñòóôõöøùúûüý"

_INTERVAL = ("mean", "low", "high")
_NOT_SHOWN = re.compile(r"(.*_(low|high|median|n)|stand_in|substitution|source|profile|device|precision|weights)")
_IN_NOTES = ("profile", "precision", "device", "weights")
_WORDS = {"lambda": "$\\lambda$", "n": "number of", "iou": "IoU", "dice": "Dice", "auc": "AUC", "rise": "RISE"}


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: LaTeX.
        cell: Writes a row's cell in LaTeX.
        numeric: Whether it is aligned to the right.
    """

    title: str
    cell: Callable[[pd.Series], str]
    numeric: bool = False


def escape(text: str) -> str:
    """Write any text so that LaTeX prints it; letters that pdfLaTeX does not know lose their accents."""
    return "".join(_SPECIAL.get(character) or _plain(character) for character in " ".join(text.split()))


def latex_table(name: str, columns: Sequence[Column], frame: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    r"""Lay out a table.

    Args:
        name: Of the file; becomes ``\label{tab:<name>}`` and the caption.
        columns: From left to right.
        frame: Its rows.
        notes: Plain text below the table.

    Returns:
        A ``table`` environment, no wider than the text.
    """
    alignment = "".join("r" if column.numeric else "l" for column in columns)
    lines = [" & ".join(column.cell(row) for column in columns) + r" \\" for _, row in frame.iterrows()]
    return "\n".join(
        [
            f"% Needs \\usepackage{{{','.join(PACKAGES)}}}.",
            r"\begin{table}",
            r"\centering",
            f"\\caption{{{escape(_spoken(name))}}}",
            f"\\label{{tab:{name}}}",
            r"\begin{threeparttable}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"\\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            " & ".join(column.title for column in columns) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            *_notes(notes),
            r"\end{threeparttable}",
            r"\end{table}",
            "",
        ]
    )


def latex_document(name: str, frame: pd.DataFrame) -> str:
    """Lay out any table of ours: its own columns in their order, each metric with its interval in one cell.

    The paper's value stands where the frame has it, empty columns are left out, and what describes the whole run is
    in the notes.

    Args:
        name: Of the file, without its suffix.
        frame: The numbers, as in the table's CSV file.
    """
    notes = ["Ours: mean [95 % bootstrap interval of the mean]; a dash means no value."]
    known = {column: distinct(frame[column]) for column in _IN_NOTES if column in frame}
    notes += [f"{column.capitalize()}: {values}." for column, values in known.items() if values]
    return latex_table(name, list(_columns(frame)) or [Column("No rows", lambda _: "")], frame, notes)


def _columns(frame: pd.DataFrame) -> list[Column]:
    columns = [_column(str(name), frame) for name in frame.columns if _is_shown(str(name), frame)]
    if {"source", "stand_in", "substitution"} <= set(frame.columns):
        columns.append(Column("Source", lambda row: escape(Origin.of_row(row).label)))
    elif "source" in frame:
        columns.append(Column("Source", lambda row: escape(_text(row["source"]))))
    return columns


def _is_shown(name: str, frame: pd.DataFrame) -> bool:
    values = frame[name]
    empty = values.isna() | values.astype(object).map(lambda value: isinstance(value, str) and not value)
    part_of_another = _NOT_SHOWN.fullmatch(name) and (
        name.rpartition("_")[0] + "_mean" in frame or name in {*_IN_NOTES, "source", "stand_in", "substitution"}
    )
    return not part_of_another and not (len(frame) and bool(empty.all()))


def _column(name: str, frame: pd.DataFrame) -> Column:
    title = _title(name)
    base = name.removesuffix("_mean")
    if name.startswith("paper_"):
        return Column(f"{_title(name.removeprefix('paper_'))}, paper", lambda row: _number(row[name], printed), True)
    if name.endswith("_mean") and {f"{base}_{part}" for part in _INTERVAL} <= set(frame.columns):
        ours = ", ours" if f"paper_{base}" in frame else ""
        return Column(f"{_title(base)}{ours}", lambda row: _with_interval(row, base), numeric=True)
    numeric = bool(pd.api.types.is_numeric_dtype(frame[name])) and not pd.api.types.is_bool_dtype(frame[name])
    write = measured if name.endswith(("_mean", "_median")) else _setting
    return Column(title, (lambda row: _number(row[name], write)) if numeric else _cell_of(name), numeric)


def _cell_of(name: str) -> Callable[[pd.Series], str]:
    return lambda row: escape(_text(row[name]))


def _with_interval(row: pd.Series, base: str) -> str:
    mean, low, high = (float(row[f"{base}_{part}"]) for part in _INTERVAL)
    if math.isnan(mean):
        return "--"
    return escape(measured(mean) + ("" if math.isnan(low) else f" [{measured(low)}, {measured(high)}]"))


def _number(value: Any, write: Callable[[float], str]) -> str:
    if pd.isna(value):
        return "--"
    number = float(value)
    return f"{number:.0f}" if number.is_integer() else escape(write(number))


def _setting(value: float) -> str:
    return f"{value:.4g}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    missing = value is None or (isinstance(value, float) and pd.isna(value))
    return "–" if missing or value == "" else str(value)  # noqa: RUF001 - an en dash


def _title(name: str) -> str:
    words = [_WORDS.get(word) or escape(word) for word in name.split("_") if word]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]]) if words else ""


def _spoken(name: str) -> str:
    spoken = re.sub(r"(?<=[a-z])(?=\d)", " ", name.replace("_", " "))
    return spoken[:1].upper() + spoken[1:]


def _notes(notes: Sequence[str]) -> list[str]:
    if not notes:
        return []
    items = [f"\\item {escape(note)}" for note in notes]
    return [r"\begin{tablenotes}", r"\footnotesize", *items, r"\end{tablenotes}"]


def _plain(character: str) -> str:
    if character.isascii() or character in _LATIN:
        return character
    bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(_SPECIAL.get(part, part) for part in bare) or "?"
