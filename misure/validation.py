"""Ranges of values, written as type hints, checks against them, and values of other libraries as plain ones."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

import numpy as np
import psutil
import torch
from torch import Tensor

from misure.errors import MisureError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LARGEST_WHOLE = 2**63 - 1
"""Of the whole numbers that arrays can hold."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MOST_SHOWN = 80


def shown(value: object) -> str:
    """Return a value in one short line, for an error."""
    try:
        text = " ".join(str(value).split())
    except Exception:  # noqa: BLE001 - a number of 5,000 digits, a foreign object that cannot show itself
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def plain(value: Any) -> Any:
    """Return scalars of NumPy and PyTorch as Python's own, and their arrays as lists."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic | Tensor) else value


def whole(value: Any) -> int | None:
    """Return what stands for a whole number (2, 2.0, ``np.int64(2)``, ``torch.tensor([2])``) as one, or None."""
    if isinstance(value, np.ndarray | np.generic | Tensor):
        value = value.item() if math.prod(value.shape) == 1 else None
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else None


def plain_tensor(name: str, value: Any) -> Tensor:
    """Return a tensor or an array of numbers as a dense tensor of PyTorch's own type.

    Arrays are copied: they may be read-only, flipped or of another byte order.

    Args:
        name: What an error calls it.
        value: A tensor, of a subclass too, or a NumPy array.

    Raises:
        MisureError: If it is anything else.
    """
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_nested or value.is_meta:
            raise MisureError(f"{name} is a sparse, nested or empty tensor: give a dense one")
        return value if type(value) is Tensor else value.as_subclass(Tensor)
    if not isinstance(value, np.ndarray):
        kind = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
        raise MisureError(f"{name} is a {kind}: give a tensor or a NumPy array, several images stacked into one")
    if isinstance(value, np.ma.MaskedArray) or value.dtype.kind not in "biuf":
        kind = "array with a mask" if isinstance(value, np.ma.MaskedArray) else f"array of {value.dtype}"
        raise MisureError(f"{name} is an {kind}: fill or convert it to an array of plain numbers")
    native = value.dtype.newbyteorder("=") if value.dtype.itemsize <= 8 else np.dtype(np.float64)
    return torch.from_numpy(np.array(value, dtype=native, order="C"))


def is_real(values: Tensor) -> bool:
    """Say whether a tensor has a floating type that networks calculate in."""
    return values.dtype in _FLOATS


def check_memory(name: str, value: int, n_bytes: int) -> None:
    """Raise a MisureError if a number asks for more than the free memory: a system would kill rather than refuse."""
    free = psutil.virtual_memory().available
    if n_bytes > free:
        needed = f"{n_bytes / 1e9:.3g} GB of memory, {free / 1e9:.1f} GB are free"
        raise MisureError(f"{name}={shown(value)} takes about {needed}: choose a smaller number")


def path_of(name: str, value: Any) -> Path:
    """Return a place of the file system.

    Raises:
        MisureError: If it is no path, an empty one or one that no file can have.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise MisureError(f"{name}={shown(value)} is not a path")
    text = os.fspath(value)
    if not text or "\0" in text:
        raise MisureError(f"{name}={text!r} is not a path: it is empty or holds a character that no name has")
    return Path(text)


class Rule(Protocol):
    """A set of allowed values; ``str`` says which, as in "is not a number of at least 0"."""

    def __contains__(self, value: object, /) -> bool:
        """Say whether a value is allowed."""


def _is_number(value: object, low: float, high: float) -> bool:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        return False
    return low <= (int(value) if isinstance(value, Integral) else float(value)) <= high


@dataclass(frozen=True)
class AtLeast:
    """Finite numbers of at least ``low``."""

    low: float

    def __contains__(self, value: object) -> bool:
        return _is_number(value, self.low, sys.float_info.max)

    def __str__(self) -> str:
        return "a finite number" if self.low == -sys.float_info.max else f"a number of at least {self.low}"


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
    """Whole numbers from ``low`` to ``high``."""

    low: int
    high: int = LARGEST_WHOLE

    def __contains__(self, value: object) -> bool:
        return isinstance(value, Integral) and _is_number(value, self.low, self.high)

    def __str__(self) -> str:
        if self.high < LARGEST_WHOLE:
            return f"a whole number from {self.low} to {self.high}"
        return "a whole number" if self.low == -LARGEST_WHOLE else f"a whole number of at least {self.low}"


