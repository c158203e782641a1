"""Ranges of values, written as type hints, and checks against them with a one-line error that names value and range."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

from misure.errors import MisureError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Rule(Protocol):
    """A set of allowed values; ``str`` says which, as in "is not a number of at least 0"."""

    def __contains__(self, value: object, /) -> bool:
        """Say whether a value is allowed."""


def _is_number(value: object, low: float, high: float) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and low <= float(value) <= high


@dataclass(frozen=True)
class AtLeast:
    """Finite numbers of at least ``low``."""

    low: float

    def __contains__(self, value: object) -> bool:
        return _is_number(value, self.low, float("inf")) and value != float("inf")

    def __str__(self) -> str:
        return f"a number of at least {self.low}"


@dataclass(frozen=True)
class Between:
    """Numbers from ``low`` to ``high``, both included."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return _is_number(value, self.low, self.high)

    def __str__(self) -> str:
        return f"a number from {self.low} to {self.high}"


@dataclass(frozen=True)
class Whole:
    """Whole numbers of at least ``low``."""

    low: int

    def __contains__(self, value: object) -> bool:
        return isinstance(value, Integral) and _is_number(value, self.low, float("inf"))

    def __str__(self) -> str:
        return f"a whole number of at least {self.low}"


@dataclass(frozen=True)
class OneOf:
    """A few names or other values."""

    choices: tuple[Any, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.choices

    def __str__(self) -> str:
        return f"known: choose {' or '.join(str(choice) for choice in self.choices)}"


Count = Annotated[int, Whole(1)]
"""A number of things, at least one."""

Weight = Annotated[float, AtLeast(0)]
"""A finite number that is not negative."""

Share = Annotated[float, Between(0, 1)]
"""A number from 0 to 1."""


def check(name: str, value: Any, rule: Rule) -> None:
    """Raise a MisureError unless ``value`` is what ``rule`` allows."""
    if value not in rule:
        raise MisureError(f"{name}={value} is not {rule}")


def check_fields(instance: DataclassInstance, names: Mapping[str, str] | None = None) -> None:
    """Check the fields of a dataclass against the rules in their type hints.

    Rules are what ``Annotated`` adds to a type (``Annotated[int, Whole(1)]``) and ``Literal``, also inside
    ``tuple[..., ...]`` and beside ``None``. Other hints say nothing about the value.

    Args:
        instance: The dataclass; a field of tuples may hold any other list of values.
        names: What an error calls a field, where that is not the field's own name.

    Raises:
        MisureError: On the first field whose value is not allowed.
    """
    hints = _hints(type(instance))
    for field in fields(instance):
        name = (names or {}).get(field.name, field.name)
        _check_hint(name, getattr(instance, field.name), hints.get(field.name))


@cache
def _hints(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls, include_extras=True)
    except NameError:  # names a type that only type checkers import
        return _hints(cls.__bases__[0])


def _check_hint(name: str, value: Any, hint: Any) -> None:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        for rule in arguments[1:]:
            check(name, value, rule)
    elif origin is Literal:
        check(name, value, OneOf(arguments))
    elif origin in {Union, UnionType} and len(arguments) == 2 and type(None) in arguments:
        if value is not None:
            _check_hint(name, value, next(argument for argument in arguments if argument is not type(None)))
    elif origin is tuple and arguments[1:] == (...,):
        if not isinstance(value, Collection) or isinstance(value, str):
            raise MisureError(f"{name}={value} is not a list")
        for element in value:
            _check_hint(name, element, arguments[0])
