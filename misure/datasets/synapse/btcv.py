"""From CT volumes, in the official BTCV layout or a user's own, to axial slices in TransUNet's layout."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
    is_whole,
    make_folders,
    output_bytes,
    remove_outputs,
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
from misure.errors import MisureError, some
from misure.io.finding import walk
from misure.io.images import image_name, read_volume
from misure.io.locks import alone
from misure.io.reading import ImageFileError
from misure.io.volume import Volume, grid_difference, radiological, unknown_labels, whole_numbers

_OTHER_SETTINGS = -1
"""Bytes of a case that was prepared with other settings, which no files have."""

_NAME = re.compile(r"(img|label)(\d{4})\.nii\.gz")


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case id, usually one image (a file, or the folder of a DICOM series) and one label."""

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
            ImageFileError: If one is missing or there are several.
        """
        for kind, paths in (("image", self.images), ("label", self.labels)):
            if len(paths) > 1:
                raise ImageFileError(f"{kind} was found {len(paths)} times, keep one: {', '.join(map(str, paths))}")
            if not paths:
                raise ImageFileError(f"missing partner: there is no {kind} of this number")
        return self.images[0], self.labels[0]

    def files(self, *, digests: bool = False) -> tuple[SourceFile, ...]:
        """Name, size and time of the files, with or without their SHA-256."""
        return tuple(SourceFile.of(path, digest=digests) for path in (*self.images, *self.labels))


@dataclass(frozen=True)
class Preparation:
    """What preparing came to.

    Attributes:
        folder: Where the slices are.
        manifest: What is there.
        n_new: How many cases were prepared now; the others were there already.
        kept: Cases that stay as they are although their files are gone or have changed.
    """

    folder: Path
    manifest: Manifest
    n_new: int
    kept: tuple[str, ...] = ()

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


def find_pairs(source: Path) -> list[CaseFiles]:
    """Find the official files by name, in whatever folders of the archive, symbolic links followed.

    Raises:
        MisureError: If official and own volumes (ids above 1000) are mixed.
    """
    pairs: dict[int, CaseFiles] = {}
    for folder, names in walk(source):
        for match in filter(None, map(_NAME.fullmatch, sorted(names))):
            pair = pairs.setdefault(int(match[2]), CaseFiles(int(match[2])))
            if (path := folder / match[0]).is_file():
                (pair.images if match[1] == "img" else pair.labels).append(path)
    if len({case > OWN_CASES for case in pairs}) > 1:
        raise MisureError(
            f"{source} holds official BTCV volumes and own ones (ids above {OWN_CASES}): "
            "keep one kind, the other under another data_root"
        )
    return [pairs[case] for case in sorted(pairs)]


def prepare(
    pairs: Sequence[CaseFiles],
    target: Path,
    *,
    origin: str | None = None,
    label_map: Mapping[int, int] = LABEL_MAP,
    last_label_id: int = LAST_LABEL_ID,
    keep: bool = False,
) -> Preparation:
    """Turn volumes into slices; go on where an earlier call was interrupted.

    A case is made again only if the name, size or time of its files, its slices or the settings changed.
    One volume is in memory at a time. Cases that are no longer among ``pairs`` leave ``target`` as well.

    Args:
        pairs: The files, at least one pair.
        target: Where ``train_npz``, ``test_vol_h5`` and ``manifest.json`` go.
        origin: What kind of volumes they are; by default what their ids say.
        label_map: From label ids to classes; the other ids that the numbering has become background.
        last_label_id: The numbering's largest id: a volume with others is rejected.
        keep: Whether what is prepared stays whatever became of its files, as where it is only opened: a folder of raw
            files may be away for a moment.

    Raises:
        MisureError: If ``target`` was made from another kind of volumes, or the disk does
            not take the slices. A volume that cannot be used is rejected and does not stop the others.
    """
    origin = origin or (OWN if pairs[0].case > OWN_CASES else OFFICIAL)
    manifest, due, gone, kept = _left(pairs, target, origin, label_map, keep=keep)
    if not (due or gone) and manifest.complete:  # nothing is written: the folder may be read-only
        return Preparation(target, manifest, 0, kept)
    lock = target.with_name(f".{target.name}.lock")
    with alone(lock, lambda: print(f"{target}: another process prepares the volumes", flush=True)):
        manifest, due, gone, kept = _left(pairs, target, origin, label_map, keep=keep)
        manifest.complete = False
        manifest.numbers |= {image_name(pair.images[0]): pair.case for pair in pairs if pair.case > OWN_CASES}
        make_folders(target)
        manifest.save(target)
        for name in gone:
            _forget(name, manifest, target)
        for pair in tqdm(due, desc="preparing volumes", unit="volume", disable=None):
            _forget(pair.name, manifest, target)
            try:
                manifest.cases[pair.name] = _prepared(pair, target, label_map, last_label_id)
            except ImageFileError as error:
                manifest.rejected[pair.name] = RejectedCase(str(error), pair.files())
            manifest.save(target)
        manifest.complete = True
        manifest.save(target)
    return Preparation(target, manifest, sum(pair.name in manifest.cases for pair in due), kept)


def _left(
    pairs: Sequence[CaseFiles], target: Path, origin: str, label_map: Mapping[int, int], *, keep: bool
) -> tuple[Manifest, list[CaseFiles], set[str], tuple[str, ...]]:
    """Return what was prepared, the cases that are to be, and the names of those that are to go or are kept."""
    manifest = _earlier(target, origin, label_map)
    due = [pair for pair in pairs if not _is_current(pair, manifest, target)]
    gone = (manifest.cases.keys() | manifest.rejected.keys()) - {pair.name for pair in pairs}
    if not keep:
        return manifest, due, gone, ()
    left = {pair.name for pair in due if pair.name in manifest.cases and not _can_be_made_again(pair, manifest, target)}
    kept = tuple(sorted(left | gone & manifest.cases.keys()))
    if any(manifest.cases[name].output_bytes == _OTHER_SETTINGS for name in kept):
        raise MisureError(f"{target} was prepared with other settings: bring the files of {some(kept)} back first")
    return manifest, [pair for pair in due if pair.name not in left], set(), kept


def _can_be_made_again(pair: CaseFiles, manifest: Manifest, target: Path) -> bool:
    """Say whether slices are missing or of other settings while the files that they are made from are there."""
    return bool(pair.images and pair.labels) and not is_whole(target, pair.name, manifest.cases[pair.name])


def read_case(image: Path, label: Path, last_label_id: int = LAST_LABEL_ID) -> tuple[Volume, Volume]:
    """Read one case and check that it can be used.

    Args:
        image: A NIfTI file, or the folder of a DICOM series.
        label: A NIfTI file.
        last_label_id: Largest label id there may be.

    Returns:
        Scan in Hounsfield units and label ids as integers, on the same grid.

    Raises:
        ImageFileError: If a file is damaged, the grids differ, or values are not Hounsfield units or label ids.
    """
    scan, labels = read_volume(image), read_volume(label)
    if difference := grid_difference(scan, labels):
        raise ImageFileError(difference)
    if not np.isfinite(scan.voxels).all():
        raise ImageFileError("image has values that are not finite")
    if scan.voxels.min() >= 0:
        raise ImageFileError("image has no value below 0, so these are not Hounsfield units")
    ids = whole_numbers(labels.voxels)
    if (strange := (ids < 0) | (ids > last_label_id)).any():
        raise ImageFileError(
            f"{unknown_labels(ids[strange])}: ids are whole numbers, this numbering's 0 to {last_label_id}"
        )
    return scan, replace(labels, voxels=ids)


def slices_of(scan: Volume, labels: Volume, label_map: Mapping[int, int] = LABEL_MAP) -> Iterator[Slice]:
    """Image in [0, 1] and classes of every axial slice, in radiological view; ids outside the map are background."""
    low, high = HU_WINDOW
    class_of = np.zeros(max(*label_map, int(labels.voxels.max())) + 1, np.uint8)
    class_of[list(label_map)] = list(label_map.values())
    for hu, ids in zip(radiological(scan.voxels), radiological(labels.voxels), strict=True):
        image = (np.clip(hu, low, high).astype(np.float32) - low) / (high - low)
        yield image, class_of[ids]


def _earlier(target: Path, origin: str, label_map: Mapping[int, int]) -> Manifest:
    """The manifest to go on with; nothing that was made with other settings counts as whole."""
    settings: dict[str, object] = {
        "hu_window": list(HU_WINDOW),
        "label_map": {str(label): number for label, number in label_map.items()},
        "orientation": "rows front to back, columns patient's right to left, slices feet to head",
    }
    if (manifest := Manifest.load(target)) is None:
        return Manifest(origin, settings)
    if manifest.origin != origin:
        raise MisureError(
            f"{target} was made from {manifest.origin}, not {origin}: delete it or choose another data_root"
        )
    if manifest.settings != settings:
        cases = {name: replace(case, output_bytes=_OTHER_SETTINGS) for name, case in manifest.cases.items()}
        return Manifest(origin, settings, cases=cases, numbers=manifest.numbers)
    return manifest


def _is_current(pair: CaseFiles, manifest: Manifest, target: Path) -> bool:
    entry = manifest.cases.get(pair.name) or manifest.rejected.get(pair.name)
    if entry is None or [file.stamp for file in entry.files] != [file.stamp for file in pair.files()]:
        return False
    return isinstance(entry, RejectedCase) or is_whole(target, pair.name, entry)


def _prepared(pair: CaseFiles, target: Path, label_map: Mapping[int, int], last_label_id: int) -> PreparedCase:
    """Prepare one case.

    Raises:
        ImageFileError: If it cannot be.
    """
    split = split_of(pair.case)
    scan, labels = read_case(*pair.only(), last_label_id)
    shape = radiological(scan.voxels).shape
    if split == "train":
        write_slices(target, pair.name, slices_of(scan, labels, label_map))
    else:
        write_volume(target, pair.name, shape, slices_of(scan, labels, label_map))
    n_bytes, files = output_bytes(target, pair.name), pair.files(digests=True)
    return PreparedCase(split, shape[0], shape[1:], scan.spacing, n_bytes, files)


def _forget(name: str, manifest: Manifest, target: Path) -> None:
    manifest.cases.pop(name, None)
    manifest.rejected.pop(name, None)
    remove_outputs(target, name)