@dataclass(frozen=True)
class OneOf:
    """A few names or other values."""

    choices: tuple[Any, ...]

    def __contains__(self, value: object) -> bool:
        return any(isinstance(value, type(choice)) and value == choice for choice in self.choices)

    def __str__(self) -> str:
        return f"known: choose {' or '.join(str(choice) for choice in self.choices)}"


@dataclass(frozen=True)
class Kind:
    """Values of a type."""

    type: Any

    def __contains__(self, value: object) -> bool:
        return isinstance(value, self.type)

    def __str__(self) -> str:
        return f"a {_WORDS.get(self.type, self.type.__name__)}"


_WORDS = {str: "text", Callable: "function", Mapping: "dictionary"}
_KINDS: dict[Any, Rule] = {
    str: Kind(str),
    bool: OneOf((True, False)),
    int: Whole(-LARGEST_WHOLE),
    float: AtLeast(-sys.float_info.max),
}
"""What a plain type says as a hint."""

Count = Annotated[int, Whole(1)]
"""A number of things, at least one."""

Ordinal = Annotated[int, Whole(0)]
"""A number of things, possibly none, or the key of random numbers."""

Side = Annotated[int, Whole(1, 2**14)]
"""Pixels of an image's side."""

Weight = Annotated[float, AtLeast(0)]
"""A finite number that is not negative."""

Share = Annotated[float, Between(0, 1)]
"""A number from 0 to 1."""


def check(name: str, value: Any, rule: Rule) -> None:
    """Raise a MisureError unless ``value`` is what ``rule`` allows."""
    if isinstance(value, int) and value > LARGEST_WHOLE:
        raise MisureError(f"{name}={shown(value)} is larger than any number of 64 bits")
    if value not in rule:
        raise MisureError(f"{name}={shown(value)} is not {rule}")


def check_fields(instance: DataclassInstance, names: Mapping[str, str] | None = None) -> None:
    """Check the fields of a dataclass against the rules in their type hints.

    Rules are what ``Annotated`` adds to a type (``Annotated[int, Whole(1)]``), ``Literal``, and types: text,
    truth value, number, function, list, dictionary and other classes, also inside ``tuple[..., ...]`` and beside
    ``None``. Other hints say nothing.

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


def check_arguments(function: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Check the arguments of a function against the rules in its type hints, as :func:`check_fields` does.

    Args:
        function: The function.
        values: Arguments by name, such as ``locals()`` at its start; others count for nothing.

    Raises:
        MisureError: On the first argument whose value is not allowed.
    """
    for name, hint in _hints(function).items():
        if name in values:
            _check_hint(name, values[name], hint)


@cache
def _hints(owner: Any) -> dict[str, Any]:
    try:
        return get_type_hints(owner, include_extras=True)
    except NameError:  # names a type that only type checkers import
        return _hints(owner.__bases__[0])


def _rules(hint: Any) -> tuple[Rule, ...]:
    """Return the rules of a hint itself, not of what is inside it."""
    if get_origin(hint) is Annotated:
        return get_args(hint)[1:]
    if get_origin(hint) is Literal:
        return (OneOf(get_args(hint)),)
    if hint in _KINDS:
        return (_KINDS[hint],)
    kind = get_origin(hint) or hint
    is_class = kind is hint and isinstance(kind, type) and not getattr(kind, "_is_protocol", kind is Any)
    return (Kind(kind),) if is_class or kind in {Callable, Mapping} else ()


def _check_hint(name: str, value: Any, hint: Any) -> None:
    for rule in _rules(hint):
        check(name, value, rule)
    for part, inner in _parts(name, value, hint):
        _check_hint(name, part, inner)


def _parts(name: str, value: Any, hint: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what is inside a value with the hints for it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType} and len(arguments) == 2 and type(None) in arguments:
        if value is not None:
            yield value, next(argument for argument in arguments if argument is not type(None))
    elif origin is Mapping:
        for pair in value.items():
            yield from zip(pair, arguments, strict=True)
    elif origin is Sequence or (origin is tuple and arguments[1:] == (...,)):
        if not isinstance(value, Collection) or isinstance(value, str | bytes | Mapping):
            raise MisureError(f"{name}={shown(value)} is not a list")
        yield from ((element, arguments[0]) for element in value)
