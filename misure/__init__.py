"""Explain image segmentation: one call, any network.

Example:
    >>> import misure
    >>> explanation = misure.explain(network, image, target=1)  # doctest: +SKIP
    >>> explanation.dice_explained, explanation.perturbation_ratio  # doctest: +SKIP
    >>> explanation.plot().savefig("explanation.png")  # doctest: +SKIP
"""

from misure.api import explain
from misure.errors import MisureError
from misure.explainers import EXPLAINERS
from misure.explanation import Explanation, package_version
from misure.models.compute import Compute
from misure.models.loading import load_model
from misure.models.wrapper import SegmentationModel
from misure.progress import CancelledError, Progress
from misure.target import EmptyTargetError, Target

__version__ = package_version()

__all__ = [
    "EXPLAINERS",
    "CancelledError",
    "Compute",
    "EmptyTargetError",
    "Explanation",
    "MisureError",
    "Progress",
    "SegmentationModel",
    "Target",
    "__version__",
    "explain",
    "load_model",
]
