"""Download of the part of COCO-2017 that the protocol needs, into the official layout.

The annotation archive is fetched once, for one file in it; then each image that
:func:`misure.datasets.coco.protocol.choose_images` draws, by its own address. The SHA-256 of every file that came and
passed its check is kept in ``downloads.json``, so that later runs notice any change. What is there and passes its
check, put there by hand or not, is never fetched or written again.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from tqdm import tqdm

from misure.datasets.coco.images import check_image
from misure.datasets.coco.protocol import choose_images, class_ids, read_annotations
from misure.datasets.coco.server import CocoServer, FileRecord, read_records, write_records
from misure.errors import MisureError, some
from misure.io.atomic import remove_abandoned, replacing
from misure.io.download import DamagedError, NotServedError, UnreachableError, fetch, file_digest, is_reachable
from misure.io.reading import ImageFileError, check_size, reading

ANNOTATIONS = "annotations/instances_val2017.json"
IMAGES = "val2017"
RECORDS = "downloads.json"

_MOST_BYTES = 2_000_000_000
"""Of an annotation file that is unpacked; COCO's have up to 0.5 GB."""

_NAMED = 5
"""How many files a message names."""

_Entry = Mapping[str, Any]
_Records = dict[str, FileRecord]


@dataclass
class CocoDownload:
    """What a download did; as text, a few lines for the user.

    Attributes:
        folder: ``<data_root>/coco``.
        needed: How many images the protocol needs.
        there: How many of them were there.
        fetched: Those that were downloaded, by file name.
        not_served: Those that the server does not have: its answer by file name.
        damaged: Those that came damaged at every attempt: the reason by file name.
        left_out: Reasons for entries of the annotation file that cannot be used.
    """

    folder: Path
    needed: int = 0
    there: int = 0
    fetched: dict[str, FileRecord] = field(default_factory=dict)
    not_served: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        megabytes = sum(record.bytes for record in self.fetched.values()) / 1e6
        here = f"{self.there + len(self.fetched)} of {self.needed} images are in {self.folder / IMAGES}"
        how = f"{len(self.fetched)} downloaded ({megabytes:.1f} MB), {self.there} skipped because they were there"
        lacking = f"{len(self.not_served)} not on the server: {_named(self.not_served)}" if self.not_served else ""
        unread = (
            f"{len(self.left_out)} entries of {ANNOTATIONS} left out: {some(self.left_out)}" if self.left_out else ""
        )
        return "\n".join(line for line in (f"COCO-2017: {here}: {how}", lacking, unread) if line)


def download_coco(
    data_root: Path | str, classes: Sequence[str], images_per_class: int, seed: int, server: CocoServer
) -> CocoDownload:
    """Make ``<data_root>/coco`` hold what ``dataset=coco`` reads; only what is missing is downloaded.

    Args:
        data_root: The user's data folder.
        classes: VOC labels that are explained.
        images_per_class: How many images of each are drawn.
        seed: Of the drawing.
        server: Where to download from.

    Raises:
        MisureError: If the network or the server fails, the disk does not take the files, or images stay damaged.
    """
    done = CocoDownload(Path(data_root) / "coco")
    labels = class_ids(classes)
    with _kept_records(done.folder / RECORDS) as records:
        coco, done.left_out = _annotations(done.folder, server, records)
        entries = [coco.imgs[image] for image in choose_images(coco, labels, images_per_class, seed)]
        missing = [
            entry
            for entry in tqdm(entries, unit="image", desc="checking images", leave=False)
            if not _is_good(done.folder / _place(entry), entry, records.get(_place(entry)))
        ]
        done.needed, done.there = len(entries), len(entries) - len(missing)
        if missing:
            _fetch_images(missing, server, records, done)
    here = done.there + len(done.fetched)
    if done.damaged:
        damage = f"{len(done.damaged)} of {done.needed} images came damaged, {here} are there"
        raise MisureError(f"{damage}: {_named(done.damaged)}; run this again")
    if done.not_served and not here:
        advice = "see dataset.prepare.server.images"
        raise MisureError(f"none of {done.needed} images is on the server: {_named(done.not_served)}; {advice}")
    return done


