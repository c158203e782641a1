"""The package as it is installed: its version and extras, and where its configurations and shipped data lie."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def _beside_or_inside(folder: str) -> Path:
    """Find a folder of the project: a wheel has it in the package, a clone beside the package."""
    inside = _PACKAGE / f"_{folder}"
    return inside if inside.is_dir() else _PACKAGE.parent / folder


CONFIG_FOLDER = str(_beside_or_inside("configs"))
"""The configurations."""
DATA_FOLDER = _beside_or_inside("data")
"""What ships of the data."""


def package_version() -> str:
    """This package's version; ``"unknown"`` for a copy that was never installed."""
    try:
        return version("misure")
    except PackageNotFoundError:
        return "unknown"


def extra_with(package: str) -> str:
    """Name an extra of this package that brings another; ``"all"`` for one whose import name no extra has."""
    try:
        needed = "\n".join(requires("misure") or [])
    except PackageNotFoundError:
        return "all"
    found = re.findall(rf"(?im)^{re.escape(package)}\b.* extra == '(\w+)'", needed)
    return next((extra for extra in found if extra != "all"), "all")


def config_groups() -> set[str]:
    """Name the groups of configurations: the folders of ``configs``."""
    return {path.name for path in Path(CONFIG_FOLDER).iterdir() if path.is_dir()}
