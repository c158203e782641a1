"""Paths and names on the command line, quoted so that Hydra's grammar leaves them as they stand."""

from __future__ import annotations

import re
from collections.abc import Collection

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from misure.errors import MisureError
from misure.io.reading import user_path

PATHS = ("image", "model_file", "region", "class_names", "checkpoint", "output", "outputs", "data_root", "source")
"""Keys whose values are files or folders."""

ASSIGNMENT = re.compile(r"(?P<sign>\+{0,2})(?P<key>[A-Za-z_][\w.@/]*)=(?P<value>.*)", re.DOTALL)

_NAMES = ("target", "bottleneck", "explainer.layer")
_LISTS = ("image", "class_names")
_NEVER_NULL = ("image", "output", "outputs", "data_root")


def quoted(text: str, *, interpolated: bool = False) -> str:
    """Quote a text for Hydra.

    Args:
        text: Any characters but NUL.
        interpolated: Whether ``${...}`` in it is to be replaced.
    """
    if not interpolated:
        text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    text = re.sub(r"(\\*)'", r"\1\1\\'", "./???" if text == "???" else text)  # ??? alone would be a value to be given
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", text) + "'"


def literal(token: str, known: Collection[str], *, multirun: bool) -> str:
    """Write ``key=value`` for Hydra, with the value as it stands where the key means a path or a name.

    What is quoted for Hydra stays, and so do lists where they can be meant, ``null``, and interpolations of known keys,
    unless there is a file of that very name.

    Args:
        token: An argument.
        known: Keys of the configuration.
        multirun: Whether commas separate values.

    Raises:
        MisureError: If a path is empty.
    """
    found = ASSIGNMENT.fullmatch(token)
    if found is None or found["key"] not in (*PATHS, *_NAMES):
        return token
    key, value = found["key"], found["value"]
    if key in PATHS and not value.strip(" \t'\""):
        raise MisureError(f"{token} names nothing, as an unset variable of the shell does: give a path or leave it out")
    return f"{found['sign']}{key}={_value(key, value, known, multirun)}"


def parsed(token: str) -> Override | None:
    """Return what Hydra understands, or None."""
    try:
        return OverridesParser.create().parse_override(token)
    except HydraException:
        return None


def _value(key: str, value: str, known: Collection[str], multirun: bool) -> str:
    if key in PATHS and value.startswith("~/"):
        value = str(user_path(value))
    if key in PATHS and user_path(value).exists():
        return quoted(value)
    if (value == "null" and key not in _NEVER_NULL) or (key == "target" and re.fullmatch(r"-?\d+", value)):
        return value
    if re.fullmatch(r"(['\"]).*\1|\[.*['\"].*\]", value, re.DOTALL) and parsed(f"key={value}"):
        return value
    if key in _LISTS and re.fullmatch(r"\[.*\]", value, re.DOTALL):
        return f"[{','.join(quoted(part.strip()) for part in value[1:-1].split(',') if part.strip())}]"
    if multirun and "," in value:
        return ",".join(_value(key, part, known, multirun) for part in value.split(","))
    names = re.findall(r"\$\{(\w*)([:.\w]*)", value)
    return quoted(value, interpolated=bool(names) and all(name in known or ":" in more for name, more in names))
