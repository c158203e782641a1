"""Explanation methods, one per file, behind one interface."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from typing import Any

from misure.errors import MisureError, did_you_mean
from misure.explainers.base import Explainer, SaliencyMaps
from misure.explainers.baselines import PredictionMap, RandomMap
from misure.explainers.msr import MSR
from misure.explainers.rise import RISE
from misure.explainers.seg_grad_cam import SegGradCAM
from misure.explainers.sufficient_region import SufficientRegion


def _methods(subclasses: Iterable[type[Explainer]]) -> Iterator[type[Explainer]]:
    """Yield the classes that are methods of their own: those that give themselves a name."""
    for subclass in subclasses:
        if "name" in vars(subclass):
            yield subclass
        yield from _methods(subclass.__subclasses__())


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

EXPLAINERS: dict[str, type[Explainer]] = {cls.name: cls for cls in _methods(Explainer.__subclasses__())}
"""Every method of this folder's files, by the name used in ``explain(method=...)``, configs, records and tables."""


def make_explainer(method: str, **parameters: Any) -> Explainer:
    """Build an explainer by name.

    Raises:
        MisureError: If the method or a parameter does not exist, or a value is out of range.
    """
    if method not in EXPLAINERS:
        raise MisureError(f"there is no method {method!r}{did_you_mean(method, EXPLAINERS)}")
    cls = EXPLAINERS[method]
    for name in parameters:
        if name not in cls.parameter_names():
            raise MisureError(f"{method} has no parameter {name!r}{did_you_mean(name, cls.parameter_names())}")
    return cls(**parameters)


__all__ = [
    "EXPLAINERS",
    "MSR",
    "RISE",
    "Explainer",
    "PredictionMap",
    "RandomMap",
    "SaliencyMaps",
    "SegGradCAM",
    "SufficientRegion",
    "make_explainer",
]
