"""Writes every table and figure of the paper from records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from misure.files import write_atomically
from misure.paper.cells import head_note
from misure.paper.contours import contours_document, contours_table
from misure.paper.credits import credits_document
from misure.paper.figures import qualitative_figure, shown_rows
from misure.paper.maps import noise_floor
from misure.paper.markdown import by_class_document, lr_lambda_document, table1_document, table6_document
from misure.paper.material import Material
from misure.paper.readings import readings_table
from misure.paper.readings_markdown import readings_document
from misure.paper.reference import grouped
from misure.paper.reliability import save_models, table7, table7_document
from misure.paper.reliability_figures import examples_figure, roc_figure
from misure.paper.selection import every_draw, latest_run, paper_draw, shown_pairs
from misure.paper.size_figures import size_figure
from misure.paper.tables import by_class_table, lr_lambda_table, table1, table6
from misure.paper.volumes import read_all, volume_document, volume_table

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
    run = latest_run(records, profile)
    volumes = read_all(outputs / "volumes", run)
    material = Material(run, profile, maps_folder or outputs / "records" / "maps", volumes, shown_pairs(run))
    written = []
    for name, frame, document in tables(material):
        written += _write_table(outputs / "tables", name, frame, document)
    for name, figure in figures(material):
        written += _write_figure(outputs / "figures", name, figure)
    for name, text in attributions(material):
        written.append(_write_text(outputs / "figures" / f"{name}.md", text))
    for pair in material.judged:
        written += save_models(run, pair, outputs / "reliability")
    return written


def tables(material: Material) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Make every table: its file's name, its numbers and its document."""
    run, profile, shown, judged = material.run, material.profile, material.pairs, material.judged
    first = table1(run)
    floors = {pair.label: noise_floor(paper_draw(run, pair), material.maps_folder) for pair in shown}
    yield "table1", first, table1_document(first, head_note(run, profile), floors)
    for pairs in grouped([pair for pair in shown if pair.classes], "dataset"):
        frame = by_class_table(run, pairs)
        document = by_class_document(frame, head_note(run, profile, pairs), pairs[0])
        yield f"table1_{pairs[0].dataset}_by_{pairs[0].class_word}", frame, document
    for pair in shown:
        name, head = f"table{pair.lr_lambda_table}", head_note(run, profile, [pair])
        frame = lr_lambda_table(run, pair)
        readings = readings_table(run, pair, material.maps_folder) if pair.compare_readings else None
        yield name, frame, lr_lambda_document(frame, head, pair, readings)
        if readings is not None:
            yield f"{name}_readings", readings, readings_document(readings, head, pair)
    sixth = table6(run)
    yield "table6", sixth, table6_document(sixth, head_note(run, profile))
    near = contours_table(run, shown, material.maps_folder)
    yield "contours", near, contours_document(near, head_note(run, profile))
    if judged:
        seventh = table7(run, judged)
        yield "table7", seventh, table7_document(seventh, head_note(run, profile, judged, every_draw))
    by_volume = volume_table(material.volumes)
    yield "volumes", by_volume, volume_document(by_volume)


def figures(material: Material) -> Iterator[tuple[str, Figure]]:
    """Draw every figure; a dataset without records has labelled empty panels."""
    run, profile, shown = material.run, material.profile, material.pairs
    for pairs in grouped(shown, "qualitative_figure"):
        figure = qualitative_figure(run, material.maps_folder, profile, pairs)
        yield f"figure{pairs[0].qualitative_figure}", figure
    for pair in sorted(shown, key=lambda pair: pair.size_figure):
        yield f"figure{pair.size_figure}", size_figure(run, profile, pair)
    for pair in material.judged:
        yield f"figure8_{pair.model}", roc_figure(run, profile, pair)
        yield f"figure9_{pair.model}", examples_figure(run, material.maps_folder, profile, pair)


def attributions(material: Material) -> Iterator[tuple[str, str]]:
    """Write who made the photographs of each figure that shows some: the file's name and its text."""
    for pairs in grouped([pair for pair in material.pairs if pair.photographs], "qualitative_figure"):
        number = pairs[0].qualitative_figure
        rows = shown_rows(material.run, material.maps_folder, pairs)
        yield f"figure{number}_credits", credits_document(f"Figure {number} ({pairs[0].dataset_label})", rows)


def _write_text(path: Path, text: str) -> Path:
    return write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _write_table(folder: Path, name: str, frame: pd.DataFrame, document: str) -> list[Path]:
    return [
        _write_text(folder / f"{name}.md", document),
        write_atomically(folder / f"{name}.csv", lambda path: frame.to_csv(path, index=False)),
    ]


def _write_figure(folder: Path, name: str, figure: Figure) -> list[Path]:
    _lay_out(figure)
    with mpl.rc_context({"pdf.fonttype": 42}):  # TrueType, which journals and editors accept
        return [
            write_atomically(folder / f"{name}.png", lambda path: figure.savefig(path, format="png", dpi=_DPI)),
            write_atomically(
                folder / f"{name}.pdf",
                lambda path: figure.savefig(path, format="pdf", dpi=_DPI, metadata={"CreationDate": None}),
            ),
        ]


def _lay_out(figure: Figure) -> None:
    """Place a figure's parts once, which saving would do twice for every file."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)
