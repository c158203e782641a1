"""The scaling table from a configuration."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf

from misure.bench.measurement import Page, PredictedSamples, document, frame_table, hardware_name, measured_page
from misure.bench.scaling import AXES, make_points, run_scaling
from misure.explainers import EXPLAINERS
from misure.models.checkpoint import load_checkpoint
from misure.models.wrapper import SegmentationModel
from misure.sweep.networks import checkpoint_path


def scaling(cfg: DictConfig) -> str:
    """Measure the configuration's network, write ``bench/scaling.md`` and ``.csv`` into the outputs, return the text.

    Raises:
        MisureError: If the network or its images cannot be had, or the folder cannot be written.
    """
    axes = {str(axis): list(values) for axis, values in cfg.scaling.axes.items() if values}
    points = make_points(axes, **OmegaConf.to_container(cfg.scaling.base, resolve=True))  # type: ignore[arg-type]
    limit = float(cfg.scaling.seconds_a_point)

    def measure(samples: PredictedSamples) -> Page:
        device = samples.images.device
        load = partial(_load, checkpoint_path(cfg).resolve(), str(device))
        frame = run_scaling(load, samples.images[0], points, limit=limit)
        frame = frame.assign(dataset=cfg.dataset.name, model=cfg.model.name, device=device.type)
        return Page("scaling", scaling_page(frame, f"Scaling: {cfg.model.title} ({cfg.model.name})"), frame)

    what = f"{len(points)} points, {limit:g} s each at most"
    return measured_page(cfg, what, 1, measure, lambda _: limit * len(points))


def _load(checkpoint: Path, device: str) -> SegmentationModel:
    return load_checkpoint(checkpoint).to(torch.device(device))


def scaling_page(frame: pd.DataFrame, title: str = "Scaling") -> str:
    """Lay out one table per axis.

    Args:
        frame: From :func:`misure.bench.scaling.run_scaling`, with a column ``device``.
        title: Of the page.
    """
    first = frame.iloc[0]
    where = f"{hardware_name(str(first['device']))}; {torch.get_num_threads()} threads; torch {torch.__version__}"
    notes = [
        f"Hardware: {where}.",
        "Every point is measured in a process of its own, once, after a short run that is not timed.",
        "Seconds a step: a mask of RISE or an iteration of MSR (without stage 1 and the first iteration), per image.",
        "Peak: memory above that of the loaded network, everything included.",
    ]
    parts = []
    for axis, name in AXES.items():
        rows = frame[frame["axis"] == axis]
        if len(rows):
            parts += [f"## By {name}", frame_table(_rows(rows, axis, name))]
    return document(title, notes, *parts)


def _rows(rows: pd.DataFrame, axis: str, name: str) -> pd.DataFrame:
    """The columns of one axis; what all rows share stands beside the method."""
    fixed = {"size": "px", "images": "images", "masks": "masks", "iterations": "iterations"}
    lines = []
    for row in rows.sort_values(["method", "value"], ascending=[False, True], kind="stable").to_dict("records"):
        other = "iterations" if row["method"] == "rise" else "masks"
        at = [f"{row[key]} {unit}" for key, unit in fixed.items() if key not in (axis, other)]
        lines.append(
            {
                "method": f"{EXPLAINERS[row['method']].title} ({', '.join(at)})",
                name: row["value"],
                "s an image": float(row["seconds"]),
                "s a step": float(row["seconds_a_step"]),
                "peak MB": float(row["peak_bytes"]) / 2**20,
                "left out": row["left_out"],
            }
        )
    return pd.DataFrame(lines)
