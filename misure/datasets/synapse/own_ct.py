"""A user's own CT scans, as NIfTI files or DICOM series, brought into the official BTCV layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from misure.datasets.synapse.protocol import LAST_LABEL_ID, OWN_CASES, official_paths
from misure.errors import MisureError, did_you_mean
from misure.io.atomic import replacing
from misure.io.dicom import read_series
from misure.io.nifti import VolumeError, grid_difference, read_nifti, write_nifti

TOTALSEGMENTATOR_IDS: Mapping[int, int] = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 7, 7: 11, 52: 8}
"""From TotalSegmentator's ids (task ``total``) to BTCV's: spleen, right and left kidney, gallbladder,
liver, stomach, pancreas, aorta."""

LABEL_IDS: Mapping[str, Mapping[int, int] | None] = {"btcv": None, "totalsegmentator": TOTALSEGMENTATOR_IDS}
"""How labels may be numbered; None means BTCV's own ids."""

RECORD = "sources.json"
_ENDINGS = (".nii.gz", ".nii")


def to_official(
    image: Path, label: Path, folder: Path, case: int, label_ids: Mapping[int, int] | None = None
) -> tuple[Path, Path]:
    """Write a scan and its labels under BTCV's names and label ids.

    Args:
        image: A NIfTI file, or a folder with one DICOM series.
        label: A NIfTI file on the same grid; its axes may be permuted or flipped.
        folder: Files go to ``RawData/Training/img`` and ``RawData/Training/label`` in it.
        case: Number in the file names, 1 to 9999; see :func:`misure.datasets.synapse.protocol.split_of`.
        label_ids: From the label's ids to BTCV's, all others become 0; None keeps ids as they are.

    Returns:
        The two files.

    Raises:
        VolumeError: If a file is damaged or the grids differ.
        MisureError: If the case or a label id is out of range, or the disk does not take the files.
    """
    if not 1 <= case <= 9999:
        raise MisureError(f"case={case} is not a number from 1 to 9999")
    scan = read_series(image) if image.is_dir() else read_nifti(image)
    labels = read_nifti(label)
    if difference := grid_difference(scan, labels):
        raise VolumeError(f"{image} and {label}: {difference}")
    paths = official_paths(folder, case)
    write_nifti(paths[0], scan.voxels, scan.affine)
    write_nifti(paths[1], labels.voxels if label_ids is None else _renumber(labels.voxels, label_ids), scan.affine)
    return paths


@dataclass(frozen=True)
class Own:
    """One of a user's volumes."""

    name: str
    image: Path
    label: Path

    def stamp(self, labels: str) -> list[object]:
        """What tells whether it has to be converted again."""
        parts = sorted(self.image.iterdir()) if self.image.is_dir() else [self.image]
        stats = [(path.name, path.stat()) for path in [*parts, self.label]]
        return [self.name, labels, [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]]


def convert_folder(source: Path, folder: Path, labels: str = "btcv") -> dict[str, str]:
    """Convert all volumes of a folder; go on where an earlier call was interrupted.

    Volumes are numbered by :func:`case_ids` in the order of their names; ``sources.json`` in
    ``folder`` says which is which.

    Args:
        source: Has ``images/`` (NIfTI files, or one folder for each DICOM series) and ``labels/``
            (NIfTI files of the same names).
        folder: Where the official layout is made; cases that left ``source`` are removed from it.
        labels: Numbering of the labels: ``btcv`` or ``totalsegmentator``.

    Returns:
        The volumes that could not be converted, with the reason.

    Raises:
        MisureError: If the folders are missing or no image has a label.
    """
    if labels not in LABEL_IDS:
        raise MisureError(f"labels={labels} is not known{did_you_mean(labels, LABEL_IDS)}")
    volumes, rejected = _volumes(source)
    record = _read_record(folder)
    numbered = dict(zip(case_ids(len(volumes)), volumes, strict=True))
    for case in sorted(record.keys() - numbered.keys()):
        _forget(folder, case, record)
        _write_record(folder, record)
    for case, volume in tqdm(numbered.items(), desc="converting volumes", unit="volume", disable=None):
        stamp = volume.stamp(labels)
        if record.get(case) == stamp and all(path.is_file() for path in official_paths(folder, case)):
            continue
        _forget(folder, case, record)
        try:
            to_official(volume.image, volume.label, folder, case, LABEL_IDS[labels])
            record[case] = stamp
        except VolumeError as error:
            rejected[volume.name] = str(error)
        _write_record(folder, record)
    return rejected


def case_ids(n: int) -> list[int]:
    """Case ids for ``n`` own volumes: 1001, 1002 and so on, of which every third is for validation.

    Of one or two volumes, the last gets 1003, so that there always is one for validation.
    """
    ids = [OWN_CASES + number for number in range(1, n + 1)]
    return [*ids[:-1], OWN_CASES + 3] if 0 < n < 3 else ids


def own_names(folder: Path) -> dict[int, str]:
    """Which of the user's volumes each converted case id is."""
    return {case: stamp[0] for case, stamp in sorted(_read_record(folder).items())}


def _volumes(source: Path) -> tuple[list[Own], dict[str, str]]:
    """The volumes that have image and label, and the others with the reason."""
    images, labels = (_entries(source / part) for part in ("images", "labels"))
    rejected = dict.fromkeys(labels.keys() - images.keys(), "missing partner: no image")
    rejected |= dict.fromkeys(images.keys() - labels.keys(), "missing partner: no label")
    volumes = [Own(name, images[name], labels[name]) for name in sorted(images.keys() & labels.keys())]
    if not volumes:
        raise MisureError(f"{source}: no entry of images/ has a NIfTI file of the same name in labels/")
    return volumes, rejected


def _entries(folder: Path) -> dict[str, Path]:
    """NIfTI files and sub-folders by name, without endings."""
    if not folder.is_dir():
        raise MisureError(
            f"{folder} is not a folder: a source has either the official img????.nii.gz and label????.nii.gz, "
            "or images/ and labels/ with entries of the same names"
        )
    entries: dict[str, Path] = {}
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        ending = next((ending for ending in _ENDINGS if path.name.endswith(ending)), None)
        if path.is_dir() or ending:
            name = path.name.removesuffix(ending or "")
            if name in entries:
                raise MisureError(f"{folder} has {entries[name].name} and {path.name}: keep one of them")
            entries[name] = path
    return entries


def _renumber(labels: np.ndarray, label_ids: Mapping[int, int]) -> np.ndarray:
    if not set(label_ids.values()) <= set(range(LAST_LABEL_ID + 1)):
        raise MisureError(f"label_ids must lead to BTCV's ids 0 to {LAST_LABEL_ID}, not {dict(label_ids)}")
    renumbered = np.zeros(labels.shape, np.uint8)
    for given, official in label_ids.items():
        renumbered[labels == given] = official
    return renumbered


def _read_record(folder: Path) -> dict[int, Any]:
    try:
        return {int(case): stamp for case, stamp in json.loads((folder / RECORD).read_text()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise MisureError(f"{folder / RECORD} is damaged: delete {folder} and run the command again") from error


def _write_record(folder: Path, record: dict[int, Any]) -> None:
    with replacing(folder / RECORD) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n")


def _forget(folder: Path, case: int, record: dict[int, Any]) -> None:
    record.pop(case, None)
    for path in official_paths(folder, case):
        path.unlink(missing_ok=True)
