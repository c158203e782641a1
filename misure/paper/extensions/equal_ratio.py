"""Methods compared at equal perturbation ratio, from the curves saved with their maps.

The published comparison gives MSR its own area and cuts the other maps at thresholds that keep ten to a hundred times
as much; Dice explained rises with what is kept.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from misure.errors import MisureError
from misure.evaluation.curves import SMALLEST_RATIO, Curve, area, dice_at
from misure.explainers import EXPLAINERS
from misure.paper.material import Material
from misure.paper.provenance import head_note
from misure.paper.published import DASH, Pair, lr_lambda_reference
from misure.paper.query import at_threshold, paper_draw, select
from misure.paper.source import Origin, heading
from misure.paper.statistics import NOTHING, Summary, summarise_groups
from misure.paper.table import interval, markdown_table, measured

RATIOS = (0.5, 1, 2, 5, 20)
"""Where methods are compared at equal ratio."""

WINDOW = (0.1, 10.0)
"""Ratios between which the second area is taken."""

ALWAYS = ("msr", "rise", "seg_grad_cam", "prediction", "sufficient_region", "random_map")
"""Methods that have a row even without curves; others join where they have some."""

LAMBDA_RATE = 0.1
"""Learning rate of the cells that give MSR's curve over lambda."""

NO_CURVES = "no saved curves\nin this profile"

_LEAST_SHARE = 0.5
"""A method with a smaller share of the most samples any has does not decide which samples all are compared on."""

_KEY = ["sample", "class_id"]
_ARRAYS = ("curve_", "insertion_", "deletion_")
_PARTS = ("mean", "low", "high", "median", "n")

Key = tuple[int, int]


@dataclass(frozen=True)
class Method:
    """A method's records and curves on the samples that it is compared on.

    Attributes:
        name: As in ``misure.EXPLAINERS``.
        rows: Its records on these samples, one per sample and threshold.
        curves: Arrays as :func:`misure.evaluation.curves.explanation_curves` returns them, by image and class.
    """

    name: str
    rows: pd.DataFrame
    curves: Mapping[Key, Curve]

    @property
    def title(self) -> str:
        """What it is called."""
        return EXPLAINERS[self.name].title

    def summary(self, values: Mapping[Key, float]) -> Summary:
        """Summarise one number per sample; samples without it (NaN) are left out, whole images are resampled."""
        known = {key: value for key, value in values.items() if not np.isnan(value)}
        return summarise_groups(known.values(), [image for image, _ in known])


def methods_of(material: Material, pair: Pair) -> list[Method]:
    """Load every method's curves, on the samples that all methods have.

    A method with fewer than half as many samples as another does not take samples from the others; it is left with
    those of its own that they share.

    Raises:
        MisureError: If a file of maps is damaged.
    """
    records = paper_draw(material.run, pair)
    found = [_load(material, records, name) for name in EXPLAINERS]
    most = max(len(method.curves) for method in found)
    deciding = [set(method.curves) for method in found if method.curves and len(method.curves) >= _LEAST_SHARE * most]
    shared: set[Key] = set.intersection(*deciding) if deciding else set()
    shown = [method for method in found if method.curves or method.name in ALWAYS]
    return sorted((_restricted(method, shared) for method in shown), key=lambda method: _place(method.name))


def _load(material: Material, records: pd.DataFrame, name: str) -> Method:
    rows = select(records, name)
    curves = {}
    for image, class_id, unit in rows.drop_duplicates("unit")[[*_KEY, "unit"]].itertuples(index=False, name=None):
        curve = _saved_curve(material.maps_folder / f"{unit}.npz")
        if curve:
            curves[int(image), int(class_id)] = curve
    return Method(name, rows, curves)


def _saved_curve(path: Path) -> Curve:
    """Read a unit's curves alone, without its maps; nothing where none were saved."""
    if not path.exists():
        return {}
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files if name.startswith(_ARRAYS)}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MisureError(f"cannot read {path}: {error}; delete it and its record and run again") from error


def _restricted(method: Method, shared: set[Key]) -> Method:
    keys = zip(method.rows["sample"], method.rows["class_id"], strict=True)
    return Method(
        method.name,
        method.rows[[key in shared and key in method.curves for key in keys]],
        {key: curve for key, curve in method.curves.items() if key in shared},
    )


def _place(name: str) -> int:
    return ALWAYS.index(name) if name in ALWAYS else len(ALWAYS)


def like_for_like_tables(material: Material) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Make the table of areas and of Dice explained at equal ratio, and that of MSR over lambda."""
    head = head_note(material.run, material.profile, material.pairs)
    frame = pd.DataFrame([row for pair in material.pairs for row in _rows(material, pair)])
    yield "like_for_like", frame, _document(frame, head)
    cells = pd.concat([lambda_cells(material, pair) for pair in material.pairs], ignore_index=True)
    yield "like_for_like_lambda", cells, _lambda_document(cells, head)


def _rows(material: Material, pair: Pair) -> Iterator[dict[str, Any]]:
    methods = methods_of(material, pair)
    msr = next(method for method in methods if method.name == "msr")
    own = {key: area(curve, SMALLEST_RATIO, np.inf) for key, curve in msr.curves.items()}
    origin = Origin.of(paper_draw(material.run, pair))
    for method in methods:
        whole = {key: area(curve, SMALLEST_RATIO, np.inf) for key, curve in method.curves.items()}
        numbers = {
            "area": whole,
            "area_minus_msr": {key: value - own[key] for key, value in whole.items() if key in own},
            "area_window": {key: area(curve, *WINDOW) for key, curve in method.curves.items()},
        }
        for ratio in RATIOS:
            numbers[f"dice_at_{ratio:g}"] = {key: dice_at(curve, ratio) for key, curve in method.curves.items()}
        row = described(pair, method)
        for name, values in numbers.items():
            row |= columns(name, method.summary(values))
        yield row | origin.columns()


def described(pair: Pair, method: Method) -> dict[str, Any]:
    """Return the first columns of a method's row."""
    row: dict[str, Any] = {"dataset": pair.dataset_label, "model": pair.model_label}
    return row | {"explainer": method.name, "method": method.title, "n_samples": len(method.curves)}


