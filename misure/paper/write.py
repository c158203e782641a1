"""Writes tables, figures, claims and findings from records."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text

from misure.io.atomic import write_atomically
from misure.paper.catalogue import FIGURES, TABLES, attributions, sample_figures
from misure.paper.claims import (
    Claim,
    claims,
    claims_document,
    claims_frame,
    claims_json,
    claims_table,
    inconsistencies,
    inconsistencies_table,
)
from misure.paper.findings import KeyFinding, findings_document, findings_json, key_findings
from misure.paper.maps import damaged_units
from misure.paper.material import Material
from misure.paper.provenance import head_note
from misure.paper.query import further_pairs, latest_run, of_pair, shown_pairs
from misure.paper.reference import mark_shared, reference_material
from misure.paper.reliability import save_models
from misure.paper.table import Table
from misure.paper.tables.paper import table1
from misure.paper.tables.volumes import read_all

_DPI = 150
_MOST_NAMED = 30
_ELEMENT = re.compile(r"<(?=[A-Za-z/!?])(?!https?://)")


@dataclass(frozen=True)
class Written:
    """What was made.

    Attributes:
        material: What it was made from.
        tables: Every table.
        claims: The verdicts, see :func:`misure.paper.claims.claims_frame`.
        findings: What a reader must know first.
        figures: The figures' PNG files.
        files: Everything that was written, tables first.
    """

    material: Material
    tables: Sequence[Table]
    claims: pd.DataFrame
    findings: Sequence[KeyFinding]
    figures: Sequence[Path]
    files: Sequence[Path]


def write_all(
    records: pd.DataFrame,
    outputs: Path,
    profile: str,
    maps_folder: Path | None = None,
    failures: Mapping[str, str] | None = None,
) -> Written:
    """Write ``tables/*.md``, ``.csv`` and ``.tex``, ``figures/*.png`` and ``.pdf``, claims and findings.

    Args:
        records: All records, one row per unit and threshold.
        outputs: The outputs folder.
        profile: Which profile to show; other profiles' records are not used.
        maps_folder: Where the saved maps are; ``outputs/records/maps`` by default.
        failures: Datasets and networks that could not be used, and why; every document says so.

    Raises:
        MisureError: If a file cannot be written, or the records lack a column.
    """
    material = _material(records, outputs, profile, maps_folder)
    run = material.run
    made = [table for tables in TABLES for table in tables(material)]
    note = _note(failures or {}, material.maps_folder)
    files = [path for table in made for path in _write_table(outputs / "tables", table, note)]
    pictures = [
        path
        for figures in FIGURES
        for name, figure in figures(material)
        for path in _write_figure(outputs / "figures", name, figure)
    ]
    files += pictures
    files += _write_attributions(material, outputs)
    for pair in material.judged:
        files += save_models(run, pair, outputs / "reliability")
    judged, contradictions, written = _write_claims(material, outputs, failures or {})
    made.append(contradictions)
    found = key_findings(material, made, judged)
    files += [*written, *_write_findings(found, judged, material, outputs, failures or {})]
    shown = [path for path in pictures if path.suffix == ".png"]
    return Written(material, made, claims_frame(judged), found, shown, files)


def write_table1(records: pd.DataFrame, outputs: Path, profile: str, failures: Mapping[str, str]) -> list[Path]:
    """Write Table 1 and the figures of sample maps alone, see :func:`write_all`."""
    material = _material(records, outputs, profile)
    files = _write_table(outputs / "tables", table1(material), _note(failures, material.maps_folder))
    shown = [pair for pair in material.pairs if len(of_pair(material.run, pair))]
    for name, figure in sample_figures(material, shown):
        files += _write_figure(outputs / "figures", name, figure)
    return files + _write_attributions(material, outputs)


def _write_attributions(material: Material, outputs: Path) -> list[Path]:
    return [_write_markdown(outputs / "figures" / f"{name}.md", text) for name, text in attributions(material)]


def _material(records: pd.DataFrame, outputs: Path, profile: str, maps_folder: Path | None = None) -> Material:
    run, maps = _text_in_one_array(latest_run(records, profile)), maps_folder or outputs / "records" / "maps"
    theirs = reference_material()
    run = mark_shared(run, theirs.run) if theirs else run
    theirs = None if theirs and run["shared"].all() else theirs
    volumes = read_all(outputs / "volumes", run)
    return Material(run, profile, maps, volumes, shown_pairs(run), further_pairs(run), theirs)


def _text_in_one_array(run: pd.DataFrame) -> pd.DataFrame:
    """Let a selection take its rows of all columns of text at once, and not column by column."""
    texts = [name for name, kind in run.dtypes.items() if isinstance(kind, pd.StringDtype)]
    return run.astype(dict.fromkeys(texts, object)).copy()


def _note(failures: Mapping[str, str], maps_folder: Path) -> str:
    """Say what failed or is damaged; maps are found to be so when they are used."""
    reasons = [f"{subject}: {reason}" for subject, reason in failures.items()]
    reasons += [f"maps of {unit}: damaged" for unit in damaged_units(maps_folder)]
    more = [f"and {len(reasons) - _MOST_NAMED} more"] if len(reasons) > _MOST_NAMED else []
    lines = "\n".join(f"- {' '.join(reason.split())}" for reason in [*reasons[:_MOST_NAMED], *more])
    return f"\nFailed, so what needs it is missing:\n\n{lines}\n" if lines else ""


def _write_claims(
    material: Material, outputs: Path, failures: Mapping[str, str]
) -> tuple[list[Claim], Table, list[Path]]:
    """Judge the claims once, and write them and what the paper contradicts itself in."""
    judged, contradictions = claims(material), inconsistencies(material)
    note = _note(failures, material.maps_folder)
    head = head_note(material.run, material.profile, material.pairs)
    shown, table = claims_table(judged, head), inconsistencies_table(contradictions, head)
    return (
        judged,
        table,
        [
            *_write_table(outputs / "tables", table, note),
            *_write_numbers(outputs / "tables", shown),
            _write_json(outputs / "claims.json", claims_json(judged)),
            _write_markdown(outputs / "claims.md", claims_document(judged, contradictions, head) + note),
        ],
    )


def _write_findings(
    found: Sequence[KeyFinding], judged: Sequence[Claim], material: Material, outputs: Path, failures: Mapping[str, str]
) -> list[Path]:
    page = findings_document(found, judged, head_note(material.run, material.profile, material.pairs))
    return [
        _write_json(outputs / "findings.json", findings_json(found)),
        _write_markdown(outputs / "findings.md", page + _note(failures, material.maps_folder)),
    ]


def _write_json(path: Path, content: Any) -> Path:
    return _write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _write_text(path: Path, text: str) -> Path:
    return write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _write_markdown(path: Path, text: str) -> Path:
    """Write a document in which no text from data is an HTML element; addresses in angle brackets stay links."""
    return _write_text(path, _ELEMENT.sub("&lt;", text))


def _write_table(folder: Path, table: Table, note: str) -> list[Path]:
    return [_write_markdown(folder / f"{table.name}.md", table.markdown() + note), *_write_numbers(folder, table)]


def _write_numbers(folder: Path, table: Table) -> list[Path]:
    return [
        _write_text(folder / f"{table.name}.csv", table.csv()),
        _write_text(folder / f"{table.name}.tex", table.latex()),
    ]


def _write_figure(folder: Path, name: str, figure: Figure) -> list[Path]:
    _show_as_it_is(figure)
    _lay_out(figure)
    with mpl.rc_context({"pdf.fonttype": 42}):  # TrueType, which journals and editors accept
        return [
            write_atomically(folder / f"{name}.png", lambda path: figure.savefig(path, format="png", dpi=_DPI)),
            write_atomically(
                folder / f"{name}.pdf",
                lambda path: figure.savefig(path, format="pdf", dpi=_DPI, metadata={"CreationDate": None}),
            ),
        ]


def _show_as_it_is(figure: Figure) -> None:
    """Show dollar signs that begin no formula, such as in the name of a class, as they are."""
    parser = MathTextParser("path")
    for text in figure.findobj(Text):
        if isinstance(text, Text) and "$" in text.get_text():
            try:
                parser.parse(text.get_text())
            except ValueError:
                text.set_parse_math(parse_math=False)


def _lay_out(figure: Figure) -> None:
    """Place a figure's parts once, which saving would do twice for every file."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)
