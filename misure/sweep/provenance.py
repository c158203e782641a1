"""Provenance of a run's numbers: code, packages, hardware, data, checkpoints and time, without any private name."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from misure.errors import MisureError, without_folders
from misure.io.atomic import write_atomically
from misure.io.download import file_digest
from misure.io.installed import package_version
from misure.models.checkpoint import read_info

if TYPE_CHECKING:
    import pandas as pd

_CPU_INFO = Path("/proc/cpuinfo")
_INSTRUCTION_SETS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
_DATA_COLUMNS = ("dataset", "dataset_source", "dataset_fingerprint", "stand_in")


def write_provenance(outputs: Path, run: pd.DataFrame, stages: Sequence[Mapping[str, Any]]) -> Path:
    """Write ``provenance.json`` into the outputs folder and return its path.

    Args:
        outputs: The outputs folder.
        run: As :func:`misure.paper.query.latest_run` returns it.
        stages: What took how long: dicts with ``stage``, ``subject``, ``seconds``, ``started`` and ``profile``.

    Raises:
        MisureError: If the file cannot be written.
    """
    content = json.dumps(provenance(outputs, run, stages), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    return write_atomically(outputs / "provenance.json", lambda path: path.write_text(content, encoding="utf-8"))


def provenance(outputs: Path, run: pd.DataFrame, stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collect the provenance of a run's numbers; no network is loaded.

    Args:
        outputs: The outputs folder.
        run: As :func:`misure.paper.query.latest_run` returns it.
        stages: As :func:`write_provenance` takes them.

    Returns:
        Values that JSON can hold. Paths keep only their last part.
    """
    profiles = sorted(set(run["profile"].dropna()))
    of_profile = [dict(stage) for stage in stages if stage.get("profile") in profiles]
    collected = {
        "profile": ", ".join(profiles),
        "code": {"now": code_version(), "records": _values(run, "code_version")},
        "python": platform.python_version(),
        "packages": dict(_packages()),
        "operating_system": _operating_system(),
        "hardware": hardware(),
        "devices": _values(run, "device"),
        "precisions": _values(run, "precision"),
        "seeds": [int(seed) for seed in _values(run, "param_seed")],
        "data": _data(run),
        "checkpoints": [_checkpoint(path, run) for path in sorted((outputs / "checkpoints").glob("*.json"))],
        "records": {str(k): int(n) for k, n in run.drop_duplicates("unit")["status"].value_counts().items()},
        "seconds_by_stage": _seconds(of_profile),
        "stages": of_profile,
    }
    public: dict[str, Any] = _without_folders(collected)
    return public


@cache
def code_version() -> str:
    """The package version, with the git commit where there is one."""
    checkout = Path(__file__).resolve().parents[2]
    try:
        if Path(_git(checkout, "rev-parse", "--show-toplevel")).resolve() != checkout:
            return package_version()  # installed somewhere within a repository that is another's
        return f"{package_version()}+{_git(checkout, 'describe', '--always', '--dirty')}"
    except (OSError, subprocess.SubprocessError):
        return package_version()


def _git(folder: Path, *command: str) -> str:
    called = ["git", "-C", str(folder), *command]
    return subprocess.run(called, capture_output=True, text=True, check=True, timeout=5).stdout.strip()  # noqa: S603


def _packages() -> Iterator[tuple[str, str]]:
    """Name the direct dependencies that are installed, optional ones too."""
    names = {match[0] for text in requires("misure") or () if (match := re.match(r"[\w.-]+", text))}
    for name in sorted(names - {"misure"}, key=str.casefold):
        with suppress(PackageNotFoundError):
            yield name, version(name)


def _operating_system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        name = ""
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    return f"{name} ({kernel})" if name else kernel


def hardware() -> dict[str, Any]:
    """Describe this machine: ``cpu``, ``cores``, ``threads``, ``instruction_sets``, ``memory_gib`` and ``gpus``."""
    model, flags = _cpu_info()
    return {
        "cpu": model or platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(logical=False),
        "threads": os.cpu_count(),
        "instruction_sets": [name for name in _INSTRUCTION_SETS if name in flags],
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _cpu_info() -> tuple[str, set[str]]:
    """Return the processor's name and flags; nothing where the system does not tell."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return "", set()
    fields: dict[str, str] = {}
    for key, _, value in (line.partition(":") for line in lines):
        fields.setdefault(key.strip().casefold(), value.strip())
    return fields.get("model name", ""), set((fields.get("flags") or fields.get("features", "")).split())


def _data(run: pd.DataFrame) -> list[dict[str, Any]]:
    rows = run.drop_duplicates(list(_DATA_COLUMNS))[list(_DATA_COLUMNS)]
    return [
        {
            "dataset": str(row["dataset"]),
            "source": str(row["dataset_source"]),
            "fingerprint": str(row["dataset_fingerprint"]),
            "stand_in": bool(row["stand_in"]),
        }
        for _, row in rows.iterrows()
    ]


def _checkpoint(description: Path, run: pd.DataFrame) -> dict[str, Any]:
    """Describe a checkpoint from its files; damage is said, not raised."""
    weights = description.with_suffix(".safetensors")
    try:
        info, digest = read_info(weights), file_digest(weights)
    except (MisureError, OSError) as error:
        return {"file": weights.name, "error": str(error)}
    return {
        "file": weights.name,
        "sha256": digest,
        "as_described": digest == info.weights,
        "validation_dice": info.metrics.get("val_dice"),
        "initial_weights": info.initial_weights or None,
        "trained_on": {key: info.data.get(key) for key in ("dataset", "source", "fingerprint")},
        "in_these_records": bool(run["weights"].eq(digest[:16]).any()),
    }


def _seconds(stages: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for stage in stages:
        total[stage["stage"]] = round(total.get(stage["stage"], 0.0) + stage["seconds"], 2)
    return total


def _values(run: pd.DataFrame, column: str) -> list[Any]:
    return sorted(set(run[column].dropna())) if column in run else []


def _without_folders(value: Any) -> Any:
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, Mapping):
        return {str(key): _without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    return value
