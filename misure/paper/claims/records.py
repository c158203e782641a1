"""The records of a dataset and network as claims compare them: variants of explainers over the samples they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from misure.explainers import EXPLAINERS
from misure.paper.maps import Maps, load_maps
from misure.paper.material import Material
from misure.paper.published import Pair, shipped
from misure.paper.query import INDEPENDENT, at_threshold, in_one_precision, of_pair, paper_draw, select
from misure.paper.reliability import samples_by_organ
from misure.paper.source import Origin, distinct
from misure.reliability import Samples

_TIME = "seconds"

METRICS = {
    "dice_explained": "Dice explained",
    "perturbation_ratio": "perturbation ratio",
    _TIME: "seconds per image",
    "n_dilations": "number of dilations",
    "pixels_kept": "pixels kept",
}

_KEY = ["sample", "class_id"]
_KEPT = [*_KEY, "unit", "class_name", "prediction_size", "batch_size", "device", *METRICS]
_VOLUMES = "synapse"
"""Its groups are volumes; those of the other datasets are images."""


@dataclass(frozen=True)
class Variant:
    """An explainer with its threshold and the parameters that differ from the defaults.

    Attributes:
        label: What it is called in sentences.
        explainer: A name from ``misure.EXPLAINERS``.
        threshold: None where the map itself is the mask.
        parameters: Such as ``{"lr": 0.01}``.
        masks: Number of masks to which its seconds are scaled; None for the seconds as measured.
    """

    label: str
    explainer: str
    threshold: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    masks: int | None = None

    @property
    def title(self) -> str:
        """The explainer's, without threshold and parameters."""
        return EXPLAINERS[self.explainer].title


@cache
def variants() -> dict[str, Variant]:
    """Return the variants of ``claims.yaml`` by label."""
    return {label: Variant(label, **fields) for label, fields in shipped("claims/claims.yaml")["variants"].items()}


@dataclass(frozen=True)
class Values:
    """One number per sample.

    Attributes:
        numbers: N, finite.
        groups: Image or volume of each, N.
        units: Records that they come from.
        group_word: What the groups are, in the plural.
        lacking: Why there are none, where more can be said than that.
        timed: Whether the numbers are seconds, or come from them.
    """

    numbers: NDArray[np.float64]
    groups: NDArray[Any]
    units: tuple[str, ...]
    group_word: str
    lacking: str = ""
    timed: bool = False

    @property
    def n_groups(self) -> int:
        """How many images or volumes."""
        return len(np.unique(self.groups))

    def of(self, numbers: NDArray[np.float64]) -> Values:
        """Put other numbers of the same samples in place."""
        return replace(self, numbers=numbers)

    def counts(self) -> dict[str, Any]:
        """Return what evidence says of its samples."""
        return {"n": len(self.numbers), "n_groups": self.n_groups, "units": self.units, "timed": self.timed}


