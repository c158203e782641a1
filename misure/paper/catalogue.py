"""Every table and figure: those of the paper, then what goes beyond it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd
from matplotlib.figure import Figure

from misure.paper.credits import credits_document
from misure.paper.extensions.ambiguities_markdown import ambiguities_tables
from misure.paper.extensions.contours import contours_document, contours_table
from misure.paper.extensions.equal_ratio import like_for_like_tables
from misure.paper.extensions.insertion_deletion import insertion_deletion_figures, insertion_deletion_tables
from misure.paper.extensions.readings import readings_table
from misure.paper.extensions.readings_markdown import readings_document
from misure.paper.extensions.sanity import sanity_tables
from misure.paper.extensions.stability import stability_tables
from misure.paper.figures.equal_ratio import like_for_like_figures
from misure.paper.figures.maps import qualitative_figure, shown_rows
from misure.paper.figures.reliability import examples_figure, roc_figure
from misure.paper.figures.sanity import sanity_figures
from misure.paper.figures.sizes import size_figure
from misure.paper.maps import noise_floor
from misure.paper.material import Material
from misure.paper.provenance import head_note
from misure.paper.published import grouped
from misure.paper.query import every_draw, paper_draw
from misure.paper.reliability import table7, table7_document
from misure.paper.tables.markdown import by_class_document, lr_lambda_document, table1_document, table6_document
from misure.paper.tables.rows import by_class_table, lr_lambda_table, table1, table6
from misure.paper.tables.volumes import volume_document, volume_table

Table = tuple[str, pd.DataFrame, str]
"""Its file's name, its numbers and its document."""


def paper_tables(material: Material) -> Iterator[Table]:
    """Make Tables 1 to 7 and what the paper says of contours and of whole volumes."""
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


def paper_figures(material: Material) -> Iterator[tuple[str, Figure]]:
    """Draw Figures 1 to 9; a dataset without records has labelled empty panels."""
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


TABLES: tuple[Callable[[Material], Iterator[Table]], ...] = (
    paper_tables,
    like_for_like_tables,
    insertion_deletion_tables,
    ambiguities_tables,
    stability_tables,
    sanity_tables,
)
"""Claims are no part of them: they are judged once, for their own file as well."""

FIGURES: tuple[Callable[[Material], Iterator[tuple[str, Figure]]], ...] = (
    paper_figures,
    like_for_like_figures,
    insertion_deletion_figures,
    sanity_figures,
)
