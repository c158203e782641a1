"""The precision of a run where the configuration leaves it open: measured once for a network, then kept."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from misure.config import subject_of
from misure.models import compute
from misure.models.compute import PrecisionChoice, default_device, device_name
from misure.sweep import ledger
from misure.sweep.experiment import with_precision
from misure.sweep.plan import Pace, measure_pace


def settled_pace(cfg: DictConfig) -> Pace:
    """Time a network in the precision that an earlier run into the same outputs folder measured to be faster.

    Precision is part of a record's identity, so a run that goes on must not choose anew: two precisions that are about
    equally fast would take turns.

    Args:
        cfg: A run configuration.
    """
    if str(cfg.precision) != "auto" or not compute.is_fast_at_bfloat16(default_device()):
        return measure_pace(cfg)
    kept = next((entry["choice"] for entry in ledger.read(_path(cfg)) if entry["of"] == _key(cfg)), None)
    if kept is None:
        return measure_pace(cfg)
    choice = PrecisionChoice(kept["precision"], kept["reason"], kept["seconds"])
    return replace(measure_pace(with_precision(cfg, choice)), choice=choice)


def keep_choice(cfg: DictConfig, choice: PrecisionChoice) -> None:
    """Keep a measured choice in ``precision.json`` for later runs into the same outputs folder.

    Raises:
        MisureError: If the place cannot be written.
    """
    if str(cfg.precision) == "auto" and choice.seconds:
        key = _key(cfg)
        entry = {"of": key, "choice": asdict(choice)}
        ledger.change(_path(cfg), lambda entries: [*(e for e in entries if e["of"] != key), entry])


def _key(cfg: DictConfig) -> dict[str, Any]:
    """Say what a choice holds for: a network, images of a size, a device."""
    return {
        "subject": subject_of(cfg),
        "size": cfg.dataset.size,
        "profile": cfg.profile.name,
        "device": device_name(default_device()),
        "allow_tf32": bool(cfg.allow_tf32),
    }


def _path(cfg: DictConfig) -> Path:
    return Path(cfg.outputs) / "precision.json"
