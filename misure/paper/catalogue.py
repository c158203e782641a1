"""Every table and figure: those of the paper, then what goes beyond it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from matplotlib.figure import Figure

from misure.paper.credits import credits_document
from misure.paper.extensions.ambiguities import ambiguities_tables
from misure.paper.extensions.contours import contours_tables
from misure.paper.extensions.equal_ratio import like_for_like_figures, like_for_like_tables
from misure.paper.extensions.insertion_deletion import insertion_deletion_figures, insertion_deletion_tables
from misure.paper.extensions.precisions import precisions_tables
from misure.paper.extensions.sanity import sanity_figures, sanity_tables
from misure.paper.extensions.second_stage import second_stage
from misure.paper.extensions.stability import stability_tables
from misure.paper.figures.maps import qualitative_figure, shown_rows
from misure.paper.figures.reliability import examples_figure, roc_figure
from misure.paper.figures.sizes import size_figure
from misure.paper.material import Material
from misure.paper.published import Pair, grouped
from misure.paper.reliability import table7
from misure.paper.table import Table
from misure.paper.tables.paper import by_class, lr_lambda, table1, table6
from misure.paper.tables.volumes import volumes


def paper_tables(material: Material) -> Iterator[Table]:
    """Make Tables 1 to 7 and what the paper says of contours and of whole volumes."""
    yield table1(material)
    for pairs in grouped([pair for pair in material.shown if pair.classes], "dataset"):
        yield by_class(material, pairs)
    for pair in material.pairs:
        yield lr_lambda(material, pair)
        if pair.compare_readings:
            yield second_stage(material, pair)
    yield table6(material)
    yield from contours_tables(material)
    if material.judged:
        yield table7(material)
    yield volumes(material)


def paper_figures(material: Material) -> Iterator[tuple[str, Figure]]:
    """Draw Figures 1 to 9; a dataset without records has labelled empty panels."""
    run, profile, shown = material.run, material.profile, material.pairs
    yield from sample_figures(material, shown)
    for pair in sorted(shown, key=lambda pair: pair.size_figure):
        yield f"figure{pair.size_figure}", size_figure(run, profile, pair)
    for pair in material.judged:
        yield f"figure8_{pair.model}", roc_figure(run, profile, pair)
        yield f"figure9_{pair.model}", examples_figure(run, material.maps_folder, profile, pair)


def sample_figures(material: Material, shown: Sequence[Pair]) -> Iterator[tuple[str, Figure]]:
    """Draw the figures with maps of samples (1 to 3)."""
    for pairs in grouped(shown, "qualitative_figure"):
        figure = qualitative_figure(material.run, material.maps_folder, material.profile, pairs)
        yield f"figure{pairs[0].qualitative_figure}", figure


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
    precisions_tables,
    sanity_tables,
)
"""Claims are no part of them: they are judged once, for their own file as well."""

FIGURES: tuple[Callable[[Material], Iterator[tuple[str, Figure]]], ...] = (
    paper_figures,
    like_for_like_figures,
    insertion_deletion_figures,
    sanity_figures,
)
