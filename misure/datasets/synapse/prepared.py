"""TransUNet's layout of prepared CT slices, and the manifest that says what they were made from.

``train_npz/case0005_slice000.npz`` holds one training slice, ``test_vol_h5/case0001.npy.h5`` one
validation volume; both hold ``image`` (float32 in [0, 1]) and ``label`` (0 to 8).
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from misure.errors import MisureError
from misure.io.atomic import replacing
from misure.io.download import file_digest
from misure.io.finding import walk
from misure.io.reading import reading

Split = Literal["train", "val"]
Slice = tuple[np.ndarray, np.ndarray]
"""Image and label of one axial slice, both H x W."""

TRAIN_FOLDER = "train_npz"
VAL_FOLDER = "test_vol_h5"
MANIFEST = "manifest.json"
STAND_IN = "stand-in: phantom CT"
"""How the origin of generated volumes begins."""

_COMPRESSION = 1  # 3 times faster than the usual 6, and 14 % larger


@dataclass(frozen=True)
class SourceFile:
    """A file that a case was made from, or the folder of a DICOM series.

    Attributes:
        name: Without its folder.
        size: In bytes, of all files of a folder together.
        mtime_ns: When it was last changed.
        sha256: Only known once it was read; of a folder, that of its files' digests.
    """

    name: str
    size: int
    mtime_ns: int
    sha256: str = ""

    @classmethod
    def of(cls, path: Path, *, digest: bool) -> SourceFile:
        """Describe a file or folder, with or without reading it for its digest."""
        files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        stats = [file.stat() for file in files]
        sha256 = ""
        if digest:
            digests = [file_digest(file) for file in files]
            sha256 = hashlib.sha256("".join(digests).encode()).hexdigest() if path.is_dir() else digests[0]
        size, mtime = sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)
        return cls(path.name, size, mtime, sha256)

    @property
    def stamp(self) -> tuple[str, int, int]:
        """Whether the file changed is judged by these, without reading it."""
        return self.name, self.size, self.mtime_ns


@dataclass(frozen=True)
class PreparedCase:
    """A volume that is ready.

    Attributes:
        split: Where it belongs.
        slices: Number of axial slices.
        shape: Height and width of a slice.
        spacing: Size of a voxel in millimetres, X, Y, Z.
        output_bytes: Size of its files together.
        files: Image and label it was made from.
    """

    split: Split
    slices: int
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    output_bytes: int
    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class RejectedCase:
    """A volume that cannot be used, why, and its files."""

    reason: str
    files: tuple[SourceFile, ...]


@dataclass
class Manifest:
    """What a prepared folder holds.

    Attributes:
        origin: What kind of volumes it was made from.
        settings: How they were prepared: window, label map, orientation.
        complete: False while preparation is under way.
        cases: Prepared cases by name.
        rejected: Rejected cases by name.
        numbers: Case ids of own volumes by their names, also of those that are gone.
    """

    origin: str
    settings: dict[str, object]
    complete: bool = False
    cases: dict[str, PreparedCase] = field(default_factory=dict)
    rejected: dict[str, RejectedCase] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        with replacing(folder / MANIFEST) as partial:
            partial.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Manifest | None:
        """Read the manifest of a folder; None where there is none, as in TransUNet's own download.

        Raises:
            MisureError: If it is damaged.
        """
        path = folder / MANIFEST
        if not path.is_file():
            return None
        with reading(path, "delete it and run misure prepare again"):
            content = json.loads(path.read_text())
            cases = {name: _case(entry) for name, entry in content.pop("cases").items()}
            rejected = {name: RejectedCase(e["reason"], _files(e)) for name, e in content.pop("rejected").items()}
            return cls(**content, cases=cases, rejected=rejected)

    def slices(self, split: Split) -> int:
        """Number of prepared slices of a split."""
        return sum(case.slices for case in self.cases.values() if case.split == split)


def is_prepared(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return (folder / TRAIN_FOLDER).is_dir() and (folder / VAL_FOLDER).is_dir()


def make_folders(folder: Path) -> None:
    """Make the layout's two folders, even if one stays empty.

    Raises:
        MisureError: If the disk does not take them.
    """
    try:
        for part in (TRAIN_FOLDER, VAL_FOLDER):
            (folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MisureError(f"cannot make {folder}: {error.strerror or error}; choose another data_root") from error


def find_prepared(root: Path) -> list[Path]:
    """The folders under ``root`` that have this layout."""
    return [folder for folder, _ in walk(root) if is_prepared(folder)]


def slice_path(folder: Path, case: str, number: int) -> Path:
    """The file of one training slice."""
    return folder / TRAIN_FOLDER / f"{case}_slice{number:03d}.npz"


def volume_path(folder: Path, case: str) -> Path:
    """The file of one validation volume."""
    return folder / VAL_FOLDER / f"{case}.npy.h5"


def output_bytes(folder: Path, case: str) -> int:
    """Size of all files of a case together."""
    return sum(path.stat().st_size for path in _output_files(folder, case))


def is_whole(folder: Path, name: str, case: PreparedCase) -> bool:
    """Say whether the files of a case are as many and as large as they should be."""
    expected = case.slices if case.split == "train" else 1
    return len(_output_files(folder, name)) == expected and output_bytes(folder, name) == case.output_bytes


def remove_outputs(folder: Path, case: str) -> None:
    """Remove all files of a case, unfinished ones among them."""
    for path in _output_files(folder, case):
        path.unlink(missing_ok=True)


def write_slices(folder: Path, case: str, slices: Iterable[Slice]) -> None:
    """Write a training case, one file for each (image, label) slice."""
    for number, pair in enumerate(slices):
        with (
            replacing(slice_path(folder, case, number)) as partial,
            zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION) as archive,
        ):
            for name, array in zip(("image", "label"), pair, strict=True):
                with archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)


def write_volume(folder: Path, case: str, shape: tuple[int, ...], slices: Iterable[Slice]) -> None:
    """Write a validation case of Z x H x W from its (image, label) slices, one slice a chunk."""
    options: dict[str, Any] = {"chunks": (1, *shape[1:]), "compression": "gzip", "compression_opts": _COMPRESSION}
    with replacing(volume_path(folder, case)) as partial, h5py.File(partial, "w") as file:
        images = file.create_dataset("image", shape, np.float32, **options)
        labels = file.create_dataset("label", shape, np.uint8, **options)
        for number, (image, label) in enumerate(slices):
            images[number], labels[number] = image, label


def _output_files(folder: Path, case: str) -> list[Path]:
    return [path for part in (TRAIN_FOLDER, VAL_FOLDER) for path in (folder / part).glob(f"*{case}[_.]*")]


def _case(entry: dict[str, Any]) -> PreparedCase:
    shape, spacing = tuple(entry["shape"]), tuple(entry["spacing"])
    return PreparedCase(**{**entry, "shape": shape, "spacing": spacing, "files": _files(entry)})


def _files(entry: dict[str, Any]) -> tuple[SourceFile, ...]:
    return tuple(SourceFile(**file) for file in entry["files"])
