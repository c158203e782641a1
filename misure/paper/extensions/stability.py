"""How far the maps of each method move when the image moves by a little noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from misure.explainers import EXPLAINERS
from misure.paper.maps import iou, load_maps, twins
from misure.paper.material import Material
from misure.paper.provenance import head_note
from misure.paper.published import DASH, Pair
from misure.paper.query import at_threshold, paper_draw
from misure.paper.source import Origin, heading
from misure.paper.statistics import Summary, spearman, summarise_groups
from misure.paper.table import interval, markdown_table, measured

NOISES: Mapping[float, str] = MappingProxyType({1e-6: "1e-6", 1 / 255: "1/255"})
"""Sizes of the noise: about rounding, and one grey value."""

MEASURES: Mapping[str, str] = MappingProxyType(
    {
        "iou": "IoU of the cut maps",
        "spearman": "Rank correlation",
        "pearson": "Correlation",
        "difference": "Mean absolute difference",
        "dice_change": "Dice explained moves by",
        "ratio_change": "Perturbation ratio moves by",
    }
)


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


def stability_tables(material: Material) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Make the table of how stable maps are."""
    tables = [stability_table(material.run, pair, material.maps_folder) for pair in material.pairs]
    frame = pd.concat(tables, ignore_index=True)
    yield "stability", frame, stability_document(frame, head_note(material.run, material.profile, material.pairs))


def stability_table(run: pd.DataFrame, pair: Pair, maps_folder: Path) -> pd.DataFrame:
    """Compare the maps of images with noise to their twins without.

    Args:
        run: As :func:`misure.paper.query.latest_run` returns it.
        pair: Dataset and model.
        maps_folder: Where the saved maps are.

    Returns:
        One row per method and size of noise. Means are over samples of which both maps were saved, their intervals
        over images; ``dice_explained`` and ``perturbation_ratio`` are those without noise.

    Raises:
        MisureError: If a map is damaged.
    """
    records = paper_draw(run, pair)
    return pd.DataFrame(
        [_row(records, pair, subject, noise, maps_folder) for subject in SUBJECTS for noise in NOISES]
    ).astype({"threshold": float})


def _row(records: pd.DataFrame, pair: Pair, subject: Subject, noise: float, maps_folder: Path) -> dict[str, Any]:
    row = {"dataset": pair.dataset_label, "model": pair.model_label, "method": subject.title, "noise": noise}
    row |= {"threshold": subject.threshold}
    samples = _compared(records, subject, noise, maps_folder)
    row |= {"n": len(samples), "n_images": samples["sample"].nunique()}
    for name in (*MEASURES, "dice_explained", "perturbation_ratio"):
        known = samples.dropna(subset=[name])
        summary = summarise_groups(known[name].astype(float), known["sample"])
        row |= {f"{name}_{part}": getattr(summary, part) for part in ("mean", "low", "high", "median", "n")}
    return row | Origin.of(records).columns()


def _compared(records: pd.DataFrame, subject: Subject, noise: float, maps_folder: Path) -> pd.DataFrame:
    """Return one row per sample whose two maps were saved."""
    pairs = at_threshold(twins(records, subject.explainer, noise, **dict(subject.parameters)), subject.threshold)
    found = []
    for _, pair in pairs.iterrows():
        noisy, quiet = (load_maps(maps_folder, pair[f"unit_{kind}"]) for kind in ("noisy", "quiet"))
        if noisy is not None and quiet is not None:
            first, second = (maps["saliency"].astype(np.float64) for maps in (noisy, quiet))
            change = {"sample": pair["sample"], **alike(first, second, subject.threshold)}
            for name, metric in (("dice_change", "dice_explained"), ("ratio_change", "perturbation_ratio")):
                change |= {name: abs(pair[f"{metric}_noisy"] - pair[f"{metric}_quiet"])}
                change |= {metric: pair[f"{metric}_quiet"]}
            found.append(change)
    return pd.DataFrame(found, columns=["sample", *MEASURES, "dice_explained", "perturbation_ratio"])


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
        first, second = _scaled(first), _scaled(second)
    cut = [side > (threshold or 0.0) for side in (first, second)]
    varied = min(np.ptp(first), np.ptp(second)) > 0
    return {
        "iou": iou(cut[0], cut[1]),
        "spearman": spearman(first.ravel(), second.ravel()),
        "pearson": float(np.corrcoef(first.ravel(), second.ravel())[0, 1]) if varied else math.nan,
        "difference": float(np.abs(first - second).mean()),
    }


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = np.ptp(values)
    return (values - values.min()) / spread if spread > 0 else np.zeros_like(values)


def stability_document(frame: pd.DataFrame, head: str) -> str:
    """Lay out :func:`stability_table`, with a sentence for each dataset, model and size of noise."""
    headers = ["Dataset", "Model", "Method", "Noise", *MEASURES.values(), "Dice explained", "Perturbation ratio"]
    headers += ["Samples", "Images", "Source"]
    lines = []
    for _, row in frame.iterrows():
        cut = "" if math.isnan(row["threshold"]) else f", cut at {row['threshold']:g}"
        cells = [row["dataset"], row["model"], f"{row['method']}{cut}", NOISES[row["noise"]]]
        cells += [_cell(row, name) for name in (*MEASURES, "dice_explained", "perturbation_ratio")]
        lines.append([*cells, str(row["n"]), str(row["n_images"]), Origin.of_row(row).cell])
    says = "\n".join(
        f"- {_of(rows.iloc[0])}: {_in_words(rows)}"
        for _, rows in frame.groupby(["dataset", "model", "noise"], sort=False)
    )
    title = heading("Stability: how far maps move when the image moves by a little noise", frame)
    return "\n\n".join([title, says, head, _READING, markdown_table(headers, lines), _DEFINITIONS]) + "\n"


def _of(row: pd.Series) -> str:
    return f"{row['dataset']}, {row['model']}, noise of {NOISES[row['noise']]}"


def _in_words(rows: pd.DataFrame) -> str:
    known = rows[rows["n"] > 0].sort_values("iou_mean", ascending=False, kind="stable")
    if known.empty:
        return "not measured."
    each = [f"{row['method']} {measured(row['iou_mean'])} (n = {row['n']})" for _, row in known.iterrows()]
    return f"mean IoU of the cut maps, the most stable first: {', '.join(each)}."


def _cell(row: pd.Series, name: str) -> str:
    mean, median, low, high = (float(row[f"{name}_{part}"]) for part in ("mean", "median", "low", "high"))
    summary = Summary(int(row[f"{name}_n"]), mean, median, low, high)
    return f"{measured(summary.mean)} {interval(summary)}" if summary.n else DASH


_READING = f"""\
Every cell: mean [95 % bootstrap interval of the mean] over samples of which both maps were saved; the bootstrap draws
whole images. {DASH} means no value: nothing saved, or a map without any variation, which has no correlation."""

_DEFINITIONS = """\
A run with normal noise of the given standard deviation added to the image (in the network's input space) is compared to
the run without. MSR's masks and the sufficient region are cut at zero and compared as they are; the maps of RISE and
Seg-Grad-CAM are scaled to 0..1 and cut at their first threshold. The two columns after the changes are the values
without noise, since a method can also be stable by explaining nothing. Saved maps have half precision."""
