"""What bfloat16 changes: the same samples explained in float32 and in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from misure.explainers import EXPLAINERS
from misure.paper.extensions.paired import KEY, MARKS, columns
from misure.paper.maps import iou, load_twins, twins
from misure.paper.material import Material
from misure.paper.prose import prose
from misure.paper.provenance import head_note
from misure.paper.published import Pair
from misure.paper.query import WORK, at_threshold, paper_draw, select
from misure.paper.source import Origin, marked
from misure.paper.table import Column, Table, estimate
from misure.paper.tables.paper import DATASET, METHOD, MODEL

_CHANGES = {"dice_explained": "dice_change", "perturbation_ratio": "ratio_change"}


def precisions_tables(material: Material) -> Iterator[Table]:
    """Make the table of what bfloat16 changes; none where no method has records in both precisions."""
    frames = [precisions_table(material.run, pair, material.maps_folder) for pair in material.shown]
    if all(frame.empty for frame in frames):
        return
    frame = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    shown = (
        *(DATASET, MODEL, METHOD),
        Column("threshold", "Cut at"),
        estimate("dice_explained_32", "Dice explained, float32"),
        estimate("dice_change", "Dice, bfloat16 minus float32"),
        estimate("perturbation_ratio_32", "Perturbation ratio, float32"),
        estimate("ratio_change", "ratio, bfloat16 minus float32"),
        Column("n", "n"),
        estimate("iou", "IoU of the maps above 0"),
        *MARKS,
    )
    yield Table(
        "precisions",
        marked("Precision: the same samples explained in float32 and in bfloat16", frame),
        shown,
        frame,
        head_note(material.run, material.profile, material.shown),
        prose("precisions.md.j2"),
        n_parts=2,
    )


def precisions_table(run: pd.DataFrame, pair: Pair, maps_folder: Path) -> pd.DataFrame:
    """Compare records in bfloat16 to those of the same samples in float32, at the published setting.

    Args:
        run: As :func:`misure.paper.query.latest_run` returns it.
        pair: Dataset and model.
        maps_folder: Where the saved maps are.

    Returns:
        One row per method and threshold with samples in both. Means are over these, their intervals over images;
        ``iou`` is of the pixels above 0 where both maps were saved, and only of methods whose map is the mask.
    """
    records = paper_draw(run, pair)
    rows = []
    for name, explainer in EXPLAINERS.items():
        full, lowered = (select(records[records["precision"].eq(precision)], name) for precision in ("32", "bf16"))
        both = twins(lowered.drop(columns="precision"), full.drop(columns="precision"), *WORK)
        for threshold in explainer.published().thresholds or (None,):
            numbers = _numbers(at_threshold(both, threshold), maps_folder, is_mask=threshold is None)
            if len(numbers):
                row: dict[str, Any] = {"dataset": pair.dataset_label, "model": pair.model_label}
                row |= {"method": explainer.title, "threshold": threshold, "n": len(numbers)}
                rows.append(row | columns(numbers) | Origin.of(records).columns())
    return pd.DataFrame(rows).astype({"threshold": float}) if rows else pd.DataFrame()


def _numbers(pairs: pd.DataFrame, maps_folder: Path, *, is_mask: bool) -> pd.DataFrame:
    """Return what is compared, a row per sample."""
    values = {}
    for metric, change in _CHANGES.items():
        values[f"{metric}_32"] = pairs[f"{metric}_plain"]
        values[f"{metric}_bf16"] = pairs[f"{metric}_changed"]
        values[change] = pairs[f"{metric}_changed"] - pairs[f"{metric}_plain"]
    numbers = pd.DataFrame({**{name: pairs[name] for name in KEY}, **values, "iou": float("nan")}, index=pairs.index)
    for pair, lowered, full in load_twins(pairs, maps_folder) if is_mask else ():
        numbers.loc[pair.name, "iou"] = iou(lowered["saliency"] > 0, full["saliency"] > 0)
    return numbers.set_index(KEY)
