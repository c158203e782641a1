"""Claims from looking at maps (5.1): where their mass lies, how fine they are, and which of them agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from misure.paper.claims.claim import Finding, Part
from misure.paper.claims.samples import CAM_LOW, MSR, RISE_LOW, Method, Subject, Values, shared, shift
from misure.paper.extensions.contours import WIDTHS, shares_near_contour
from misure.paper.maps import load_maps
from misure.paper.published import Pair

EVEN = 0.1
"""How much more of a mask than of the object may lie near the contour for the mask to be "the whole object"."""

_Maps = dict[str, NDArray[Any]]
_NAN = float("nan")
_SHARES = {
    "mask": "the map's mass",
    "mask_in_object": "the map's mass in the object",
    "sufficient_region": "the sufficient region",
    "object": "the object",
}


class _Saved:
    """The saved maps of one dataset and model."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._tables = {method: self._load(method) for method in (MSR, RISE_LOW, CAM_LOW)}

    def mean(
        self,
        statistic: str,
        methods: Sequence[Method],
        measure: Callable[..., float],
        limit: float = 0.0,
        *,
        above: bool = True,
    ) -> Part:
        """Test the mean of a number measured on the maps of some methods for the same sample; NaN does not count."""
        tables = shared([self._tables[method] for method in methods])
        sides = zip(*(table["maps"] for table in tables), strict=True)
        numbers = np.array([measure(*side) for side in sides], dtype=float)
        known = np.isfinite(numbers)
        units = tuple(sorted({unit for table in tables for unit in table["unit"][known]}))
        places = tables[0]["place"].to_numpy(dtype=np.int64)[known]
        return shift(statistic, Values(numbers[known], places, units, self._subject.group_word), limit, above=above)

    def near_contour(self, mask: str, area: str, limit: float, *, above: bool) -> Part:
        """Test how much more of MSR's mask than of an area lies near the contour."""

        def difference(maps: _Maps) -> float:
            shares = shares_near_contour(maps, WIDTHS[0]) if "sufficient_region" in maps else {}
            return shares.get(mask, _NAN) - shares.get(area, _NAN)

        statistic = f"mean share near the contour, {_SHARES[mask]} minus {_SHARES[area]}"
        return self.mean(statistic, (MSR,), difference, limit, above=above)

    def _load(self, method: Method) -> pd.DataFrame:
        """Return the maps by sample, with their unit and image or volume."""
        rows = self._subject.rows(method)[["unit", "place"]]
        folder = self._subject.material.maps_folder
        maps = [_without_image(load_maps(folder, unit)) for unit in rows["unit"]]
        return rows.assign(maps=pd.Series(maps, index=rows.index, dtype=object)).dropna(subset=["maps"])


def _without_image(maps: _Maps | None) -> _Maps | None:
    return maps and {name: array for name, array in maps.items() if name != "image"}


def map_findings(subject: Subject) -> Iterator[Finding]:
    """Test what the paper sees in the maps of one dataset and model, over the samples whose maps were saved."""
    pair = subject.pair
    saved = _Saved(subject)

    def finding(name: str, statement: str, *parts: Part) -> Finding:
        return Finding(name, "5.1", statement, pair, parts, subject.origin, f"figure{pair.qualitative_figure}")

    if pair.dataset == "synapse":
        yield finding(
            "map-on-whole-object",
            f"The map lies on the whole object: within {WIDTHS[0]} pixels of the contour it has at most {EVEN:g} more "
            "of its mass in the object than the object has of its area (our reading).",
            saved.near_contour("mask_in_object", "object", EVEN, above=False),
        )
    else:
        yield finding(
            "map-on-boundary",
            f"The map lies on the object's boundary: within {WIDTHS[0]} pixels of the contour it has more of its mass "
            "than the sufficient region that it was pruned from has of its area, and in the object more than the "
            "object has.",
            saved.near_contour("mask", "sufficient_region", 0.0, above=True),
            saved.near_contour("mask_in_object", "object", 0.0, above=True),
        )
    yield finding(*_fineness(pair, saved))
    yield finding(*_agreement(pair, saved))


def _fineness(pair: Pair, saved: _Saved) -> tuple[Any, ...]:
    statistic = "mean variation over mass, {} minus {}"
    measured_by = "variation between neighbouring pixels for their mass (our reading)"
    if pair.dataset == "coco":
        return (
            "coarse-to-fine",
            f"RISE's maps are the coarsest, MSR's the finest, Seg-Grad-CAM's between: more {measured_by}.",
            saved.mean(statistic.format("MSR", "Seg-Grad-CAM"), (MSR, CAM_LOW), _finer),
            saved.mean(statistic.format("Seg-Grad-CAM", "RISE"), (CAM_LOW, RISE_LOW), _finer),
        )
    return (
        "msr-finer-than-rise",
        f"MSR's maps are finer than RISE's: more {measured_by}.",
        saved.mean(statistic.format("MSR", "RISE"), (MSR, RISE_LOW), _finer),
    )


def _agreement(pair: Pair, saved: _Saved) -> tuple[Any, ...]:
    statistic = "mean correlation of the maps of {} and {}"
    if pair.dataset == "coco":
        pairs = {("MSR", "RISE"): (MSR, RISE_LOW), ("MSR", "Seg-Grad-CAM"): (MSR, CAM_LOW)}
        pairs[("Seg-Grad-CAM", "RISE")] = (CAM_LOW, RISE_LOW)
        parts = [saved.mean(statistic.format(*names), methods, correlation) for names, methods in pairs.items()]
        return "maps-all-agree", "The maps of all three methods agree in localisation: they correlate.", *parts
    statement = (
        "MSR and RISE agree in localisation and Seg-Grad-CAM diverges: MSR's map correlates with RISE's, and more "
        "than Seg-Grad-CAM's does."
    )
    return (
        "msr-agrees-with-rise",
        statement,
        saved.mean(statistic.format("MSR", "RISE"), (MSR, RISE_LOW), correlation),
        saved.mean(
            "mean correlation of MSR's map with RISE's minus that of Seg-Grad-CAM's",
            (MSR, RISE_LOW, CAM_LOW),
            lambda msr, rise, cam: correlation(msr, rise) - correlation(cam, rise),
        ),
    )


def variation(maps: _Maps) -> float:
    """Return a map's total variation over its mass, which no factor changes; NaN for an empty map."""
    values = maps["saliency"].astype(np.float64)
    mass = values.sum()
    steps = np.abs(np.diff(values, axis=0)).sum() + np.abs(np.diff(values, axis=1)).sum()
    return float(steps / mass) if mass > 0 else float("nan")


def _finer(first: _Maps, second: _Maps) -> float:
    return variation(first) - variation(second)


def correlation(first: _Maps, second: _Maps) -> float:
    """Return Pearson's correlation of two maps' pixels; NaN where one is constant."""
    sides = [maps["saliency"].astype(np.float64).ravel() for maps in (first, second)]
    if any(np.ptp(side) == 0 for side in sides):
        return float("nan")
    return float(np.corrcoef(sides[0], sides[1])[0, 1])
