"""Generating a stand-in's files once for each specification, safe against kills and a second process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from misure.errors import MisureError
from misure.io.atomic import remove_abandoned, replacing
from misure.io.locks import alone

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def generator_id(spec: DataclassInstance, version: int) -> str:
    """Identify generated files by their specification and the generator's version: 12 hexadecimal digits."""
    return hashlib.sha256(json.dumps([version, asdict(spec)], sort_keys=True).encode()).hexdigest()[:12]


def check_ranges(name: str, spec: DataclassInstance, ranges: dict[str, tuple[int, int]]) -> None:
    """Raise a MisureError for the first field of a specification outside its range, both ends included."""
    for field, (low, high) in ranges.items():
        if not low <= getattr(spec, field) <= high:
            raise MisureError(f"{name}.{field}={getattr(spec, field)} is not a number from {low} to {high}")


def generate_once(home: Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a folder that appears whole or not at all, unless it is there.

    Args:
        home: The folder.
        write: Called with a temporary folder beside it.

    Returns:
        ``home``.

    Raises:
        MisureError: If the disk does not take it.
    """
    if home.is_dir():
        return home
    remove_abandoned(home)
    with alone(home.with_name(f".{home.name}.lock"), lambda: print(f"{home.name}: another process generates it")):
        if not home.is_dir():
            with replacing(home) as unfinished:
                write(unfinished)
    return home
