"""Methods with the curves that were saved with their maps, on the samples that all of them have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from misure.evaluation.curves import Curve
from misure.explainers import EXPLAINERS
from misure.paper.extensions.paired import KEY, n_groups, shared_samples
from misure.paper.maps import NUMBERS, saved_arrays
from misure.paper.material import Material, made_once
from misure.paper.published import Pair
from misure.paper.query import paper_draw, select
from misure.plotting import style_of

ALWAYS = ("msr", "rise", "seg_grad_cam", "prediction", "sufficient_region", "random_map")
"""Methods that have a row even without curves; others join where they have some."""

NO_CURVES = "no saved curves\nin this profile"


@dataclass(frozen=True)
class Method:
    """A method's records and curves on the samples that it is compared on.

    Attributes:
        name: As in ``misure.EXPLAINERS``.
        rows: Its records on these samples, by image and class; one per sample and threshold.
        curves: Arrays as :func:`misure.evaluation.curves.explanation_curves` returns them, by image and class.
    """

    name: str
    rows: pd.DataFrame
    curves: pd.Series

    @property
    def title(self) -> str:
        """Its name as shown."""
        return EXPLAINERS[self.name].title

    @property
    def colour(self) -> str:
        """The colour of its lines."""
        return style_of(self.name).colour

    def measure(self, number: Callable[..., float], *limits: Any) -> pd.Series:
        """Measure each sample's curve: ``number(curve, *limits)``, NaN where a curve has none."""
        return self.curves.map(lambda curve: number(curve, *limits)).astype(float)

    def heading(self, pair: Pair) -> dict[str, Any]:
        """Return the first columns of its row in a table."""
        row: dict[str, Any] = {"dataset": pair.dataset_label, "model": pair.model_label}
        counts = {"n_samples": len(self.curves), "n_groups": n_groups(self.curves)}
        return row | {"explainer": self.name, "method": self.title, **counts}


@made_once
def methods_of(material: Material, pair: Pair) -> list[Method]:
    """Load every method's curves, on the samples that all methods have.

    A method with far fewer samples than the others does not take samples from them; it is left with those of its own
    that they share.

    Raises:
        MisureError: If a file of maps is damaged.
    """
    records = paper_draw(material.run, pair)
    loaded = [_load(material, records, name) for name in EXPLAINERS]
    shared = shared_samples({method.name: method.curves for method in loaded})
    index = next((curves.index for curves in shared.values()), loaded[0].curves.index[:0])
    shown = [method for method in loaded if len(method.curves) or method.name in ALWAYS]
    return sorted((_restricted(method, index) for method in shown), key=lambda method: _place(method.name))


def title_of(pair: Pair, methods: list[Method]) -> str:
    """Name a panel's dataset, network and number of samples."""
    return f"{pair.label}, n = {max((len(method.curves) for method in methods), default=0)}"


def _load(material: Material, records: pd.DataFrame, name: str) -> Method:
    rows = select(records, name).set_index(KEY).sort_index()
    units = rows.loc[~rows.index.duplicated(keep="last"), "unit"]
    curves: list[Curve] = [saved_arrays(material.maps_folder, unit, NUMBERS) for unit in units]
    saved = [bool(curve) for curve in curves]
    return Method(name, rows, pd.Series(curves, units.index, dtype=object)[saved])


def _restricted(method: Method, index: pd.Index) -> Method:
    curves = method.curves[method.curves.index.isin(index)]
    return replace(method, rows=method.rows[method.rows.index.isin(curves.index)], curves=curves)


def _place(name: str) -> int:
    return ALWAYS.index(name) if name in ALWAYS else len(ALWAYS)
