"""Explanation methods, one per file, behind one interface."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from misure.errors import MisureError, did_you_mean
from misure.explainers.base import Explainer, SaliencyMaps, methods
from misure.explainers.baselines import PredictionMap, RandomMap
from misure.explainers.msr import MSR
from misure.explainers.rise import RISE
from misure.explainers.seg_grad_cam import SegGradCAM
from misure.explainers.sufficient_region import SufficientRegion

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

EXPLAINERS: dict[str, type[Explainer]] = {cls.name: cls for cls in methods()}
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
