"""Post-hoc reliability (paper 3.3): from an explanation to the probability that the segmentation is good.

The input is what MSR says about a prediction, the label whether its Dice with the ground truth reaches 0.9.
Fitting and cross-validation need scikit-learn (``pip install "misure[reliability]"``); a fitted model does not.
"""

from misure.reliability.model import (
    FEATURES,
    RELIABLE_FROM,
    NotFitted,
    Reliability,
    ReliabilityModel,
    fit,
)
from misure.reliability.scores import Estimate, Scores, area_under_curve, roc_curve, score
from misure.reliability.validation import (
    FEATURE_SETS,
    N_FOLDS,
    PROTOCOLS,
    OutOfFold,
    Samples,
    cross_validate,
    usable_samples,
)

__all__ = [
    "FEATURES",
    "FEATURE_SETS",
    "N_FOLDS",
    "PROTOCOLS",
    "RELIABLE_FROM",
    "Estimate",
    "NotFitted",
    "OutOfFold",
    "Reliability",
    "ReliabilityModel",
    "Samples",
    "Scores",
    "area_under_curve",
    "cross_validate",
    "fit",
    "roc_curve",
    "score",
    "usable_samples",
]
