"""The parameters of each method that the page lets a user set: how much is computed, and the paper's two weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from misure.errors import MisureError
from misure.explainers import EXPLAINERS, make_explainer
from misure.explainers.base import Explainer

FIRST = ("msr", "rise", "seg_grad_cam", "sufficient_region")
"""The paper's methods; the others follow by title."""

_SETTABLE = {
    "n_iterations": "iterations",
    "n_masks": "masks",
    "n_samples": "samples",
    "n_steps": "steps",
    "lr": "learning rate",
    "lam": "lambda",
    "area": "area",
    "window": "window, pixels",
    "stride": "stride, pixels",
    "tau": "tau",
    "layer": "layer",
}


@dataclass(frozen=True)
class Setting:
    """One parameter on the page.

    Attributes:
        method: Name of the explainer.
        name: The parameter's name.
        label: What it is called on the page.
        default: A number, or None for a text that may stay empty.
    """

    method: str
    name: str
    label: str
    default: float | None

    def read(self, given: Any) -> Any:
        """Turn what was entered into the parameter's value.

        Raises:
            MisureError: If a number is missing.
        """
        if self.default is None:
            return str(given).strip() or None if given is not None else None
        if given is None:
            raise MisureError(f"{EXPLAINERS[self.method].title}: {self.label} is empty; for example {self.default:g}")
        return int(given) if isinstance(self.default, int) and float(given).is_integer() else given


def method_names() -> list[str]:
    """Every method, the paper's first."""
    others = sorted((name for name in EXPLAINERS if name not in FIRST), key=lambda name: EXPLAINERS[name].title)
    return [*FIRST, *others]


def settings_of(method: str) -> list[Setting]:
    """Return what can be set of a method, what costs time first."""
    defaults: dict[str, Any] = {field.name: field.default for field in fields(EXPLAINERS[method])}
    return [
        Setting(method, name, label, defaults[name])
        for name, label in _SETTABLE.items()
        if name in defaults and (defaults[name] is None or type(defaults[name]) in {int, float})
    ]


def build_explainers(methods: Sequence[str], entered: Mapping[tuple[str, str], Any]) -> list[Explainer]:
    """Make the chosen methods.

    Args:
        methods: Their names.
        entered: What was entered, by method and parameter.

    Raises:
        MisureError: If a method does not exist or a value is missing or out of range.
    """
    return [
        make_explainer(
            method, **{setting.name: setting.read(entered[method, setting.name]) for setting in settings_of(method)}
        )
        for method in method_names()
        if method in methods
    ]
