"""The state of a half-done training: one file with a checksum that says which training it belongs to."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from misure.errors import MisureError, brief
from misure.io.atomic import PARTIAL
from misure.io.reading import reading
from misure.models.checkpoint import CheckpointInfo
from misure.training.config import Recipe
from misure.validation import shown

if TYPE_CHECKING:
    from misure.datasets.datamodule import SegmentationData

STATE = "last.ckpt"
"""Name of the file in a training's folder of state."""

_MAY_CHANGE = {"max_minutes", "max_epochs", "loaders", "devices", "strategy", "precision"}
"""What a session may set otherwise than the one it goes on from; of precisions see :func:`resumable`."""

_MADE_BY_TRAINING = {"metrics", "training", "versions", "weights", "initial_weights", "origin", "format_version"}

_MEMBERS = {"identity", "precision", "initial_weights", "elapsed", "steps_done", "state_dict", "optimizer_states"} | {
    "callbacks",
    "epoch",
    "loops",
}


def identity(network: nn.Module, data: SegmentationData, recipe: Recipe, info: CheckpointInfo) -> dict[str, str]:
    """Return what makes a training the one it is, in words: its images, recipe and network."""
    shapes = [[name, list(tensor.shape)] for name, tensor in network.state_dict().items()]
    described = {name: value for name, value in asdict(info).items() if name not in {*_MADE_BY_TRAINING, "data"}}
    is_trained = {
        **{name: value for name, value in asdict(recipe).items() if name not in _MAY_CHANGE},
        **described,
        "layers": hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16],
        "images": [len(data.train), data.train.fingerprint],
        "validation images": [len(data.val), data.val.fingerprint],
        "curriculum": [[stage.until, len(stage.dataset), stage.dataset.fingerprint] for stage in data.curriculum],
    }
    return {name: json.dumps(value, sort_keys=True, default=str) for name, value in is_trained.items()}


def resumable(folder: Path, wanted: dict[str, str], recipe: Recipe) -> dict[str, Any] | None:
    """Return the saved state that a training can go on from; where there is none, nothing else is in its folder.

    Args:
        folder: Of the state.
        wanted: The training's identity.
        recipe: Its recipe. A precision that it leaves open goes on as it was measured.

    Returns:
        The state, or None. One that is damaged or of another training is named in a warning and removed.

    Raises:
        MisureError: If the folder cannot be emptied.
    """
    reason, saved = "", None
    if (folder / STATE).exists():
        try:
            saved = read_state(folder / STATE)
        except MisureError as error:
            reason = str(error)
        else:
            changed = _differences(saved, wanted, recipe)
            reason = f"{folder / STATE} is of another training ({changed})" if changed else ""
    if reason:
        warnings.warn(f"{reason}: training starts from the beginning", stacklevel=3)
    try:
        if reason or saved is None:
            _empty(folder)
            return None
        for left in folder.glob(f".*{PARTIAL}"):
            left.unlink()
    except OSError as error:
        raise MisureError(f"cannot remove {folder}: {brief(error)}; remove it, then train again") from error
    return saved


def _differences(saved: dict[str, Any], wanted: dict[str, str], recipe: Recipe) -> str:
    """Say what another training has otherwise; nothing where it is the same."""
    before = {**saved["identity"], "precision": saved["precision"]}
    now = {**wanted, "precision": before["precision"] if recipe.precision == "auto" else recipe.precision}
    other = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    return "; ".join(f"{name} {shown(before.get(name))}, now {shown(now.get(name))}" for name in other)


def _empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


def read_state(path: Path) -> dict[str, Any]:
    """Read a state, without unpickling anything but plain values and tensors.

    Raises:
        MisureError: If it is cut, changed, foreign or of another version.
    """
    with reading(path, "it is not used"), path.open("rb") as stream:
        digest = stream.read(hashlib.sha256().digest_size)
        content = stream.read()
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("it is damaged: its checksum is another one")
        saved: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if missing := _MEMBERS - saved.keys():
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
    return saved


def remove_finished_state(path: Path) -> None:
    """Remove the state of a training that was stopped between writing its checkpoint and removing it."""
    last, description = state_of(path) / STATE, path.with_suffix(".json")
    if last.exists() and last.stat().st_mtime_ns <= description.stat().st_mtime_ns:
        shutil.rmtree(last.parent, ignore_errors=True)


def state_of(path: Path) -> Path:
    """Where the resumable state of a checkpoint's training lies."""
    return path.with_suffix(".state")


def sync(path: Path) -> None:
    """Put a file and its name on the disk, so that both are there after a power cut."""
    for place in (path, path.parent) if os.name == "posix" else ():
        entry = os.open(place, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network file systems cannot do it for folders
                os.fsync(entry)
        finally:
            os.close(entry)
