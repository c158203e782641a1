"""Values of annotation files as tools write them: whole numbers as 40.0 or text, truth values as text or numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from misure.validation import shown, whole

Identity: TypeAlias = "int | str"
"""What tells images apart: a number, or text that is none."""

_WHOLE = re.compile(r"\s*([+-]?\d{1,18})(?:\.0*)?\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?\s*", re.ASCII | re.IGNORECASE)
_LONGEST = 50
_FLAGS = {"true": True, "false": False}


def number(value: Any) -> float | None:
    """Return a finite number, also one that is written as text; None for anything else."""
    if isinstance(value, str) and len(value) < _LONGEST and _NUMBER.fullmatch(value):
        value = float(value)
    if type(value) not in (float, int):  # JSON has no other numbers
        return None
    return value if abs(value) < math.inf else None


def whole_number(value: object) -> int | None:
    """Return a whole number, also one that is written as 40.0, "40" or "40.0"; None for anything else."""
    if isinstance(value, str):
        matched = _WHOLE.fullmatch(value)
        return int(matched[1]) if matched else None
    return whole(value)


def whole_of(entry: Mapping[str, Any], key: str) -> int:
    """Return a whole number of an entry.

    Raises:
        ValueError: If it is absent or something else; the message says which.
    """
    found = whole_number(_present(entry, key))
    if found is None:
        raise ValueError(f"its {key} is {shown(repr(entry[key]))}, no whole number")
    return found


def identity_of(entry: Mapping[str, Any], key: str) -> Identity:
    """Return what tells an image apart.

    Raises:
        ValueError: If it is absent, or neither a whole number nor text.
    """
    value = _present(entry, key)
    found = whole_number(value)
    if found is not None:
        return found
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"its {key} is {shown(repr(value))}, neither a whole number nor text")
    return value.strip()


def flag_of(entry: Mapping[str, Any], key: str) -> bool:
    """Return a truth value; what is absent, null or pandas' NaN is false.

    Raises:
        ValueError: If it is something else than true, false, 0 or 1, also as text.
    """
    value = entry.get(key)
    if value is None or value != value:  # noqa: PLR0124 - NaN alone is not itself
        return False
    found = _FLAGS.get(value.strip().lower()) if isinstance(value, str) else value
    found = found if isinstance(found, bool) else whole_number(value)
    if found not in {0, 1}:
        raise ValueError(f"its {key} is {shown(repr(value))}, neither 0 nor 1")
    return bool(found)


def file_name_of(entry: Mapping[str, Any], key: str) -> str:
    """Return the path of a file below a folder.

    Raises:
        ValueError: If it is absent, no text or leads out of the folder.
    """
    name = _present(entry, key)
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"its {key} is {shown(repr(name))}, no name")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not name.isprintable():
        raise ValueError(f"its {key} is {shown(repr(name))}, which is no file of the folder")
    return name


def _present(entry: Mapping[str, Any], key: str) -> Any:
    if entry.get(key) is None:
        raise ValueError(f"its {key} is null" if key in entry else f"it has no {key}")
    return entry[key]
