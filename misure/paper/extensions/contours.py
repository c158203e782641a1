"""Where the mass of MSR's masks lies: on the object's contour, as the paper says of natural images, or elsewhere."""

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

from misure.paper.extensions.readings import LITERAL, READINGS, Reading
from misure.paper.maps import load_maps
from misure.paper.published import DASH, Pair
from misure.paper.query import at_threshold, paper_draw, select
from misure.paper.source import Origin, heading
from misure.paper.statistics import Summary, summarise_groups
from misure.paper.table import interval, markdown_table, measured

WIDTHS = (3, 5)
"""Pixels on either side of the contour that count as on it, at the paper's size of 224 pixels."""

ENOUGH_SAMPLES = 8
"""Fewer saved maps give no sentence: a bootstrap of so few is no interval."""

_PAPER_SIZE = 224
_SHARES = ("mask", "sufficient_region", "mask_in_object", "object")
_DIFFERENCES = {
    "mask_over_sufficient_region": ("mask", "sufficient_region"),
    "mask_in_object_over_object": ("mask_in_object", "object"),
}
"""How much more of a mask lies near the contour than of the area that it could fill."""


def contours_table(run: pd.DataFrame, pairs: Sequence[Pair], maps_folder: Path) -> pd.DataFrame:
    """Measure which share of MSR's masks lies near the contour of the prediction.

    Args:
        run: As :func:`misure.paper.query.latest_run` returns it.
        pairs: Datasets and models to show.
        maps_folder: Where the saved maps are.

    Returns:
        One row per dataset, model, reading of stage 2's start (the literal one, and others where maps of them were
        saved) and width. Means are over samples with saved maps, their intervals over images.

    Raises:
        MisureError: If a map is damaged.
    """
    return pd.DataFrame([row for pair in pairs for row in _pair_rows(run, pair, maps_folder)])


def _pair_rows(run: pd.DataFrame, pair: Pair, maps_folder: Path) -> Iterator[dict[str, Any]]:
    records = paper_draw(run, pair)
    for reading in READINGS if pair.compare_readings else (LITERAL,):
        samples = _saved(records, reading, maps_folder)
        if reading != LITERAL and samples.empty:
            continue
        for width in WIDTHS:
            row = {"dataset": pair.dataset_label, "model": pair.model_label, "reading": reading.title, "width": width}
            mine = samples[samples["width"] == width]
            row |= {"n_samples": len(mine), "n_empty_masks": int(mine["mask"].isna().sum())}
            for name in (*_SHARES, *_DIFFERENCES):
                known = mine.dropna(subset=[name])
                summary = summarise_groups(known[name], known["sample"])
                row |= {f"{name}_{part}": getattr(summary, part) for part in ("mean", "low", "high", "median", "n")}
            yield row | Origin.of(records).columns()


def _saved(records: pd.DataFrame, reading: Reading, maps_folder: Path) -> pd.DataFrame:
    """Return the shares of every sample with saved maps, by width."""
    rows = at_threshold(select(records, "msr", **reading.parameters), None)
    found = []
    for sample, unit in zip(rows["sample"], rows["unit"], strict=True):
        maps = load_maps(maps_folder, unit)
        if maps is not None and "sufficient_region" in maps:
            found += [{"sample": sample, "width": width} | shares_near_contour(maps, width) for width in WIDTHS]
    frame = pd.DataFrame(found, columns=["sample", "width", *_SHARES])
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


def contours_document(frame: pd.DataFrame, head: str) -> str:
    """Lay out :func:`contours_table`, with a sentence for each row about what it shows."""
    headers = ["Dataset", "Model", "Start of stage 2", "Width", "MSR's mass", "Sufficient region", "Difference"]
    headers += ["MSR's mass in the object", "Object", "Difference", "Samples", "Source"]
    names = [part for name, shares in _DIFFERENCES.items() for part in (*shares, name)]
    lines = []
    for _, row in frame.iterrows():
        cells = [row["dataset"], row["model"], row["reading"], f"{row['width']} pixels"]
        cells += [_cell(_summary(row, name)) for name in names]
        empty = f" ({row['n_empty_masks']} empty masks)" if row["n_empty_masks"] else ""
        lines.append([*cells, f"{row['n_samples']}{empty}", Origin.of_row(row).cell])
    widest = frame[frame["width"] == WIDTHS[0]]
    says = "\n".join(f"- {_in_words(row)}" for _, row in widest.iterrows())
    title = heading("Contours: where the mass of MSR's masks lies", frame)
    return "\n\n".join([title, head, _READING, markdown_table(headers, lines), says, _DEFINITIONS]) + "\n"


def _cell(summary: Summary) -> str:
    return f"{measured(summary.mean)} {interval(summary)}" if summary.n else f"{DASH} (no saved maps)"


def _summary(row: pd.Series, name: str) -> Summary:
    return Summary(int(row[f"{name}_n"]), *(float(row[f"{name}_{part}"]) for part in ("mean", "median", "low", "high")))


def _in_words(row: pd.Series) -> str:
    subject = f"{row['dataset']}, {row['model']}, {row['reading']}"
    if not row["n_samples"]:
        return f"{subject}: no saved maps."
    if row["n_samples"] < ENOUGH_SAMPLES:
        return f"{subject}: too few saved maps to say ({row['n_samples']}; it takes {ENOUGH_SAMPLES})."
    whole, inside = (_compared(_summary(row, name)) for name in _DIFFERENCES)
    return (
        f"{subject}: the share of the mask within {row['width']} pixels of the contour is {whole} that of the "
        f"sufficient region; inside the object it is {inside} that of the object."
    )


def _compared(difference: Summary) -> str:
    if difference.low > 0:
        return "above"
    return "below" if difference.high < 0 else "not clearly different from"


_READING = f"""\
Every cell: mean [95 % bootstrap interval of the mean] over samples with saved maps; the bootstrap draws whole images.
{DASH} means no value."""

_DEFINITIONS = f"""\
The paper says that on Triangle and COCO-2017 the contours matter most and on Synapse the whole object (5.1), from
looking at maps. Here is a number for it: the share of MSR's mask values (their sum) that lies within {WIDTHS[0]} or
{WIDTHS[1]} pixels of the prediction's contour, on either side, at {_PAPER_SIZE} x {_PAPER_SIZE} pixels (other sizes are
scaled; the image's border is no contour). A mask without any preference for contours has the share of the region that
it was pruned from, and small or thin objects lie near their contour altogether. So the differences count: a mask that
prefers contours has a share above that of the sufficient region, and above that of the object when only its mass inside
the object is looked at. Masks that are zero everywhere have no share and are left out."""
