"""Explain image segmentation: one call, any network.

Example:
    >>> import misure
    >>> explanation = misure.explain(network, image, target=1)  # doctest: +SKIP
    >>> explanation.dice_explained, explanation.perturbation_ratio  # doctest: +SKIP
    >>> explanation.plot().savefig("explanation.png")  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from misure.errors import MisureError
from misure.io.installed import package_version

if TYPE_CHECKING:
    from misure.api import explain
    from misure.explainers import EXPLAINERS
    from misure.explanation import Explanation
    from misure.models.compute import Compute
    from misure.models.loading import load_model
    from misure.models.wrapper import SegmentationModel
    from misure.progress import CancelledError, Progress
    from misure.target import EmptyTargetError, Target

__version__ = package_version()

_WHERE = {
    "EXPLAINERS": "explainers",
    "CancelledError": "progress",
    "Compute": "models.compute",
    "EmptyTargetError": "target",
    "Explanation": "explanation",
    "Progress": "progress",
    "SegmentationModel": "models.wrapper",
    "Target": "target",
    "explain": "api",
    "load_model": "models.loading",
}
"""Modules of the names that need PyTorch: each is imported when its name is first asked for."""

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


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"misure.{_WHERE[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