@contextlib.contextmanager
def _kept_records(path: Path) -> Iterator[_Records]:
    """Give the records of earlier downloads to add to, and write them however the block ends."""
    records = read_records(path)
    before = dict(records)
    try:
        yield records
    finally:
        if records != before:
            write_records(path, records)


def _annotations(folder: Path, server: CocoServer, records: _Records) -> tuple[COCO, list[str]]:
    """Read the annotation file, downloaded if it is missing or damaged."""
    path = folder / ANNOTATIONS
    try:
        read = read_annotations(path)
    except MisureError:
        _fetch_annotations(folder, server)
        read = read_annotations(path)
        records[ANNOTATIONS] = FileRecord.of(path, server.archive)
    else:
        if ANNOTATIONS in records and records[ANNOTATIONS].sha256 != file_digest(path):
            advice = f"delete it (for a new one) or {RECORDS} (to keep it)"
            raise MisureError(f"{path} has changed since {RECORDS} was written: {advice}")
    return read


def _fetch_annotations(folder: Path, server: CocoServer) -> None:
    """Download the archive, take one file out of it, checked by its CRC, and remove the archive."""
    path = folder / ANNOTATIONS
    archive = path.with_name(".annotations_trainval2017.zip")
    _require_server(server.archive, folder)
    try:
        fetch(server.archive, archive, digest=server.archive_sha256, patience=server.patience)
    except (UnreachableError, NotServedError, DamagedError) as error:
        raise MisureError(f"{error}; run this again, or {_by_hand(folder)}") from error
    remove_abandoned(path)
    try:
        with (
            reading("the annotation archive", "it is damaged or another one; run this again"),
            zipfile.ZipFile(archive) as members,
            members.open(ANNOTATIONS) as source,
            replacing(path) as partial,
            partial.open("wb") as out,
        ):
            check_size(path, members.getinfo(ANNOTATIONS).file_size, _MOST_BYTES)
            shutil.copyfileobj(source, out)
    finally:
        archive.unlink(missing_ok=True)


def _is_good(path: Path, entry: _Entry, record: FileRecord | None) -> bool:
    """Say whether an image is there and whole: by the hash of its download, or by decoding what was put there."""
    if not path.is_file():
        return False
    if record is not None:
        return file_digest(path) == record.sha256
    try:
        check_image(path, (entry["width"], entry["height"]))
    except ImageFileError:
        return False
    return True


def _fetch_images(missing: Sequence[_Entry], server: CocoServer, records: _Records, done: CocoDownload) -> None:
    """Download images; what the server lacks and what stays damaged is noted, anything else ends it."""
    stop = threading.Event()
    _require_server(server.address(missing[0]), done.folder, f"{len(missing)} of {done.needed} images are missing; ")
    with (
        ThreadPoolExecutor(server.threads) as pool,
        tqdm(total=len(missing), unit="image", desc="downloading images", leave=False) as bar,
    ):
        futures = {
            pool.submit(server.fetch_image, entry, done.folder / _place(entry), stop): entry for entry in missing
        }
        try:
            for future in as_completed(futures):
                entry = futures[future]
                name = str(entry["file_name"])
                try:
                    done.fetched[name] = records[_place(entry)] = future.result()
                except NotServedError as error:
                    done.not_served[name] = str(error)
                except DamagedError as error:
                    done.damaged[name] = str(error)
                bar.update()
        except UnreachableError as error:
            there = f"{done.there + len(done.fetched)} of {done.needed} images are there"
            raise MisureError(f"{error}; {there}: run this again to go on, or {_by_hand(done.folder)}") from error
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _require_server(url: str, folder: Path, situation: str = "") -> None:
    if not is_reachable(url):
        raise MisureError(f"{situation}{url} cannot be reached: connect to the network, or {_by_hand(folder)}")


def _by_hand(folder: Path) -> str:
    return f"put {ANNOTATIONS} and {IMAGES}/*.jpg into {folder} by hand"


def _place(entry: _Entry) -> str:
    """Return an image's path below COCO's folder; a name that leads elsewhere is refused."""
    name = str(entry["file_name"])
    if Path(name).name != name:
        raise MisureError(f"image {entry['id']} of the annotation file is called {name!r}, which is no plain file name")
    return f"{IMAGES}/{name}"


def _named(reasons: Mapping[str, str]) -> str:
    return some(list(reasons.values()), _NAMED)
