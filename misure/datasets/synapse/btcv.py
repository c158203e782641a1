"""From volumes in the official BTCV layout to axial slices in TransUNet's layout."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from misure.datasets.synapse.prepared import (
    Manifest,
    PreparedCase,
    RejectedCase,
    Slice,
    SourceFile,
    make_folders,
    output_files,
    walk,
    write_slices,
    write_volume,
)
from misure.datasets.synapse.protocol import (
    HU_WINDOW,
    LABEL_MAP,
    LAST_LABEL_ID,
    OFFICIAL,
    OWN,
    OWN_CASES,
    TEST_SCANS,
    compare_with_published,
    split_of,
)
from misure.errors import MisureError
from misure.io.download import file_digest
from misure.io.nifti import Volume, VolumeError, grid_difference, radiological, read_nifti

_NAME = re.compile(r"(img|label)(\d{4})\.nii\.gz")
_CLASS_OF = np.zeros(LAST_LABEL_ID + 1, np.uint8)
_CLASS_OF[list(LABEL_MAP)] = list(LABEL_MAP.values())
_SETTINGS: dict[str, object] = {
    "hu_window": list(HU_WINDOW),
    "label_map": {str(label): number for label, number in LABEL_MAP.items()},
    "orientation": "rows front to back, columns patient's right to left, slices feet to head",
}


@dataclass(frozen=True)
class Pair:
    """The files of one case id, usually one image and one label."""

    case: int
    images: list[Path] = field(default_factory=list)
    labels: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The case's name in the prepared files."""
        return f"case{self.case:04d}"

    def only(self) -> tuple[Path, Path]:
        """The image and the label.

        Raises:
            VolumeError: If one is missing or there are several.
        """
        for kind, paths in (("image", self.images), ("label", self.labels)):
            if len(paths) > 1:
                raise VolumeError(f"{kind} was found {len(paths)} times, keep one: {', '.join(map(str, paths))}")
            if not paths:
                raise VolumeError(f"missing partner: there is no {kind} of this number")
        return self.images[0], self.labels[0]

    def files(self) -> tuple[SourceFile, ...]:
        """Name, size and time of the files."""
        stats = [(path, path.stat()) for path in (*self.images, *self.labels)]
        return tuple(SourceFile(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats)


@dataclass(frozen=True)
class Preparation:
    """What preparing came to.

    Attributes:
        folder: Where the slices are.
        manifest: What is there.
        n_new: How many cases were prepared now; the others were there already.
    """

    folder: Path
    manifest: Manifest
    n_new: int

    @property
    def lost(self) -> dict[str, RejectedCase]:
        """Rejected cases, without BTCV's unlabelled test scans, which nobody can use."""
        tests = {f"case{case:04d}" for case in TEST_SCANS}
        return {name: rejected for name, rejected in self.manifest.rejected.items() if name not in tests}

    @property
    def summary(self) -> str:
        """Counts, the comparison with the published ones, and every rejected file with its reason."""
        cases, train, val = self.manifest.cases, self.manifest.slices("train"), self.manifest.slices("val")
        counts = f"{train} training and {val} validation slices of {len(cases)} volumes"
        lines = [f"{self.folder}: {counts} ({self.manifest.origin}; {self.n_new} prepared now)"]
        if self.manifest.origin == OFFICIAL:
            lines.append(compare_with_published(self.manifest))
        reasons: dict[str, list[str]] = defaultdict(list)
        for name, rejected in self.manifest.rejected.items():
            reasons[rejected.reason].append(", ".join(file.name for file in rejected.files) or name)
        lines += [f"rejected: {'; '.join(names)}: {reason}" for reason, names in reasons.items()]
        return "\n".join(lines)


def find_pairs(source: Path) -> list[Pair]:
    """Find the official files by name, in whatever folders of the archive, symbolic links followed."""
    pairs: dict[int, Pair] = {}
    for folder, names in walk(source):
        for match in filter(None, map(_NAME.fullmatch, sorted(names))):
            pair = pairs.setdefault(int(match[2]), Pair(int(match[2])))
            if (path := folder / match[0]).is_file():
                (pair.images if match[1] == "img" else pair.labels).append(path)
    return [pairs[case] for case in sorted(pairs)]


def prepare(source: Path, target: Path, *, origin: str | None = None) -> Preparation:
    """Turn volumes in the official layout into slices; go on where an earlier call was interrupted.

    A case is made again only if the size or time of its files, its slices or the settings changed.
    One volume is in memory at a time. Cases that left ``source`` leave ``target`` as well.

    Args:
        source: A folder with ``img0001.nii.gz``, ``label0001.nii.gz`` and so on, at any depth.
        target: Where ``train_npz``, ``test_vol_h5`` and ``manifest.json`` go.
        origin: What kind of volumes they are; by default what their ids say.

    Raises:
        MisureError: If there are no such files, or official and own volumes are mixed, or the disk does
            not take the slices. A volume that cannot be used is rejected and does not stop the others.
    """
    pairs = find_pairs(source)
    if not pairs:
        raise MisureError(f"{source} holds no img????.nii.gz: name the folder of the unpacked archive")
    if len({pair.case > OWN_CASES for pair in pairs}) > 1:
        raise MisureError(
            f"{source} holds official BTCV volumes and own ones (ids above {OWN_CASES}): "
            "keep one kind, the other under another data_root"
        )
    origin = origin or (OWN if pairs[0].case > OWN_CASES else OFFICIAL)
    manifest = _earlier(target, origin)
    due = [pair for pair in pairs if not _is_current(pair, manifest, target)]
    gone = (manifest.cases.keys() | manifest.rejected.keys()) - {pair.name for pair in pairs}
    if due or gone or not manifest.complete:
        manifest.complete = False
        make_folders(target)
        for name in gone:
            _forget(name, manifest, target)
        for pair in tqdm(due, desc="preparing volumes", unit="volume", disable=None):
            _forget(pair.name, manifest, target)
            _add(pair, manifest, target)
            manifest.save(target)
        manifest.complete = True
        manifest.save(target)
    return Preparation(target, manifest, sum(pair.name in manifest.cases for pair in due))


def read_case(image: Path, label: Path) -> tuple[Volume, Volume]:
    """Read one case and check that it can be used.

    Returns:
        Scan in Hounsfield units and labels with BTCV's ids, on the same grid.

    Raises:
        VolumeError: If a file is damaged, the grids differ, or values are not Hounsfield units or label ids.
    """
    scan, labels = read_nifti(image), read_nifti(label)
    if difference := grid_difference(scan, labels):
        raise VolumeError(difference)
    if not np.isfinite(scan.voxels).all():
        raise VolumeError("image has values that are not finite")
    if scan.voxels.min() >= 0:
        raise VolumeError("image has no value below 0, so these are not Hounsfield units")
    if not 0 <= labels.voxels.min() <= labels.voxels.max() <= LAST_LABEL_ID or (labels.voxels % 1).any():
        unknown = set(np.unique(labels.voxels).tolist()) - set(range(LAST_LABEL_ID + 1))
        shown = ", ".join(f"{value:g}" for value in sorted(unknown)[:5])
        raise VolumeError(f"unknown label value {shown}: BTCV's ids are 0 to {LAST_LABEL_ID}")
    return scan, labels


def slices_of(scan: Volume, labels: Volume) -> Iterator[Slice]:
    """Image in [0, 1] and classes of every axial slice, in radiological view."""
    low, high = HU_WINDOW
    for hu, ids in zip(radiological(scan.voxels), radiological(labels.voxels), strict=True):
        image = (np.clip(hu, low, high).astype(np.float32) - low) / (high - low)
        yield image, _CLASS_OF[ids.astype(np.uint8)]


def _earlier(target: Path, origin: str) -> Manifest:
    """The manifest to go on with: empty where there was none or it was made with other settings."""
    if (manifest := Manifest.load(target)) is None:
        return Manifest(origin, _SETTINGS)
    if manifest.origin != origin:
        raise MisureError(
            f"{target} was made from {manifest.origin}, not {origin}: delete it or choose another data_root"
        )
    if manifest.settings != _SETTINGS:
        for name in manifest.cases:
            _remove_outputs(name, target)
        return Manifest(origin, _SETTINGS)
    return manifest


def _is_current(pair: Pair, manifest: Manifest, target: Path) -> bool:
    entry = manifest.cases.get(pair.name) or manifest.rejected.get(pair.name)
    files = pair.files()
    if entry is None or len(entry.files) != len(files):
        return False
    if not all(old.is_same(new) for old, new in zip(entry.files, files, strict=True)):
        return False
    return isinstance(entry, RejectedCase) or entry.output_bytes == _output_bytes(pair.name, target)


def _add(pair: Pair, manifest: Manifest, target: Path) -> None:
    """Prepare one case, or write down why it cannot be."""
    files = pair.files()
    try:
        split = split_of(pair.case)
        image, label = pair.only()
        scan, labels = read_case(image, label)
    except VolumeError as error:
        manifest.rejected[pair.name] = RejectedCase(str(error), files)
        return
    shape = radiological(scan.voxels).shape
    if split == "train":
        write_slices(target, pair.name, slices_of(scan, labels))
    else:
        write_volume(target, pair.name, shape, slices_of(scan, labels))
    digests = (file_digest(path) for path in (image, label))
    files = tuple(replace(file, sha256=digest) for file, digest in zip(files, digests, strict=True))
    n_bytes = _output_bytes(pair.name, target)
    manifest.cases[pair.name] = PreparedCase(split, shape[0], shape[1:], scan.spacing, n_bytes, files)


def _forget(name: str, manifest: Manifest, target: Path) -> None:
    manifest.cases.pop(name, None)
    manifest.rejected.pop(name, None)
    _remove_outputs(name, target)


def _remove_outputs(name: str, target: Path) -> None:
    for path in output_files(target, name):
        path.unlink(missing_ok=True)


def _output_bytes(name: str, target: Path) -> int:
    return sum(path.stat().st_size for path in output_files(target, name))
