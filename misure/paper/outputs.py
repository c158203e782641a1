"""Writes every table and figure of the paper from records."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from misure.errors import MisureError
from misure.paper.cells import head_note
from misure.paper.figures import qualitative_figure, size_figure
from misure.paper.maps import noise_floor
from misure.paper.markdown import lr_lambda_document, table1_document, table6_document
from misure.paper.reference import PAIRS
from misure.paper.selection import latest_run
from misure.paper.tables import lr_lambda_table, table1, table6

_DPI = 150


def write_all(records: pd.DataFrame, outputs: Path, profile: str, maps_folder: Path | None = None) -> list[Path]:
    """Write ``tables/*.md`` and ``.csv``, ``figures/*.png`` and ``.pdf``.

    Args:
        records: All records, one row per unit and threshold.
        outputs: The outputs folder.
        profile: Which profile to show; other profiles' records are not used.
        maps_folder: Where the saved maps are; ``outputs/records/maps`` by default.

    Returns:
        The files, tables first.

    Raises:
        MisureError: If a file cannot be written, or records or maps are damaged.
    """
    maps_folder = maps_folder or outputs / "records" / "maps"
    run = latest_run(records, profile)
    tables, figures = outputs / "tables", outputs / "figures"
    first, sixth = table1(run), table6(run)
    written = _write_table(
        tables, 1, first, table1_document(first, head_note(run, profile), noise_floor(run, maps_folder))
    )
    for pair in PAIRS:
        frame = lr_lambda_table(run, pair)
        document = lr_lambda_document(frame, head_note(run, profile, [pair]), pair)
        written += _write_table(tables, pair.lr_lambda_table, frame, document)
    written += _write_table(tables, 6, sixth, table6_document(sixth, head_note(run, profile)))
    for pair in PAIRS:
        grid = qualitative_figure(run, maps_folder, profile, pair)
        written += _write_figure(figures, pair.qualitative_figure, grid)
        written += _write_figure(figures, pair.size_figure, size_figure(run, profile, pair))
    return written


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path`` and rename it.

    Raises:
        MisureError: If the place cannot be written; an older file stays as it was.
    """
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise MisureError(f"cannot write {path}: {reason}; free space or choose another folder") from error
    finally:
        _remove(partial)
    return path


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the folder itself is unusable, which write_atomically has reported
        return


def _write_table(folder: Path, number: int, frame: pd.DataFrame, document: str) -> list[Path]:
    return [
        write_atomically(folder / f"table{number}.md", lambda path: path.write_text(document, encoding="utf-8")),
        write_atomically(folder / f"table{number}.csv", lambda path: frame.to_csv(path, index=False)),
    ]


def _write_figure(folder: Path, number: int, figure: Figure) -> list[Path]:
    with mpl.rc_context({"pdf.fonttype": 42}):  # TrueType, which journals and editors accept
        return [
            write_atomically(folder / f"figure{number}.png", lambda path: figure.savefig(path, dpi=_DPI)),
            write_atomically(
                folder / f"figure{number}.pdf",
                lambda path: figure.savefig(path, dpi=_DPI, metadata={"CreationDate": None}),
            ),
        ]
