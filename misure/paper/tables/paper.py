"""The paper's Tables 1 to 6, and Table 1 by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from misure.paper.maps import NOT_MEASURED, NoiseFloor, noise_floor
from misure.paper.material import Material
from misure.paper.prose import prose
from misure.paper.provenance import head_note
from misure.paper.published import PAPER_MASKS, Pair
from misure.paper.query import paper_draw
from misure.paper.reference import beside
from misure.paper.source import marked
from misure.paper.table import Column, Table, duration, estimate, printed
from misure.paper.tables.rows import class_rows, lr_lambda_rows, mask_size_rows, method_rows

DATASET, MODEL, METHOD = Column("dataset", "Dataset"), Column("model", "Model"), Column("method", "Method")
N, REMARKS = Column("n_samples", "n"), Column("remarks", "Remarks")
METRICS = (
    Column("paper_dice_explained", "Dice explained, paper", printed),
    estimate("dice_explained", "Dice explained, ours", better="higher", paper="paper_dice_explained"),
    Column("paper_perturbation_ratio", "Perturbation ratio, paper", printed),
    estimate("perturbation_ratio", "Perturbation ratio, ours", better="lower", paper="paper_perturbation_ratio"),
)
"""The paper's metrics, each beside ours."""


def table1(material: Material) -> Table:
    """Compare methods, with each pair's noise floor below."""
    run, maps = material.run, material.maps_folder
    floors = {pair.label: noise_floor(paper_draw(run, pair), maps) for pair in material.shown}
    frame = method_rows(run, material.shown)
    seconds = (
        Column("paper_seconds", "Seconds, paper", printed),
        Column("seconds_mean", "Seconds, ours", duration),
    )
    table = Table(
        "table1",
        marked("Table 1: MSR, RISE, Seg-Grad-CAM and baselines", frame),
        (DATASET, MODEL, METHOD, Column("threshold", "Threshold"), *METRICS, *seconds, N, REMARKS),
        frame,
        head_note(run, material.profile, material.shown),
        _table1_notes(floors),
        n_parts=2,
    )
    return beside(
        table,
        material.reference,
        lambda its: method_rows(its.run, its.shown),
        ("dataset", "model", "method", "threshold"),
        n=N.name,
    )


def by_class(material: Material, pairs: Sequence[Pair]) -> Table:
    """Split Table 1's MSR and SR by class, for the models of one dataset."""
    first, frame = pairs[0], class_rows(material.run, pairs)
    title = f"Table 1 for {first.dataset_label}, {first.class_word} by {first.class_word}"
    columns = (
        *(MODEL, Column("class", first.class_word.capitalize()), METHOD),
        *(column for column in METRICS if not column.name.startswith("paper_")),
        Column("n_dilations_median", "Dilations, median"),
        Column("prediction_size_median", "Prediction size, median", unit="pixels"),
        *(N, REMARKS),
    )
    return Table(
        f"table1_{first.dataset}_by_{first.class_word}",
        marked(title, frame),
        columns,
        frame,
        head_note(material.run, material.profile, pairs),
        prose("by_class.md.j2"),
        n_parts=1,
    )


def lr_lambda(material: Material, pair: Pair) -> Table:
    """Vary learning rate and lambda of MSR, for one dataset and model."""
    frame = lr_lambda_rows(material.run, pair)
    title = f"Table {pair.lr_lambda_table}: learning rate and lambda of MSR ({pair.label}, mask 224 x 224)"
    table = Table(
        f"table{pair.lr_lambda_table}",
        marked(title, frame),
        (Column("lambda", "lambda"), Column("learning_rate", "Learning rate"), *METRICS, N, REMARKS),
        frame,
        head_note(material.run, material.profile, [pair]),
        prose("lr_lambda.md.j2", readings=pair.compare_readings, number=pair.lr_lambda_table),
    )
    return beside(
        table,
        material.reference,
        lambda its: lr_lambda_rows(its.run, its.like(pair)),
        ("dataset", "model", "lambda", "learning_rate"),
        n=N.name,
    )


def table6(material: Material) -> Table:
    """Vary the mask size of MSR."""
    frame = mask_size_rows(material.run, material.pairs)
    table = Table(
        "table6",
        marked("Table 6: mask size of MSR (learning rate 0.1, lambda 0.01)", frame),
        (DATASET, MODEL, Column("mask_size", "Mask size", lambda size: f"{size} x {size}"), *METRICS, N, REMARKS),
        frame,
        head_note(material.run, material.profile, material.pairs),
        prose("reading.md.j2"),
        n_parts=2,
    )
    return beside(
        table,
        material.reference,
        lambda its: mask_size_rows(its.run, its.pairs),
        ("dataset", "model", "mask_size"),
        n=N.name,
    )


def _table1_notes(floors: Mapping[str, NoiseFloor]) -> str:
    return prose("table1.md.j2", floors=floors, not_measured=NOT_MEASURED, paper_masks=PAPER_MASKS)
