"""A user's own CT scans: NIfTI files or DICOM series with labels, numbered as cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from misure.datasets.synapse.btcv import CaseFiles
from misure.datasets.synapse.protocol import LABEL_MAP, LAST_LABEL_ID, OWN_CASES, split_of
from misure.errors import MisureError
from misure.io.images import image_name, is_nifti

_BTCV_OF_TOTALSEGMENTATOR = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 7, 7: 11, 52: 8}
"""Task ``total`` of TotalSegmentator 2 (version 1 numbers otherwise).

Spleen, right and left kidney, gallbladder, liver, stomach, pancreas, aorta.
"""

LABEL_MAPS: Mapping[str, Mapping[int, int]] = {
    "btcv": LABEL_MAP,
    "totalsegmentator": {given: LABEL_MAP[btcv] for given, btcv in _BTCV_OF_TOTALSEGMENTATOR.items()},
}
"""From the ids in label files to classes, by the name of the numbering."""

LAST_LABEL_IDS: Mapping[str, int] = {"btcv": LAST_LABEL_ID, "totalsegmentator": 117}
"""The largest id of each numbering."""


def own_pairs(source: Path, numbered: Mapping[str, int] | None = None) -> tuple[list[CaseFiles], dict[str, str]]:
    """Find the volumes of a folder, numbered by :func:`case_ids` in the order of their names.

    Args:
        source: Has ``images/`` (NIfTI files, or one folder for each DICOM series) and ``labels/``
            (NIfTI files of the same names, on the same grid; axes may be permuted or flipped).
        numbered: Case ids that volumes were given before, by name.

    Returns:
        Image and label of each case; and the names that have only one of them, or are something else, with the reason.

    Raises:
        MisureError: If the folders are missing or no image has a label.
    """
    strange: dict[str, str] = {}
    images, labels = (_entries(source / part, strange) for part in ("images", "labels"))
    lonely = strange | dict.fromkeys(labels.keys() - images.keys(), "missing partner: no image")
    lonely |= dict.fromkeys(images.keys() - labels.keys(), "missing partner: no label")
    names = sorted(images.keys() & labels.keys())
    if not names:
        raise MisureError(f"{source}: no entry of images/ has a NIfTI file of the same name in labels/")
    cases = sorted((case, name) for name, case in case_ids(names, numbered or {}).items())
    return [CaseFiles(case, [images[name]], [labels[name]]) for case, name in cases], lonely


def case_ids(names: Sequence[str], numbered: Mapping[str, int]) -> dict[str, int]:
    """Case ids of own volumes by name: 1001, 1002 and so on, of which every third is for validation.

    A volume keeps the id that it was given before, also when it was away, and no other gets that: else one more volume
    would move those that a network was trained on to validation. Where none would be for validation, the last new one
    gets the next id that is.
    """
    new = [name for name in names if name not in numbered]
    ids = {name: numbered[name] for name in names if name in numbered}
    ids |= zip(new, count(max((OWN_CASES, *numbered.values())) + 1))
    if new and all(split_of(case) == "train" for case in ids.values()):
        ids[new[-1]] += (OWN_CASES - ids[new[-1]]) % 3
    return ids


def _entries(folder: Path, strange: dict[str, str]) -> dict[str, Path]:
    """NIfTI files and sub-folders by name, without endings; others go to ``strange``."""
    if not folder.is_dir():
        raise MisureError(
            f"{folder} is not a folder: a source has either the official img????.nii.gz and label????.nii.gz, "
            "or images/ and labels/ with entries of the same names"
        )
    entries: dict[str, Path] = {}
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if not path.exists():
            strange[f"{folder.name}/{path.name}"] = "a link to nothing"
        elif not path.is_dir() and not is_nifti(path):
            strange[f"{folder.name}/{path.name}"] = "neither NIfTI (.nii, .nii.gz) nor the folder of a DICOM series"
        else:
            name = path.name if path.is_dir() else image_name(path)
            if name in entries:
                raise MisureError(f"{folder} has {entries[name].name} and {path.name}: keep one of them")
            entries[name] = path
    return entries
