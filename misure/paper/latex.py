r"""Tables as LaTeX (``booktabs``, ``threeparttable``, ``graphicx``), to be read with ``\input``."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import pandas as pd

PACKAGES = ("[T1]{fontenc}", "{booktabs}", "{threeparttable}", "{graphicx}")
"""What a document needs that reads one of the tables, as arguments of ``usepackage``."""

_MATHS = str.maketrans(
    {
        "−": r"$-$",  # noqa: RUF001 - a minus sign
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "→": r"$\rightarrow$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "≈": r"$\approx$",
        "α": r"$\alpha$",  # noqa: RUF001
        "γ": r"$\gamma$",  # noqa: RUF001
        "λ": r"$\lambda$",
        "μ": r"$\mu$",
        "τ": r"$\tau$",
    }
)
_KNOWN = "–—×±·…¡¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ"  # noqa: RUF001
"""Characters beyond ASCII that pdfLaTeX prints as they are."""


def latex_table(name: str, title: str, cells: pd.DataFrame, numeric: Sequence[bool], notes: Sequence[str]) -> str:
    r"""Lay out a table.

    Args:
        name: Of the file; becomes ``\label{tab:<name>}``.
        title: The caption, in plain text.
        cells: Plain text by header.
        numeric: Which columns are aligned to the right.
        notes: Plain text below the table.

    Returns:
        A ``table`` environment, no wider than the text.
    """
    if cells.columns.empty:
        cells, numeric = pd.DataFrame(columns=["No rows"]), [False]
    alignment = "".join("r" if right else "l" for right in numeric)
    caption, *items = _escaped([title, *notes])
    return "\n".join(
        [
            *(f"% Needs \\usepackage{package}" for package in PACKAGES),
            r"\begin{table}",
            r"\centering",
            f"\\caption{{{caption}}}",
            f"\\label{{tab:{name}}}",
            r"\begin{threeparttable}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            _tabular(cells, alignment) + "}",
            *([r"\begin{tablenotes}", r"\footnotesize"] if items else []),
            *(f"\\item {{}}{item}" for item in items),
            *([r"\end{tablenotes}"] if items else []),
            r"\end{threeparttable}",
            r"\end{table}",
            "",
        ]
    )


def _tabular(cells: pd.DataFrame, alignment: str) -> str:
    printable = cells.reset_index(drop=True).map(_printable).rename(columns=_printable)
    styler = printable.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    text = styler.to_latex(hrules=True, column_format=alignment).rstrip().translate(_MATHS)
    # What begins a line would else be read as an option of the line break or rule before it.
    return re.sub(r"^\[", "{}[", text, flags=re.MULTILINE)


def _escaped(texts: Sequence[str]) -> list[str]:
    """Escape texts as the cells of a table are."""
    lines = _tabular(pd.DataFrame({"text": texts}), "l").splitlines()
    return [line.removesuffix(r" \\").lstrip() for line in lines[4:-2]]  # between the rules


def _printable(text: str) -> str:
    """Put a text on one line; letters that pdfLaTeX does not know lose their accents, or become question marks."""
    return "".join(
        character if character.isascii() or character in _KNOWN or ord(character) in _MATHS else _plain(character)
        for character in " ".join(text.split())
    )


def _plain(character: str) -> str:
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"
