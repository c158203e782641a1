"""Stability: how far the maps of each method move when the image moves by a little noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from misure.explainers import EXPLAINERS
from misure.metrics import min_max
from misure.paper.extensions.paired import KEY, MARKS, columns
from misure.paper.maps import iou, load_twins, noise_twins
from misure.paper.material import Material
from misure.paper.prose import prose
from misure.paper.provenance import head_note
from misure.paper.published import Pair
from misure.paper.query import at_threshold, paper_draw
from misure.paper.source import Origin, marked
from misure.paper.statistics import spearman
from misure.paper.table import Column, Table, estimate, measured
from misure.paper.tables.paper import DATASET, METHOD, MODEL

NOISES: Mapping[float, str] = MappingProxyType({1e-6: "1e-6", 1 / 255: "1/255"})
"""Sizes of the noise: about rounding, and one grey value."""

_MEASURES = ("iou", "spearman", "pearson", "difference", "dice_change", "ratio_change")
_WITHOUT_NOISE = ("dice_explained", "perturbation_ratio")


@dataclass(frozen=True)
class Subject:
    """A method whose maps are compared.

    Attributes:
        explainer: Its name.
        title: As shown.
        parameters: What differs from its defaults.
    """

    explainer: str
    title: str
    parameters: tuple[tuple[str, Any], ...] = ()

    @property
    def threshold(self) -> float | None:
        """Where its map is cut: its first threshold; None where the map itself is the mask, which is cut at zero."""
        return next(iter(EXPLAINERS[self.explainer]().thresholds), None)


STABLE = Subject("msr", "MSR, stable variant", (("lr_schedule", "linear"), ("tv_weight", 0.0001)))
SUBJECTS = (
    *(Subject(name, EXPLAINERS[name].title) for name in ("sufficient_region", "msr")),
    STABLE,
    *(Subject(name, EXPLAINERS[name].title) for name in ("rise", "seg_grad_cam")),
)
"""What ``configs/sweep/stability*.yaml`` runs; the stable variant is ``configs/explainer/msr_stable.yaml``."""


def stability_tables(material: Material) -> Iterator[Table]:
    """Make the table of how stable maps are."""
    frame = pd.concat(
        [stability_table(material.run, pair, material.maps_folder) for pair in material.shown], ignore_index=True
    )
    shown = (
        *(DATASET, MODEL, METHOD),
        Column("threshold", "Cut at"),
        Column("noise", "Noise", lambda noise: NOISES[noise]),
        estimate("iou", "IoU of the cut maps", better="higher"),
        estimate("spearman", "Rank correlation", better="higher"),
        estimate("difference", "Mean absolute difference", better="lower"),
        estimate("dice_explained", "Dice explained", better="higher"),
        Column("n", "n"),
        *MARKS,
    )
    settings: dict[str, list[dict[Any, Any]]] = {}
    for row in frame.to_dict("records"):
        of_setting = settings.setdefault(f"{row['dataset']}, {row['model']}, noise of {NOISES[row['noise']]}", [])
        of_setting += [row] if row["n"] else []
    yield Table(
        "stability",
        marked("Stability: how far maps move when the image moves by a little noise", frame),
        shown,
        frame,
        head_note(material.run, material.profile, material.shown),
        prose("stability.md.j2", settings=settings, measured=measured),
        n_parts=2,
    )


def stability_table(run: pd.DataFrame, pair: Pair, maps_folder: Path) -> pd.DataFrame:
    """Compare the maps of images with noise to their twins without.

    Args:
        run: As :func:`misure.paper.query.latest_run` returns it.
        pair: Dataset and model.
        maps_folder: Where the saved maps are.

    Returns:
        One row per method and size of noise. Means are over samples of which both maps were saved, their intervals
        over images; ``dice_explained`` and ``perturbation_ratio`` are those without noise.
    """
    records = paper_draw(run, pair)
    rows = []
    for subject in SUBJECTS:
        for noise in NOISES:
            numbers = _numbers(records, subject, noise, maps_folder)
            row = {"dataset": pair.dataset_label, "model": pair.model_label, "method": subject.title, "noise": noise}
            row |= {"threshold": subject.threshold, "n": len(numbers), "n_images": numbers.index.unique(0).size}
            rows.append(row | columns(numbers) | Origin.of(records).columns())
    return pd.DataFrame(rows).astype({"threshold": float})


def _numbers(records: pd.DataFrame, subject: Subject, noise: float, maps_folder: Path) -> pd.DataFrame:
    """Return what is compared, a row per sample whose two maps were saved."""
    twins = noise_twins(records, subject.explainer, noise, **dict(subject.parameters))
    rows = []
    for pair, changed, plain in load_twins(at_threshold(twins, subject.threshold), maps_folder):
        noisy, quiet = (maps["saliency"].astype(np.float64) for maps in (changed, plain))
        row = {name: pair[name] for name in KEY} | alike(noisy, quiet, subject.threshold)
        for change, metric in zip(("dice_change", "ratio_change"), _WITHOUT_NOISE, strict=True):
            row |= {change: abs(pair[f"{metric}_changed"] - pair[f"{metric}_plain"]), metric: pair[f"{metric}_plain"]}
        rows.append(row)
    return pd.DataFrame(rows, columns=[*KEY, *_MEASURES, *_WITHOUT_NOISE]).set_index(KEY)


def alike(first: NDArray[np.float64], second: NDArray[np.float64], threshold: float | None) -> dict[str, float]:
    """Measure how alike two maps are.

    Args:
        first: H x W.
        second: H x W.
        threshold: Where the min-max scaled maps are cut for the IoU; None cuts the maps themselves at zero.

    Returns:
        ``iou`` (0..1; 1 for two empty ones), ``spearman`` and ``pearson`` (NaN where a map is constant) and the
        mean absolute ``difference``, of maps as they are where ``threshold`` is None and of scaled ones otherwise.
    """
    if threshold is not None:
        first, second = min_max(torch.from_numpy(np.stack([first, second]))).numpy()
    varied = min(np.ptp(first), np.ptp(second)) > 0
    return {
        "iou": iou(first > (threshold or 0.0), second > (threshold or 0.0)),
        "spearman": spearman(first.ravel(), second.ravel()),
        "pearson": float(np.corrcoef(first.ravel(), second.ravel())[0, 1]) if varied else math.nan,
        "difference": float(np.abs(first - second).mean()),
    }
