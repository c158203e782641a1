"""Fashion-MNIST items (Xiao et al. 2017) from wherever they can be had, in the official IDX format."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from misure.datasets.available import Available
from misure.errors import MisureError
from misure.io.download import fetch, is_reachable
from misure.io.installed import DATA_FOLDER
from misure.io.reading import reading

Split = Literal["train", "val"]

SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package ``dataset-fashion-mnist`` puts the four official files."""

SHIPPED_FOLDER = DATA_FOLDER / "fashion_mnist_subset"
"""The subset that ships with the project: 1500 train and 300 test items of classes 0, 1, 2."""

_STEMS: dict[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "val": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_IDX_UBYTE = 0x08
_SIDE = 28
_MOST_BYTES = 100_000_000  # twice the largest official file, unpacked
_DOWNLOAD = "Fashion-MNIST, 31 MB, if a mirror answers"


@dataclass(frozen=True)
class Items:
    """Clothing items of the chosen classes.

    Attributes:
        images: uint8, K x 28 x 28.
        source: One line saying where they came from.
        fingerprint: First 16 hexadecimal digits of the SHA-256 of the pixels.
    """

    images: Tensor
    source: str
    fingerprint: str


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or gzipped.

    Args:
        path: The file.

    Returns:
        uint8 array of the shape its header states.

    Raises:
        MisureError: If the file is truncated, not gzip or not IDX.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    with reading(path, "delete it or replace it with the official file"), opened(path, "rb") as stream:
        raw = stream.read(_MOST_BYTES)
    n_dims = raw[3] if len(raw) > 3 else 0
    header = 4 + 4 * n_dims
    if raw[:3] != bytes([0, 0, _IDX_UBYTE]) or len(raw) < header:
        raise MisureError(f"{path} is not an IDX file of unsigned bytes: replace it with the official file")
    shape = struct.unpack(f">{n_dims}I", raw[4:header])
    expected = header + math.prod(shape)
    if len(raw) != expected:
        raise MisureError(
            f"{path} is truncated ({len(raw)} of {expected} bytes): delete it or replace it with the official file"
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape).copy()


def find_folder(data_root: Path, *, download: bool = True) -> tuple[Path, str]:
    """Choose the first source that has all four files.

    The order is: the data root, the system package's folder, torchvision's mirrors, the subset
    that ships with the project.

    Args:
        data_root: The user's data folder (``MISURE_DATA``).
        download: Whether torchvision's mirrors may be asked.

    Returns:
        The folder and one line that names the source.

    Raises:
        MisureError: If no source has the files.
    """
    local = [data_root / name for name in ("fashion-mnist", "fashion_mnist", "FashionMNIST/raw")]
    for folder in local:
        if _is_complete(folder):
            return folder, f"data root ({folder.name})"
    if _is_complete(SYSTEM_FOLDER):
        return SYSTEM_FOLDER, "system package dataset-fashion-mnist"
    if download and (reason := _download(local[-1])) is None:
        return local[-1], "torchvision download"
    if _is_complete(SHIPPED_FOLDER):
        return SHIPPED_FOLDER, "subset shipped with the project (1500 train, 300 test items)"
    raise MisureError(
        f"Fashion-MNIST was not found: put the four official .gz files into {local[0]} "
        f"({reason if download else 'downloads are switched off'})"
    )


def available(data_root: Path | str) -> Available:
    """Say which items :func:`find_folder` will choose; no server is asked."""
    ahead = partial(find_folder, Path(data_root))
    try:
        folder, source = find_folder(Path(data_root), download=False)
    except MisureError as error:
        return Available("real", f"torchvision's mirrors ({error})", download=_DOWNLOAD, fetch=ahead)
    if folder != SHIPPED_FOLDER:
        return Available("real", f"Fashion-MNIST, {source}", {"download": False})
    return Available("real", f"Fashion-MNIST, {source}", {"download": False}, _DOWNLOAD, fetch=ahead)


def load_items(split: Split, classes: Sequence[int], data_root: Path, *, download: bool = True) -> Items:
    """Load the items of one split.

    Args:
        split: ``"train"`` reads the official train files, ``"val"`` the official test files, so
            that the two never share an item.
        classes: Fashion-MNIST labels to keep, 0..9.
        data_root: The user's data folder.
        download: Whether torchvision's mirrors may be asked.

    Raises:
        MisureError: If the files are missing, damaged or hold no item of these classes.
    """
    folder, source = find_folder(data_root, download=download)
    images, labels = (read_idx(_find(folder, stem)) for stem in _STEMS[split])
    if images.shape[1:] != (_SIDE, _SIDE) or labels.ndim != 1:
        shapes = " and ".join(str(array.shape) for array in (images, labels))
        raise MisureError(
            f"{folder}: images and labels have shapes {shapes}, not (N, 28, 28) and (N,); replace both files"
        )
    if len(images) != len(labels):
        raise MisureError(f"{folder}: {len(images)} images but {len(labels)} labels; replace both files")
    kept = images[np.isin(labels, list(classes))]
    if not len(kept):
        raise MisureError(
            f"{source} holds no {split} item of classes {list(classes)}: choose among {np.unique(labels)}"
        )
    return Items(torch.from_numpy(kept), source, hashlib.sha256(kept.tobytes()).hexdigest()[:16])


def _find(folder: Path, stem: str) -> Path:
    for name in (f"{stem}.gz", stem):
        if (folder / name).is_file():
            return folder / name
    return folder / stem


def _is_complete(folder: Path) -> bool:
    return all(_find(folder, stem).is_file() for stems in _STEMS.values() for stem in stems)


def _download(folder: Path) -> str | None:
    """Fetch the four files with torchvision's own list of mirrors; return why that failed, or None."""
    from torchvision.datasets import FashionMNIST

    mirrors = [m for m in FashionMNIST.mirrors if is_reachable(m)]
    if not mirrors:
        return "the network is unreachable"
    try:
        for name, md5 in FashionMNIST.resources:
            fetch(mirrors[0] + name, folder / name, digest=md5, algorithm="md5")
    except (MisureError, OSError) as error:
        return str(error)
    return None
