"""Synapse multi-organ CT (BTCV, eight organs): axial slices for training, whole volumes for evaluation."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from misure.datasets.synapse.prepared import TRAIN_FOLDER, VAL_FOLDER, Manifest, Split, slice_path, volume_path
from misure.datasets.synapse.protocol import CLASS_NAMES
from misure.datasets.synapse.source import PreparedFolder, locate
from misure.datasets.synthetic.phantom import PhantomSpec
from misure.errors import MisureError
from misure.io.download import file_digest
from misure.io.reading import reading
from misure.io.volume import whole_numbers
from misure.randomness import integers, uniform
from misure.validation import Ordinal, Side

_SLICE_NAME = re.compile(r"(case\d{4})_slice(\d{3,})\.npz")
_VOLUME_NAME = re.compile(r"(case\d{4})\.npy\.h5")
_ADVICE = "delete it and prepare the data again"
_LARGEST_ANGLE = 20

# What a draw of the augmentation is for: the last part of its random key.
_WHETHER, _HOW, _TURNS, _AXIS, _ANGLE = range(5)


class SynapseDataset(Dataset[dict[str, Tensor]]):
    """Slices of the training or the validation volumes, as TransUNet's protocol has them.

    Each entry is a dict of ``image`` (float32, 1 x size x size in [0, 1]), ``mask`` (int64, size x
    size, 0 to 8) and ``index``. A slice is read and resized when it is first asked for and then kept:
    0.25 MB each at 224, so at most 0.6 GB for all of BTCV's training slices (in every loading process).

    Augmentation is TransUNet's, but after resizing to ``size`` rather than before: with probability
    one half a turn by a multiple of 90 degrees and a flip, otherwise with probability one half a
    rotation by -20 to 19 degrees. It is keyed by (seed, index, pass over the data), see
    :class:`misure.datasets.datamodule.InPasses`.

    Args:
        split: ``"train"`` or ``"val"``; the two use different volumes, BTCV's of different patients.
        data_root: Folder whose ``synapse`` is searched for data.
        stand_in: Where phantoms may be generated if there is none; None means nowhere.
        allow_stand_in: False means nowhere as well.
        size: Side of the slices.
        augment: Whether to augment.
        seed: Same seed, same augmentation.
        phantom: What phantoms look like.
    """

    class_names: Sequence[str] = CLASS_NAMES

    def __init__(
        self,
        split: Split,
        data_root: Path | str,
        stand_in: Path | str | None = None,
        size: Side = 224,
        *,
        allow_stand_in: bool = True,
        augment: bool = False,
        seed: Ordinal = 0,
        phantom: PhantomSpec | None = None,
    ) -> None:
        self.split = split
        self.size = size
        self.augment = augment
        self.seed = seed
        generated = Path(stand_in) if stand_in and allow_stand_in else None
        self.location: PreparedFolder = locate(Path(data_root), generated, phantom)
        self._manifest = Manifest.load(self.location.folder)
        self._slices = self._list_slices()
        self._resized: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        if not self._slices:
            raise MisureError(f"{self.location.folder} has no {split} slice: prepare volumes of both splits")

    @property
    def source(self) -> str:
        """Where the slices come from."""
        return self.location.source

    @property
    def stand_in(self) -> bool:
        """Whether the slices are generated phantoms, not patients."""
        return self.location.stand_in

    @property
    def fingerprint(self) -> str:
        """Identity of the data: split, size, settings and the very files used (16 hex digits)."""
        identity = [self.split, self.size, self.augment, self.seed if self.augment else None, self._content()]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the split's volumes, in order."""
        return tuple(sorted({case for case, _ in self._slices}))

    def group(self, index: int) -> str:
        """The volume a slice belongs to."""
        return self._slices[index][0]

    def volume(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        """A whole volume at its own resolution.

        Args:
            case: One of :attr:`cases`.

        Returns:
            Image (float32 in [0, 1]) and label (uint8), both Z x H x W from feet to head.

        Raises:
            MisureError: If there is no such case or a file is damaged.
        """
        own = [entry for entry in self._slices if entry[0] == case]
        if not own:
            raise MisureError(f"{case} is not a {self.split} case: {', '.join(self.cases)}")
        images, labels = zip(*(self._read(*entry) for entry in own), strict=True)
        return np.stack(images), np.stack(labels)

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.in_pass(index, 0)

    def in_pass(self, index: int, number: int) -> dict[str, Tensor]:
        """Return an entry as the pass with a number over the dataset shows it, if it is augmented."""
        if not 0 <= index < len(self):
            raise IndexError(f"slice {index} of {len(self)}")
        if index not in self._resized:
            image, label = self._read(*self._slices[index])
            self._resized[index] = (resize_image(image, self.size), resize_label(label, self.size))
        image, label = self._resized[index]
        if self.augment:
            image, label = augment(image, label, (self.seed, index, number))
        return {
            "image": torch.tensor(image)[None],
            "mask": torch.tensor(label, dtype=torch.int64),
            "index": torch.tensor(index),
        }

    def _list_slices(self) -> list[tuple[str, int]]:
        """Case and number of every slice, in order; only finished cases where a manifest tells them."""
        folder = self.location.folder
        if self.split == "train":
            matches = filter(None, (_SLICE_NAME.fullmatch(p.name) for p in (folder / TRAIN_FOLDER).iterdir()))
            slices = sorted((match[1], int(match[2])) for match in matches)
        else:
            names = filter(None, (_VOLUME_NAME.fullmatch(p.name) for p in (folder / VAL_FOLDER).iterdir()))
            slices = [(case, n) for case in sorted(name[1] for name in names) for n in range(self._depth(case))]
        return [entry for entry in slices if self._manifest is None or entry[0] in self._manifest.cases]

    def _depth(self, case: str) -> int:
        path = volume_path(self.location.folder, case)
        with reading(path, _ADVICE), h5py.File(path, "r") as file:
            return len(file["image"])

    def _read(self, case: str, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and label of a slice as they are stored; files are open only while they are read."""
        folder = self.location.folder
        path = slice_path(folder, case, number) if self.split == "train" else volume_path(folder, case)
        with reading(path, _ADVICE):
            if self.split == "train":
                with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                    image, label = file["image"], file["label"]
            else:
                with h5py.File(path, "r") as file:
                    image, label = file["image"][number], file["label"][number]
        label = whole_numbers(label, f"{path}: ")
        for value in (label.min(initial=0), label.max(initial=0)):
            if not 0 <= value < len(CLASS_NAMES):
                raise MisureError(f"{path} has label {value}: the eight organs are 1 to {len(CLASS_NAMES) - 1}")
        return image.astype(np.float32), label.astype(np.uint8)

    def _content(self) -> object:
        """What the fingerprint says about the files."""
        if self._manifest:
            cases = self._manifest.cases
            return [self._manifest.settings, [[f.sha256 for f in cases[case].files] for case in self.cases]]
        part = self.location.folder / (TRAIN_FOLDER if self.split == "train" else VAL_FOLDER)
        stats = {path: path.stat() for path in part.iterdir()}
        return sorted((path.name, _digest(path, stat.st_size, stat.st_mtime_ns)) for path, stat in stats.items())


@cache
def _digest(path: Path, _size: int, _mtime: int) -> str:
    """A file's digest, asked for once as long as its size and time stay."""
    return file_digest(path)


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """Resize an image with cubic splines as TransUNet does, without values outside [0, 1].

    (scipy's default mode blanks the last row or column where rounding puts it just outside.)

    Args:
        image: H x W in [0, 1].
        size: Side of the result.
    """
    factors = (size / image.shape[0], size / image.shape[1])
    return ndimage.zoom(image, factors, order=3, mode="mirror").clip(0, 1) if factors != (1, 1) else image


def resize_label(label: np.ndarray, size: int) -> np.ndarray:
    """Resize a label map of H x W by nearest neighbours."""
    return ndimage.zoom(label, (size / label.shape[0], size / label.shape[1]), order=0, mode="nearest")


def augment(image: np.ndarray, label: np.ndarray, key: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Turn and flip, or rotate, or leave as it is: the same for image and label.

    Args:
        image: Square.
        label: Of the same shape.
        key: What decides the draws.
    """
    if uniform(*key, _WHETHER) < 0.5:
        turns, axis = int(integers(0, 3, *key, _TURNS)), int(integers(0, 1, *key, _AXIS))
        return _turn(image, turns, axis), _turn(label, turns, axis)
    if uniform(*key, _HOW) < 0.5:
        angle = int(integers(-_LARGEST_ANGLE, _LARGEST_ANGLE - 1, *key, _ANGLE))
        return _rotate(image, angle), _rotate(label, angle)
    return image, label


def _turn(array: np.ndarray, turns: int, axis: int) -> np.ndarray:
    return np.flip(np.rot90(array, turns), axis).copy()


def _rotate(array: np.ndarray, angle: int) -> np.ndarray:
    return ndimage.rotate(array, angle, order=0, reshape=False)
