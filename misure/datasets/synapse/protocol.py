"""What is published about BTCV's 30 labelled volumes as TransUNet uses them: classes, window, split, counts.

"Multi-Atlas Labeling Beyond the Cranial Vault", Synapse syn3193805; Chen et al. 2021 for the protocol.
"""

from __future__ import annotations

from pathlib import Path

from misure.datasets.synapse.prepared import Manifest, Split
from misure.io.reading import ImageFileError

CLASS_NAMES = (
    "background",
    "aorta",
    "gallbladder",
    "left kidney",
    "right kidney",
    "liver",
    "pancreas",
    "spleen",
    "stomach",
)
HU_WINDOW = (-125, 275)
LABEL_MAP = {8: 1, 4: 2, 3: 3, 2: 4, 6: 5, 11: 6, 1: 7, 7: 8}
"""From BTCV's label ids to classes; the other ids up to ``LAST_LABEL_ID`` become background."""
LAST_LABEL_ID = 13

TRAIN_SLICES = {
    5: 117, 6: 131, 7: 163, 9: 149, 10: 148, 21: 143, 23: 96, 24: 124, 26: 131,
    27: 88, 28: 89, 30: 153, 31: 93, 33: 104, 34: 98, 37: 99, 39: 90, 40: 195,
}  # fmt: skip
"""The published 18 training cases and their numbers of slices, 2211 together."""
VAL_CASES = (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38)
VAL_SLICES = 1568
"""Slices of the 12 published validation cases."""

TEST_SCANS = range(61, 81)
"""BTCV's scans without public labels, in the same archive."""

OWN_CASES = 1000
"""Case ids above this one are a user's own volumes; every third of them is for validation."""
OFFICIAL, OWN = "official BTCV volumes", "own CT volumes"


def official_paths(folder: Path, case: int) -> tuple[Path, Path]:
    """Where the official layout has the image and the label of a case."""
    training = folder / "RawData" / "Training"
    return training / "img" / f"img{case:04d}.nii.gz", training / "label" / f"label{case:04d}.nii.gz"


def split_of(case: int) -> Split:
    """Which split a case id belongs to: published for BTCV, every third for own volumes.

    Raises:
        ImageFileError: If it is in none, as the ids of BTCV's unlabelled test scans.
    """
    if case in TRAIN_SLICES:
        return "train"
    if case in VAL_CASES:
        return "val"
    if case > OWN_CASES:
        return "val" if (case - OWN_CASES) % 3 == 0 else "train"
    raise ImageFileError("case id is in no published split")


def compare_with_published(manifest: Manifest) -> str:
    """Say whether all published slices came out, and otherwise which cases do not fit."""
    train, val = manifest.slices("train"), manifest.slices("val")
    expected = f"{sum(TRAIN_SLICES.values())} training and {VAL_SLICES} validation slices"
    missing = [f"{case:04d}" for case in sorted((*TRAIN_SLICES, *VAL_CASES)) if f"case{case:04d}" not in manifest.cases]
    if missing:
        return f"published: {expected}; missing cases: {', '.join(missing)}"
    counts = {case: manifest.cases[f"case{case:04d}"].slices for case in TRAIN_SLICES}
    other = [
        f"{case:04d} ({n}, published {TRAIN_SLICES[case]})" for case, n in counts.items() if n != TRAIN_SLICES[case]
    ]
    if (train, val) == (sum(TRAIN_SLICES.values()), VAL_SLICES):
        return f"all published slices came out: {expected}"
    return f"NOT the published {expected}; cases with another number of slices: {', '.join(other) or 'in validation'}"
