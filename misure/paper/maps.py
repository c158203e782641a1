"""Saved saliency maps, and the noise floor that only maps can show."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from misure.errors import MisureError

_RUN_COLUMNS = [
    "dataset",
    "dataset_fingerprint",
    "model",
    "weights",
    "profile",
    "sample",
    "class_id",
    "precision",
    "device",
]
"""With the parameters, what has to be equal for two units to differ by input noise alone."""


def saved_units(folder: Path) -> set[str]:
    """Name the units whose maps were saved; none where the folder is missing."""
    return {path.stem for path in folder.glob("*.npz") if not path.name.startswith(".")}


def load_maps(folder: Path, unit: str) -> dict[str, NDArray[Any]] | None:
    """Load what was saved of a unit.

    Returns:
        Arrays ``image`` (C x H x W), ``region``, ``saliency`` and, where the method has one,
        ``sufficient_region`` (H x W each); None where no maps were saved.

    Raises:
        MisureError: If the file is damaged.
    """
    path = folder / f"{unit}.npz"
    if not path.exists():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            loaded = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MisureError(f"cannot read {path}: {error}; delete it and its record and run again") from error
    lacking = [name for name in ("image", "region", "saliency") if name not in loaded]
    if lacking:
        raise MisureError(f"{path} lacks {', '.join(lacking)}: delete it and its record and run again")
    return loaded


@dataclass(frozen=True)
class NoiseFloor:
    """How alike the masks of two MSR runs are whose inputs differ by noise.

    Attributes:
        n: Pairs of runs compared.
        noise: Size of the input noise; NaN where nothing was measured.
        mean: Mean intersection over union of the non-zero pixels, 0..1; NaN where n is 0.
        low: Smallest of them.
        high: Largest of them.
    """

    n: int
    noise: float
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        subject = "Noise floor of MSR (mask IoU of two runs whose inputs differ by tiny noise)"
        if self.n == 0:
            return f"{subject}: not measured."
        return (
            f"Noise floor of MSR: two runs whose inputs differ by {self.noise:g} agree on the mask's non-zero pixels "
            f"with a mean IoU of {self.mean:.3f} (lowest {self.low:.3f}, highest {self.high:.3f}, n = {self.n})."
        )


NOT_MEASURED = NoiseFloor(0, *(float("nan"),) * 4)


def noise_floor(records: pd.DataFrame, maps_folder: Path) -> NoiseFloor:
    """Compare MSR runs with input noise to their twins without.

    A twin has the same parameters, dataset, sample, weights, profile, precision and device. Pairs without
    saved maps do not count.

    Args:
        records: As :func:`misure.paper.selection.latest_run` returns them.
        maps_folder: Where the maps are.

    Raises:
        MisureError: If a map is damaged, or several sizes of noise are recorded.
    """
    done = records[(records["explainer"] == "msr") & (records["status"] == "done")].drop_duplicates("unit")
    done = done[done["intervention"].eq("")]
    identity = [*_RUN_COLUMNS, *(name for name in done.columns if name.startswith("param_"))]
    quiet = done[done["input_noise"] == 0].drop_duplicates(identity, keep="last")
    noisy = done[done["input_noise"] > 0].drop_duplicates([*identity, "input_noise"], keep="last")
    twins = noisy.merge(quiet, on=identity, suffixes=("_noisy", "_quiet"))
    overlaps: list[float] = []
    sizes: set[float] = set()
    for noisy_unit, quiet_unit, noise in twins[["unit_noisy", "unit_quiet", "input_noise_noisy"]].itertuples(
        index=False, name=None
    ):
        pair = [load_maps(maps_folder, unit) for unit in (noisy_unit, quiet_unit)]
        if pair[0] is not None and pair[1] is not None:
            overlaps.append(iou(pair[0]["saliency"] > 0, pair[1]["saliency"] > 0))
            sizes.add(float(noise))
    if not overlaps:
        return NOT_MEASURED
    if len(sizes) > 1:
        raise MisureError(f"the records hold input noise of several sizes ({sorted(sizes)}): pass one at a time")
    return NoiseFloor(len(overlaps), sizes.pop(), float(np.mean(overlaps)), min(overlaps), max(overlaps))


def iou(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return intersection over union of two boolean maps; two empty ones agree (1)."""
    union = int((first | second).sum())
    return float((first & second).sum() / union) if union else 1.0
