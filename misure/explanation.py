"""The result of explaining one image; it can show and save itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from misure.errors import MisureError, UnwritableError
from misure.io.atomic import partial_of, remove_abandoned
from misure.io.installed import package_version
from misure.metrics import Evaluation
from misure.target import Target
from misure.validation import check_arguments, path_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1
_SAVED = ("saliency.npy", "arrays.npz", "explanation.png", "manifest.json")


Extra = Callable[[Path], Mapping[str, Any]]
"""Writes further files into the folder of an explanation; what it returns, ready for JSON, goes into the manifest."""


@dataclass(frozen=True)
class Explanation:
    """Everything one method says about one image. Tensors are on the CPU; a volume's have a depth before H x W.

    Attributes:
        method: Name of the explainer.
        parameters: Its parameters, as plain values.
        image: float, C x H x W, as the network saw it.
        target: What was explained.
        saliency: float, H x W, raw: never scaled for display.
        evaluations: Metrics, one per threshold.
        seconds: Wall time per image of the explanation itself, without evaluation. In a sweep, where methods share
            stage 1 of MiSuRe, it counts with what it took when it was computed, whichever method that was for.
        batch_size: Images explained together (the time is shared between them).
        precision: ``"32"``, ``"tf32"``, ``"bf16"`` or ``"fp16"``.
        sufficient_region: bool, H x W: stage 1 of MiSuRe, where the method has one.
        n_dilations: Dilations stage 1 needed, where the method has one.
        curve: Loss per iteration, where the method optimises.
    """

    method: str
    parameters: Mapping[str, Any]
    image: Tensor
    target: Target
    saliency: Tensor
    evaluations: tuple[Evaluation, ...]
    seconds: float
    batch_size: int
    precision: str
    sufficient_region: Tensor | None = None
    n_dilations: int | None = None
    curve: tuple[float, ...] = field(default=(), repr=False)

    @property
    def dice_explained(self) -> float:
        """Dice explained at the method's first threshold (paper 3.4)."""
        return self.evaluations[0].dice_explained

    @property
    def perturbation_ratio(self) -> float:
        """Perturbation ratio at the method's first threshold (paper 3.4)."""
        return self.evaluations[0].perturbation_ratio

    def summary(self) -> dict[str, Any]:
        """Return the numbers without the arrays, ready for JSON."""
        return {
            "method": self.method,
            "class_id": self.target.class_id,
            "prediction_size": self.target.size,
            "n_dilations": self.n_dilations,
            "evaluations": [asdict(e) for e in self.evaluations],
            "seconds": self.seconds,
            "batch_size": self.batch_size,
            "precision": self.precision,
            "parameters": dict(self.parameters),
        }

    def plot(self) -> Figure:
        """Draw the image, the prediction, the sufficient region if there is one, and the map.

        Of a volume, the slice (along its first axis) that holds most of the target.
        """
        from misure.plotting import plot_map

        numbers = f"Dice {self.dice_explained:.3f}, ratio {self.perturbation_ratio:.2f}"
        return plot_map(
            self.image,
            self.target.region,
            self.saliency,
            titles=(f"Prediction, class {self.target.class_id}", f"{self.method}: {numbers}"),
            sufficient_region=self.sufficient_region,
            n_dilations=self.n_dilations,
        )

    def save(self, folder: str | Path, *, extra: Extra | None = None) -> Path:
        """Write ``saliency.npy``, ``arrays.npz``, ``explanation.png`` and ``manifest.json``.

        The folder appears whole or not at all. It replaces an explanation saved there before, and
        nothing else: other files in the folder stay. A process that is killed while it moves them leaves
        them in a folder beside it, of its name and 8 digits. What a killed process left half-written
        beside it is removed.

        Args:
            folder: Where to write; its parent is made when missing.
            extra: Called with the unfinished folder to write further files into it; what it returns is
                added to the manifest.

        Returns:
            The folder.

        Raises:
            MisureError: If the place cannot be written or holds something else.
        """
        check_arguments(Explanation.save, {"extra": extra})
        folder = path_of("folder", folder).absolute()
        folder = folder.resolve() if folder.is_symlink() else folder
        if folder.exists() and not _is_replaceable(folder):
            raise MisureError(f"cannot write {folder}: it holds something else; choose another folder")
        remove_abandoned(folder)
        partial = partial_of(folder, uuid4().hex)
        try:
            partial.mkdir(parents=True)
        except OSError as error:
            raise UnwritableError(f"cannot write {folder}: {error.strerror}; choose another folder") from error
        try:
            np.save(partial / "saliency.npy", self.saliency.numpy())
            np.savez_compressed(partial / "arrays.npz", **self._arrays())
            self.plot().savefig(partial / "explanation.png", dpi=150)
            versions = {"misure": package_version(), "torch": torch.__version__}
            manifest = {"schema": SCHEMA_VERSION, "versions": versions, **self.summary(), "curve": list(self.curve)}
            manifest |= extra(partial) if extra else {}
            manifest["files"] = sorted({*_SAVED, *(path.name for path in partial.iterdir())})
            (partial / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
            _move_into_place(partial, folder)
        except OSError as error:
            raise UnwritableError(
                f"cannot write {folder}: {error.strerror or error}; free space or choose another folder"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return folder

    def _arrays(self) -> dict[str, Any]:
        arrays = {"image": self.image, "region": self.target.region, "saliency": self.saliency}
        if self.sufficient_region is not None:
            arrays["sufficient_region"] = self.sufficient_region
        return {name: array.cpu().numpy() for name, array in arrays.items()}


def _is_replaceable(folder: Path) -> bool:
    """Say whether a folder is empty or an explanation saved earlier."""
    if not folder.is_dir():
        return False
    if not all((folder / name).is_file() for name in _SAVED):
        return not any(folder.iterdir())
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(manifest, dict) and {"schema", "method"} <= manifest.keys()


def _move_into_place(partial: Path, folder: Path) -> None:
    """Rename a finished folder, putting aside what it replaces until it is there, and move the user's files into it."""
    new = [path.name for path in partial.iterdir()]
    written = _files_of(folder) or new
    own = [path.name for path in folder.iterdir() if path.name not in written] if folder.exists() else []
    if taken := {*own} & {*new}:
        raise MisureError(f"cannot write {folder}: {min(taken)} there is of something else; choose another folder")
    old = folder.with_name(f"{folder.name}-{uuid4().hex[:8]}") if own else partial.with_name(f"{partial.name}.old")
    if folder.exists():
        folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    for name in own:
        (old / name).rename(folder / name)
    shutil.rmtree(old, ignore_errors=True)


def _files_of(folder: Path) -> list[str]:
    """Return the names of what an earlier explanation wrote, where it says so."""
    try:
        files = json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("files")
    except FileNotFoundError:
        return []
    return files if isinstance(files, list) else []
