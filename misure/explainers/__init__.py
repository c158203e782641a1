"""Explanation methods, one per file, behind one interface.

In their examples ``network`` is a segmentation network of two classes, an ``nn.Sequential``, and ``image`` holds one
bright object, 1 x 16 x 16.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from misure.errors import MisureError, did_you_mean
from misure.explainers.ablation_cam import AblationCAM
from misure.explainers.base import Explainer, SaliencyMaps, methods
from misure.explainers.baselines import PredictionMap, RandomMap
from misure.explainers.extremal_perturbation import ExtremalPerturbation
from misure.explainers.grid_saliency import GridSaliency
from misure.explainers.hires_cam import HiResCAM
from misure.explainers.integrated_gradients import IntegratedGradients
from misure.explainers.meaningful_perturbation import MeaningfulPerturbation
from misure.explainers.msr import MSR
from misure.explainers.msr_fast import FastMSR
from misure.explainers.occlusion import Occlusion
from misure.explainers.rise import RISE
from misure.explainers.score_cam import ScoreCAM
from misure.explainers.seg_grad_cam import SegGradCAM
from misure.explainers.smooth_grad import SmoothGrad
from misure.explainers.sufficient_region import SufficientRegion
from misure.validation import shown

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

_IN_ORDER: tuple[type[Explainer], ...] = (
    *(PredictionMap, RandomMap, SufficientRegion, MSR, FastMSR, ExtremalPerturbation, RISE),
    *(SegGradCAM, HiResCAM, AblationCAM, ScoreCAM, IntegratedGradients, SmoothGrad),
    *(GridSaliency, MeaningfulPerturbation, Occlusion),
)
"""As tables and figures show them; others of this folder follow."""

EXPLAINERS: dict[str, type[Explainer]] = {cls.name: cls for cls in (*_IN_ORDER, *methods())}
"""Every method of this folder's files, by the name used in ``explain(method=...)``, records and tables."""


def make_explainer(method: str, **parameters: Any) -> Explainer:
    """Build an explainer by name.

    Raises:
        MisureError: If the method or a parameter does not exist, or a value is out of range.
    """
    if not isinstance(method, str):
        raise MisureError(f"method={shown(method)} is no method: give a name, or an explainer such as MSR()")
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
    "AblationCAM",
    "Explainer",
    "ExtremalPerturbation",
    "FastMSR",
    "GridSaliency",
    "HiResCAM",
    "IntegratedGradients",
    "MeaningfulPerturbation",
    "Occlusion",
    "PredictionMap",
    "RandomMap",
    "SaliencyMaps",
    "ScoreCAM",
    "SegGradCAM",
    "SmoothGrad",
    "SufficientRegion",
    "make_explainer",
]
