"""What a callable hides: modules and sources of random numbers in its closure, object, arguments or globals."""

from __future__ import annotations

import dis
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import ReferenceType

import numpy as np
import torch
from torch import Tensor, nn

_MOST = 5000
"""Things that are looked at; the nearest come first."""

_FOLLOWED = {"builtins", "types", "functools", "collections", "__main__"}
_STRANGERS = (sys.stdlib_module_names | {"torch", "numpy", "onnxruntime", "matplotlib"}) - _FOLLOWED
"""Packages whose objects and globals are not looked into: they hold no network of the user's."""

_OF_MODULES = frozenset(vars(nn.Module()))
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_CONTAINERS = (list, tuple, set, frozenset, deque)


def found_in(network: Callable[..., Any]) -> tuple[list[nn.Module], list[Any]]:
    """Look for what a network runs and draws from.

    Args:
        network: A module, function, bound method, ``functools.partial``, callable object or method of TorchScript.

    Returns:
        The outermost modules, nearest first, and the generators of random numbers of torch, NumPy and Python.
    """
    seen: dict[int, Any] = {}  # kept alive, so that no identity is used twice
    waiting = deque([network])
    while waiting and len(seen) < _MOST:
        thing = waiting.popleft()
        if id(thing) not in seen:
            seen[id(thing)] = thing
            waiting.extend(_parts(thing))
    modules = [thing for thing in seen.values() if isinstance(thing, nn.Module)]
    inside = {id(part) for module in modules for part in module.modules() if part is not module}
    generators = [t for t in seen.values() if isinstance(t, _GENERATORS) and not isinstance(t, random.SystemRandom)]
    return [module for module in modules if id(module) not in inside], generators


def _parts(thing: Any) -> Iterable[Any]:
    inside = next(inside for kinds, inside in _INSIDE if isinstance(thing, kinds))
    return inside(thing)


def _of_module(module: nn.Module) -> Iterator[Any]:
    """Yield the containers and generators among the attributes of a module's parts, where it does not register them."""
    for part in module.modules():
        for name, value in vars(part).items():
            if name not in _OF_MODULES and isinstance(value, (dict, *_CONTAINERS, *_GENERATORS)):
                yield from (leaf for leaf in _leaves(value) if isinstance(leaf, (nn.Module, *_GENERATORS)))


def _leaves(value: Any, depth: int = 3) -> Iterator[Any]:
    if depth and isinstance(value, (dict, *_CONTAINERS)):
        for part in list(value.values() if isinstance(value, dict) else value)[:_MOST]:
            yield from _leaves(part, depth - 1)
    else:
        yield value


def _of_function(function: FunctionType) -> Iterator[Any]:
    yield from (cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell))
    yield from vars(function).values()  # such as __wrapped__
    yield from chain(function.__defaults__ or (), (function.__kwdefaults__ or {}).values())
    if _is_strange(function.__module__):
        return
    names, of_globals = set(_names(function.__code__)), set(_names_of_globals(function.__code__))
    for value in [function.__globals__[name] for name in of_globals & function.__globals__.keys()]:
        if isinstance(value, ModuleType) and not _is_strange(value.__name__):
            yield from (vars(value)[name] for name in names & vars(value).keys())
        elif not isinstance(value, type):
            yield value


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _names_of_globals(code: CodeType) -> Iterator[str]:
    """Yield the names that code looks up as globals, and not as attributes of something."""
    yield from (step.argval for step in dis.get_instructions(code) if step.opname in {"LOAD_GLOBAL", "LOAD_NAME"})
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_of_globals(constant)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _of_object(thing: Any) -> Iterator[Any]:
    """Yield the attributes of an object, and its class and the class's ancestors."""
    if _is_strange(type(thing).__module__):
        return
    yield from list(getattr(thing, "__dict__", {}).values())
    for ancestor in type(thing).__mro__:
        if ancestor.__module__ == "builtins" or _is_strange(ancestor.__module__):
            continue
        yield ancestor
        slots = vars(ancestor).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name in vars(ancestor) and hasattr(thing, name):
                yield getattr(thing, name)


def _is_strange(package: str | None) -> bool:
    return (package or "").partition(".")[0] in _STRANGERS


def _of_script(method: Any) -> tuple[nn.Module]:
    return (torch.jit._recursive.wrap_cpp_module(method.owner),)  # type: ignore[no-untyped-call]  # noqa: SLF001


_INSIDE: tuple[tuple[Any, Callable[[Any], Iterable[Any]]], ...] = (
    ((Tensor, str, bytes, int, float, np.ndarray, ModuleType, *_GENERATORS), lambda _: ()),
    (nn.Module, _of_module),
    (dict, lambda entries: list(entries.values())[:_MOST]),
    (_CONTAINERS, lambda entries: list(entries)[:_MOST]),
    (partial, lambda call: (call.func, *call.args, *call.keywords.values())),
    ((MethodType, BuiltinMethodType), lambda method: (method.__self__, getattr(method, "__func__", None))),
    (ReferenceType, lambda reference: (reference(),)),
    (FunctionType, _of_function),
    (torch._C.ScriptMethod, _of_script),  # noqa: SLF001
    (type, lambda cls: vars(cls).values()),
    (property, lambda attribute: (attribute.fget,)),
    ((staticmethod, classmethod), lambda method: (method.__func__,)),
    (object, _of_object),
)
"""What is looked at inside things of some kinds; the first that fits."""