class PairRecords:
    """The records of one dataset and network.

    Args:
        material: What everything is made from.
        pair: Dataset and network.

    Attributes:
        records: Of the paper's Tables 1 to 6, in the precision that the most of them have.
        group_word: What belongs together and is resampled as a whole, in the plural.
    """

    def __init__(self, material: Material, pair: Pair) -> None:
        self.pair = pair
        self.material = material
        self.records = in_one_precision(paper_draw(material.run, pair))
        self.group_word = "volumes" if pair.dataset == _VOLUMES else "images"
        self._places = {name: place for place, name in enumerate(sorted(self.records[INDEPENDENT].unique()))}
        self._rows: dict[str, pd.DataFrame] = {}
        self._maps: dict[str, pd.DataFrame] = {}

    @cached_property
    def origin(self) -> Origin:
        """Of the data and the network."""
        return Origin.of(self.records)

    @cached_property
    def every_origin(self) -> Origin:
        """Of all records, also of samples beyond the paper's Tables 1 to 6, from which reliability is predicted."""
        return Origin.of(of_pair(self.material.run, self.pair))

    @cached_property
    def organs(self) -> dict[str, Samples]:
        """Samples by organ, as :func:`misure.paper.reliability.samples_by_organ` returns them."""
        return samples_by_organ(self.material.run, self.pair)

    @property
    def val_dice(self) -> float:
        """The network's Dice on its dataset's validation images; NaN where it is not known."""
        known = self.records["val_dice"] if "val_dice" in self.records else pd.Series(dtype=float)
        return float(known.astype(float).min())

    @cached_property
    def timed_on(self) -> Mapping[str, str]:
        """By variant, in brackets, the devices that took its seconds; empty without any."""
        devices = {label: distinct(self.measured(_TIME, label)["device"]) for label in variants()}
        return {label: f" (on {names})" if names else "" for label, names in devices.items()}

    def on_cpu(self, label: str) -> bool:
        """Whether any of a variant's seconds were taken on a CPU."""
        return bool(self.measured(_TIME, label)["device"].astype(str).str.startswith("CPU").any())

    def rows(self, label: str) -> pd.DataFrame:
        """Return a variant's results, one row per sample, with the group's number in ``place``."""
        if label not in self._rows:
            variant = variants()[label]
            rows = self.records[self.records["explainer"] == variant.explainer]
            if len(rows):
                rows = at_threshold(select(rows, variant.explainer, **variant.parameters), variant.threshold)
            if len(rows) and variant.masks:  # one selection of records has one number of masks
                factor = variant.masks / float(rows["param_n_masks"].iloc[0])
                rows = rows.assign(seconds=rows["seconds"] * factor)
            places = rows[INDEPENDENT].map(self._places)
            kept = rows["perturbation_ratio"] * rows["prediction_size"]
            rows = rows.assign(pixels_kept=kept).reindex(columns=_KEPT).assign(place=places)
            self._rows[label] = rows.set_index(_KEY)
        return self._rows[label]

    def measured(self, metric: str, label: str) -> pd.DataFrame:
        """Return the rows of a variant that have a metric; seconds count where one image was explained at a time."""
        rows = self.rows(label)
        return rows[rows[metric].notna() & (rows["batch_size"].eq(1) if metric == _TIME else True)]

    def table(self, metric: str, *labels: str) -> tuple[list[NDArray[np.float64]], Values]:
        """Return a metric of several variants over the samples that all of them explained; seconds, on one device.

        Returns:
            The metric per variant, and the samples with the first one's numbers.
        """
        tables = [self.measured(metric, label) for label in labels]
        if metric == _TIME:
            tables = on_one_device(tables)
        columns, samples = joined(tables, metric, self.group_word)
        together = pd.concat([self.rows(label)["batch_size"] for label in labels])
        if metric == _TIME and len(together[together > 1]):
            several = (
                f"{together.max():.0f} images were explained together, which gives a throughput and not the time of one"
            )
            samples = replace(samples, lacking=several)
        return columns, samples

    def on_maps(self, measure: Callable[..., float], *labels: str) -> list[pd.DataFrame]:
        """Measure a number on the saved maps of some variants for the same sample.

        Args:
            measure: Takes the maps of one sample, variant by variant, and returns a number or NaN.
            *labels: The variants.

        Returns:
            A table per variant of the samples where the number is finite, with it in ``number``.

        Raises:
            MisureError: If a file is damaged.
        """
        tables = shared([self._saved(label) for label in labels])
        sides = zip(*(table["maps"] for table in tables), strict=True)
        numbers = np.array([measure(*side) for side in sides], dtype=float)
        finite = np.isfinite(numbers)
        return [table[finite].assign(number=numbers[finite]) for table in tables]

    def measured_on_maps(self, measure: Callable[..., float], *labels: str) -> Values:
        """Return the numbers of :meth:`on_maps`; of samples without any maps it is said that these are missing."""
        values = joined(self.on_maps(measure, *labels), "number", self.group_word)[1]
        explained = len(shared([self.rows(label) for label in labels])[0])
        if not explained or len(values.numbers):
            return values
        lacking = f"no maps of the {explained} samples are here; those of photographs and scans do not ship"
        return replace(values, lacking=lacking)

    def forget_maps(self) -> None:
        """Free the memory that saved maps take."""
        self._maps.clear()

    def _saved(self, label: str) -> pd.DataFrame:
        """Return a variant's saved maps, without the image, by sample."""
        if label not in self._maps:
            rows = self.rows(label)[["unit", "place"]]
            maps = [_without_image(load_maps(self.material.maps_folder, unit)) for unit in rows["unit"]]
            table = rows.assign(maps=pd.Series(maps, index=rows.index, dtype=object))
            self._maps[label] = table.dropna(subset=["maps"])
        return self._maps[label]


def shared(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Keep the samples that all tables have, in the order of the first."""
    common = tables[0].index
    for table in tables[1:]:
        common = common.intersection(table.index, sort=False)
    return [table if table.index.equals(common) else table.loc[common] for table in tables]


def on_one_device(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Keep the samples that all tables have from one device."""
    tables = shared(tables)
    devices = pd.concat([table["device"].astype(str) for table in tables], axis=1)
    equal = devices.nunique(axis=1).eq(1).to_numpy()
    return [table[equal] for table in tables]


def joined(tables: Sequence[pd.DataFrame], column: str, group_word: str) -> tuple[list[NDArray[np.float64]], Values]:
    """Return a column of several tables over the samples that all of them have.

    Args:
        tables: By sample, with ``unit`` and ``place``.
        column: A column of numbers.
        group_word: What the places are, in the plural.

    Returns:
        The column per table, and the samples with the first one's numbers.
    """
    tables = shared(tables)
    columns = [table[column].to_numpy(dtype=float) for table in tables]
    units = tuple(sorted({unit for table in tables for unit in table["unit"]}))
    places, timed = tables[0]["place"].to_numpy(dtype=np.int64), column == _TIME
    return columns, Values(columns[0], places, units, group_word, timed=timed)


def _without_image(maps: Maps | None) -> Maps | None:
    return maps and {name: array for name, array in maps.items() if name != "image"}
