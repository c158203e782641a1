"""Pages of measurements: a title, what was measured, and tables; in Markdown, the numbers beside it as CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from misure.io.atomic import write_atomically
from misure.paper.table import markdown_table


def page(title: str, notes: Sequence[str], *parts: str) -> str:
    """Lay out a page: its title, notes as a list, then what follows."""
    return "\n\n".join([f"# {title}", "\n".join(f"- {note}" for note in notes), *parts]) + "\n"


def frame_table(frame: pd.DataFrame) -> str:
    """Lay out a frame as a Markdown table; numbers have four digits, what is not known is empty."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return "" if math.isnan(value) else f"{value:.4g}"
        return str(value)

    return markdown_table([str(name) for name in frame], [[cell(v) for v in row] for row in frame.to_numpy()])


def write_page(folder: Path, name: str, text: str, frame: pd.DataFrame) -> None:
    """Write ``<name>.md`` and all numbers as ``<name>.csv``.

    Raises:
        MisureError: If the folder cannot be written.
    """
    write_atomically(folder / f"{name}.csv", lambda path: frame.to_csv(path, index=False))
    write_atomically(folder / f"{name}.md", lambda path: path.write_text(text, encoding="utf-8"))
