"""Contours: whether the mass of MSR's masks lies on the object's outline, as the paper says, or elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import max_pool2d

from misure.paper.extensions.paired import KEY, MARKS, columns
from misure.paper.extensions.readings import Reading, readings_of
from misure.paper.maps import load_maps
from misure.paper.material import Material
from misure.paper.prose import prose
from misure.paper.provenance import head_note
from misure.paper.published import Pair
from misure.paper.query import paper_draw
from misure.paper.source import Origin, marked
from misure.paper.table import Column, Table, estimate
from misure.paper.tables.paper import DATASET, MODEL, N

WIDTHS = (3, 5)
"""Pixels on either side of the contour that count as on it, at the paper's size of 224 pixels."""

ENOUGH_SAMPLES = 8
"""Fewer saved maps give no sentence: the skewness of so few is a guess."""

_PAPER_SIZE = 224
_SHARES = ("mask", "sufficient_region", "mask_in_object", "object")
_DIFFERENCES = {
    "mask_over_sufficient_region": ("mask", "sufficient_region"),
    "mask_in_object_over_object": ("mask_in_object", "object"),
}
"""How much more of a mask lies near the contour than of the area that it could fill."""


def contours_tables(material: Material) -> Iterator[Table]:
    """Make the table of shares near contours."""
    frame = contours_table(material.run, material.shown, material.maps_folder)
    shown = (
        *(DATASET, MODEL),
        *(Column("reading", "Start of stage 2"), Column("width", "Width", unit="pixels")),
        *(estimate("mask", "MSR's mass"), estimate("sufficient_region", "Sufficient region")),
        estimate("mask_over_sufficient_region", "MSR's mass less region"),
        *(estimate("mask_in_object", "MSR's mass in the object"), estimate("object", "Object")),
        estimate("mask_in_object_over_object", "In the object less object"),
        *(N, Column("n_empty_masks", "Empty masks"), *MARKS),
    )
    words = {"widths": WIDTHS, "size": _PAPER_SIZE, "enough": ENOUGH_SAMPLES, "compared": _compared}
    yield Table(
        "contours",
        marked("Contours: where the mass of MSR's masks lies", frame),
        shown,
        frame,
        head_note(material.run, material.profile, material.shown),
        prose("contours.md.j2", rows=frame.to_dict("records"), **words),
        n_parts=2,
    )


def _compared(row: Mapping[str, float], difference: str) -> str:
    if row[f"{difference}_low"] > 0:
        return "above"
    return "below" if row[f"{difference}_high"] < 0 else "not clearly different from"


def contours_table(run: pd.DataFrame, pairs: Sequence[Pair], maps_folder: Path) -> pd.DataFrame:
    """Measure which share of MSR's masks lies near the contour of the prediction.

    Args:
        run: As :func:`misure.paper.query.latest_run` returns it.
        pairs: Datasets and models to show.
        maps_folder: Where the saved maps are.

    Returns:
        One row per dataset, model, reading of stage 2's start (the literal one, and others where maps of them were
        saved) and width. Means are over samples with saved maps, their intervals over images.
    """
    return pd.DataFrame([row for pair in pairs for row in _pair_rows(run, pair, maps_folder)])


def _pair_rows(run: pd.DataFrame, pair: Pair, maps_folder: Path) -> Iterator[dict[str, Any]]:
    records = paper_draw(run, pair)
    for reading in readings_of("table5_readings"):
        if not reading.literal and not pair.compare_readings:
            continue
        samples = _numbers(records, reading, maps_folder)
        for width in WIDTHS if reading.literal or len(samples) else ():
            numbers = samples[samples["width"] == width].drop(columns="width")
            row: dict[str, Any] = {"dataset": pair.dataset_label, "model": pair.model_label}
            row |= {"reading": reading.title, "width": width, "n_samples": len(numbers)}
            row |= {"n_empty_masks": int(numbers["mask"].isna().sum())} | columns(numbers)
            yield row | Origin.of(records).columns()


def _numbers(records: pd.DataFrame, reading: Reading, maps_folder: Path) -> pd.DataFrame:
    """Return the shares of every sample with saved maps, by width."""
    rows = []
    for *key, unit in reading.rows(records)["unit"].reset_index().to_numpy():
        maps = load_maps(maps_folder, unit)
        if maps is not None and "sufficient_region" in maps:
            named = dict(zip(KEY, key, strict=True))
            rows += [named | {"width": width} | shares_near_contour(maps, width) for width in WIDTHS]
    frame = pd.DataFrame(rows, columns=[*KEY, "width", *_SHARES]).set_index(KEY)
    return frame.assign(**{name: frame[mask] - frame[area] for name, (mask, area) in _DIFFERENCES.items()})


def shares_near_contour(maps: Mapping[str, NDArray[Any]], width: int) -> dict[str, float]:
    """Return which shares of a mask and of the areas it could fill lie near the prediction's contour.

    Args:
        maps: As :func:`misure.paper.maps.load_maps` returns them, with a sufficient region.
        width: Pixels on either side, for an image of 224 pixels; other sizes scale it.

    Returns:
        Shares, 0..1: of the mask's mass (``mask``), of its mass inside the object (``mask_in_object``), of the
        sufficient region's pixels and of the object's; NaN where there is nothing to share.
    """
    region = torch.from_numpy(maps["region"].astype(np.bool_))
    scaled = max(1, round(width * min(region.shape) / _PAPER_SIZE))
    band = near_contour(region, scaled).numpy()
    mask, inside = maps["saliency"].astype(np.float64), region.numpy()
    parts = {
        "mask": mask,
        "sufficient_region": maps["sufficient_region"].astype(np.float64),
        "object": inside.astype(np.float64),
        "mask_in_object": mask * inside,
    }
    return {name: float(part[band].sum() / part.sum()) if part.any() else float("nan") for name, part in parts.items()}


def near_contour(region: Tensor, width: int) -> Tensor:
    """Mark the pixels within some pixels of a contour: of the object near its outside, and of the outside near it.

    The image's border is no contour.

    Args:
        region: bool, H x W.
        width: Pixels; a square neighbourhood, 1 for the two rows of pixels that touch the contour.

    Returns:
        bool, H x W.
    """
    both = torch.stack([region, ~region])[None].float()
    grown = max_pool2d(both, 2 * width + 1, stride=1, padding=width) > 0
    return grown[0, 0] & grown[0, 1]
