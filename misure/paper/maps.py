"""Saved saliency maps, pairs of them that differ in one thing, and the noise floor that only maps can show."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from misure.errors import MisureError
from misure.io.atomic import DAMAGED, safe_name
from misure.io.reading import check_size, reading
from misure.paper.query import INDEPENDENT, SAMPLE, WORK, select

_SAME_RUN = (*SAMPLE, INDEPENDENT, "explainer", "threshold", "dataset_fingerprint", "weights", "profile", "precision")
"""With the parameters, what has to be equal for two units to differ in one thing alone."""

_MOST_BYTES = 2_000_000_000
_PLANES = ("region", "saliency", "sufficient_region", "truth")

NUMBERS = ("curve_", "insertion_", "deletion_")
"""How the names of arrays begin that show nothing of the image; where only these ship, in ``<unit>.numbers.npz``."""

_SAME_WORK = ("device", *WORK)
"""What selecting by parameters leaves open and rounding depends on."""

Maps = dict[str, NDArray[Any]]
"""Arrays of one unit by name."""

ROUNDING = 1e-6
"""The size of noise that is about as large as rounding."""


def saved_units(folder: Path) -> set[str]:
    """Name the units whose maps were saved; none where the folder is missing."""
    return {path.stem for path in folder.glob("*.npz") if not path.name.startswith(".")}


def load_maps(folder: Path, unit: str) -> Maps | None:
    """Load what was saved of a unit.

    Returns:
        Arrays ``image`` (C x H x W; not of changed images, changed networks or a second precision that shipped),
        ``region``, ``saliency`` and, where the method has one, ``sufficient_region`` (H x W each); None where no maps
        were saved, or damaged ones.
    """
    return saved_arrays(folder, unit) or None


def saved_arrays(folder: Path, unit: str, prefixes: tuple[str, ...] = ("",)) -> Maps:
    """Load the arrays of a unit whose names begin with one of the prefixes, and no others; none if it has no file.

    A damaged file is named in a warning and put aside, under a name that ends in
    :data:`misure.io.atomic.DAMAGED`, so that it counts as
    not saved and the next run makes it anew.
    """
    path = folder / f"{safe_name(unit)}.npz"
    if not path.exists() and "" not in prefixes:
        path = path.with_suffix(".numbers.npz")
    if not path.exists():
        return {}
    try:
        with (
            reading(path, "the next run makes it anew"),
            path.open("rb") as stream,
            np.load(stream, allow_pickle=False) as arrays,
        ):
            check_size(path, sum(part.file_size for part in arrays.zip.infolist()), _MOST_BYTES)
            return _checked({name: arrays[name] for name in arrays.files if name.startswith(prefixes)}, prefixes)
    except MisureError as error:
        warnings.warn(f"damaged maps are left out: {error}", stacklevel=3)
        if not isinstance(error.__cause__, OSError | MemoryError):
            with contextlib.suppress(OSError):
                path.replace(path.with_name(path.name + DAMAGED))
        return {}


def damaged_units(folder: Path) -> list[str]:
    """Name the units whose maps were put aside as damaged and not made anew since."""
    return sorted({path.name.removesuffix(f".npz{DAMAGED}") for path in folder.glob(f"*.npz{DAMAGED}")})


def _checked(arrays: Maps, prefixes: tuple[str, ...]) -> Maps:
    """Return what was read, unless it is other than what runs save."""
    if any(array.dtype.kind not in "biuf" for array in arrays.values()):
        raise ValueError("it holds something else than numbers")
    if "" in prefixes:
        if lacking := [name for name in ("region", "saliency") if name not in arrays]:
            raise ValueError(f"it lacks {', '.join(lacking)}")
        image = arrays.get("image", arrays["region"][None])
        if image.ndim != 3 or {arrays[name].shape for name in _PLANES if name in arrays} != {image.shape[1:]}:
            raise ValueError("its image, masks and map differ in size")
    return arrays


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
    """Compare MSR runs with input noise of :data:`ROUNDING` to their twins without; those without maps do not count.

    Args:
        records: As :func:`misure.paper.query.latest_run` returns them.
        maps_folder: Where the maps are.
    """
    pairs = load_twins(noise_twins(records, "msr", ROUNDING), maps_folder)
    overlaps = [iou(noisy["saliency"] > 0, quiet["saliency"] > 0) for _, noisy, quiet in pairs]
    if not overlaps:
        return NOT_MEASURED
    return NoiseFloor(len(overlaps), ROUNDING, float(np.mean(overlaps)), min(overlaps), max(overlaps))


def noise_twins(records: pd.DataFrame, explainer: str, noise: float, **parameters: Any) -> pd.DataFrame:
    """Pair the records of images with noise with those of the same images without, on the same device.

    Args:
        records: As :func:`misure.paper.query.latest_run` returns them.
        explainer: A name from ``misure.EXPLAINERS``.
        noise: Size of the noise.
        **parameters: Parameters that differ from the defaults.

    Returns:
        As :func:`twins` does.
    """
    same_size = np.isclose(records["input_noise"].astype(float), noise, rtol=1e-6, atol=0)
    noisy = select(records[same_size].assign(input_noise=0.0), explainer, **parameters)
    quiet = select(records[records["precision"].isin(noisy["precision"])], explainer, **parameters)
    return twins(noisy, quiet, *_SAME_WORK)


def twins(changed: pd.DataFrame, plain: pd.DataFrame, *also: str) -> pd.DataFrame:
    """Pair records of something changed with those of the same explanation without the change.

    A twin has the same explainer, dataset, sample, threshold, weights, profile and precision.

    Args:
        changed: Records of images with noise, or of an intervention.
        plain: Records without; of several that fit, the last is taken.
        *also: Further columns that must be equal.

    Returns:
        One row per sample and threshold; what may differ ends in ``_changed`` and ``_plain``.
    """
    shared = [name for name in (*_SAME_RUN, *also) if name in changed.columns]
    return changed.merge(plain.drop_duplicates(shared, keep="last"), on=shared, suffixes=("_changed", "_plain"))


def load_twins(pairs: pd.DataFrame, folder: Path) -> Iterator[tuple[pd.Series, Maps, Maps]]:
    """Load the maps of :func:`twins`, the changed ones first; pairs of which one was not saved are left out."""
    for _, pair in pairs.iterrows():
        changed, plain = (load_maps(folder, pair[f"unit_{side}"]) for side in ("changed", "plain"))
        if changed is not None and plain is not None:
            yield pair, changed, plain


def iou(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return intersection over union of two boolean maps; two empty ones agree (1)."""
    union = int((first | second).sum())
    return float((first & second).sum() / union) if union else 1.0
