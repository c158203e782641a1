"""The package as it is installed: its version, and where its configurations lie."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_PACKED = _PACKAGE / "_configs"
CONFIG_FOLDER = str(_PACKED if _PACKED.is_dir() else _PACKAGE.parent / "configs")
"""Packed into the package where it is installed; beside it in a clone."""


def package_version() -> str:
    """This package's version; ``"unknown"`` for a copy that was never installed."""
    try:
        return version("misure")
    except PackageNotFoundError:
        return "unknown"


def config_groups() -> set[str]:
    """Name the groups of configurations: the folders of ``configs``."""
    return {path.name for path in Path(CONFIG_FOLDER).iterdir() if path.is_dir()}