def columns(name: str, summary: Summary) -> dict[str, float]:
    """Return a summary as a table's columns."""
    return {f"{name}_{part}": getattr(summary, part) for part in _PARTS}


def cell(row: pd.Series, name: str) -> str:
    """Write a mean with its interval, and how many samples it is over where these are not all of them."""
    n = int(row[f"{name}_n"])
    if not n:
        return DASH
    summary = Summary(n, *(float(row[f"{name}_{part}"]) for part in ("mean", "median", "low", "high")))
    fewer = f" (n = {n})" if n != row["n_samples"] else ""
    return f"{measured(summary.mean)} {interval(summary)}{fewer}"


def lambda_cells(material: Material, pair: Pair) -> pd.DataFrame:
    """Return what MSR keeps and explains at each lambda of the paper, over the samples that all of them have."""
    records = paper_draw(material.run, pair)
    lambdas = sorted({lam for lam, _ in lr_lambda_reference(pair)})
    found = {lam: at_threshold(select(records, "msr", lr=LAMBDA_RATE, lam=lam), None) for lam in lambdas}
    keys = [set(_keys(rows)) for rows in found.values() if len(rows)]
    shared = set.intersection(*keys) if keys else set()
    lines = []
    for lam, rows in found.items():
        mine = rows[[key in shared for key in _keys(rows)]]
        row: dict[str, Any] = {"dataset": pair.dataset_label, "model": pair.model_label, "lambda": lam}
        row["n_samples"] = len(mine)
        for name in ("perturbation_ratio", "dice_explained", "binary_dice_explained"):
            row |= columns(name, summarise_groups(mine[name], mine["sample"]) if len(mine) else NOTHING)
        lines.append(row | Origin.of(records).columns())
    return pd.DataFrame(lines)


def _keys(rows: pd.DataFrame) -> Iterable[Key]:
    return zip(rows["sample"], rows["class_id"], strict=True)


def _document(frame: pd.DataFrame, head: str) -> str:
    names = ["area", "area_minus_msr", "area_window", *(f"dice_at_{ratio:g}" for ratio in RATIOS)]
    headers = ["Dataset", "Model", "Method", f"Area from {SMALLEST_RATIO:g}", "Minus MSR's"]
    headers += [f"Area {WINDOW[0]:g} to {WINDOW[1]:g}", *(f"Dice explained at {r:g}" for r in RATIOS)]
    lines = [
        [row["dataset"], row["model"], row["method"]]
        + [cell(row, name) for name in names]
        + [str(row["n_samples"]) if row["n_samples"] else "0 (no saved curves)", Origin.of_row(row).cell]
        for _, row in frame.iterrows()
    ]
    title = heading("Like for like: Dice explained at equal perturbation ratio", frame)
    table = markdown_table([*headers, "Samples", "Source"], lines)
    return f"{title}\n\n{head}\n\n{READING}\n\n{table}\n\n{_DEFINITIONS}\n"


def _lambda_document(frame: pd.DataFrame, head: str) -> str:
    headers = ["Dataset", "Model", "Lambda", "Perturbation ratio", "its median", "Dice explained", "as a binary mask"]
    lines = [
        [
            row["dataset"],
            row["model"],
            f"{row['lambda']:g}",
            cell(row, "perturbation_ratio"),
            measured(row["perturbation_ratio_median"]),
            cell(row, "dice_explained"),
            cell(row, "binary_dice_explained"),
            str(row["n_samples"]),
            Origin.of_row(row).cell,
        ]
        for _, row in frame.iterrows()
    ]
    title = heading(f"Like for like: MSR over lambda, at learning rate {LAMBDA_RATE:g}", frame)
    return "\n\n".join([title, head, READING, markdown_table([*headers, "Samples", "Source"], lines)]) + "\n"


READING = f"""\
Every cell: mean [95 % bootstrap interval of the mean]; the bootstrap draws whole images. {DASH} means no value. All
methods of a network are compared on the same samples: the first ones, for which curves are saved."""

_DEFINITIONS = f"""\
The published comparison lets MSR choose its area and cuts the other maps at fixed thresholds, which keep far more of
the image; Dice explained rises with what is kept. Here every map is cut at all thresholds, and methods are compared at
an equal allowed perturbation ratio (kept pixels over the object's): a map then keeps the largest set that one of its
thresholds gives without exceeding it. Pixels of equal value are kept together or not at all. A map that is itself a
mask (MSR, prediction, sufficient region) never keeps its zeros: where more is allowed than it wants, it stays as it is.
MSR's mask counts here as binary. The area is under Dice explained against the logarithm of the allowed ratio, divided
by the width: the mean Dice explained, 0 to 1. The first is from a ratio of {SMALLEST_RATIO:g} to the whole image,
limits that all methods share on a sample; the second from {WINDOW[0]:g} to {WINDOW[1]:g}, or to the whole image where
that is less. An image without room for a ratio is left out there (n says how many are left)."""
