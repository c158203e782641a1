"""Checks of single values, each with a one-line error that names the value and its range."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from misure.errors import MisureError


def check_at_least(name: str, value: Any, low: float) -> None:
    """Raise a MisureError unless ``value`` is a finite number of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) < float("inf"):
        raise MisureError(f"{name}={value} is not a number of at least {low}")


def check_between(name: str, value: Any, low: float, high: float) -> None:
    """Raise a MisureError unless ``value`` is a number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) <= high:
        raise MisureError(f"{name}={value} is not a number from {low} to {high}")


def check_whole(name: str, value: Any, low: int) -> None:
    """Raise a MisureError unless ``value`` is a whole number of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < low:
        raise MisureError(f"{name}={value} is not a whole number of at least {low}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a MisureError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise MisureError(f"{name}={value} is not known: choose {' or '.join(choices)}")
