"""Download of the part of COCO-2017 that the protocol needs, into the official layout.

The annotation archive is fetched once, for one file in it; then each image that
:func:`misure.datasets.coco.protocol.choose_images` draws, by its own address. The SHA-256 of every file that passed its
check is kept in ``downloads.json``, so that later runs notice any change. What is there and passes its check is never
fetched or written again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pycocotools.coco import COCO
from tqdm import tqdm

from misure.datasets.coco.images import check_image
from misure.datasets.coco.protocol import choose_images, class_ids, read_annotations
from misure.datasets.coco.server import CocoServer, FileRecord, read_records, write_records
from misure.errors import MisureError, some
from misure.io.atomic import PARTIAL, replacing
from misure.io.download import DamagedError, NotServedError, UnreachableError, fetch, file_digest, is_reachable
from misure.io.loaded import ImageFileError
from misure.io.reading import reading

ANNOTATIONS = "annotations/instances_val2017.json"
IMAGES = "val2017"
RECORDS = "downloads.json"

_NAMED = 5
"""How many files a message names."""

_Entry = Mapping[str, Any]
_Records = dict[str, FileRecord]
_Result = TypeVar("_Result")


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
        note: What else a user should know.
    """

    folder: Path
    needed: int = 0
    there: int = 0
    fetched: dict[str, FileRecord] = field(default_factory=dict)
    not_served: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        megabytes = sum(record.bytes for record in self.fetched.values()) / 1e6
        here = f"{self.there + len(self.fetched)} of {self.needed} images are in {self.folder / IMAGES}"
        how = f"{len(self.fetched)} downloaded ({megabytes:.1f} MB), {self.there} skipped because they were there"
        lacking = f"{len(self.not_served)} not on the server: {_named(self.not_served)}" if self.not_served else ""
        return "\n".join(line for line in (f"COCO-2017: {here}: {how}", lacking, self.note) if line)


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
    with _alone_in(done.folder), _kept_records(done) as records:
        coco = _annotations(done.folder, server, records)
        entries = [coco.imgs[image] for image in choose_images(coco, labels, images_per_class, seed)]
        missing = _missing(entries, server.threads, records, done)
        if missing:
            _fetch_images(missing, server, records, done)
    if done.damaged:
        here = f"{done.there + len(done.fetched)} are there"
        raise MisureError(
            f"{len(done.damaged)} of {done.needed} images came damaged, {here}: {_named(done.damaged)}; run this again"
        )
    if done.not_served and not done.there and not done.fetched:
        advice = "see dataset.prepare.server.images"
        raise MisureError(f"none of {done.needed} images is on the server: {_named(done.not_served)}; {advice}")
    return done


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Make a folder, keep other downloads out of it and remove what a killed one left half-written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise MisureError(f"cannot write {folder}: {error.strerror}; choose another data_root") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MisureError(f"another process downloads into {folder}: wait until it has ended") from error
        for stray in folder.glob(f"*/.*{PARTIAL}"):
            with contextlib.suppress(OSError):
                stray.unlink()
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _kept_records(done: CocoDownload) -> Iterator[_Records]:
    """Give the records of earlier downloads to add to, and write them however the block ends.

    Where nothing was downloaded, a folder that cannot be written is no failure.
    """
    path = done.folder / RECORDS
    records = read_records(path)
    before = dict(records)
    try:
        yield records
    except BaseException:
        with contextlib.suppress(MisureError):  # the first error says more
            write_records(path, records)
        raise
    if records != before:
        try:
            write_records(path, records)
        except MisureError as error:
            if done.fetched:
                raise
            done.note = f"hashes are not kept: {error}"


def _annotations(folder: Path, server: CocoServer, records: _Records) -> COCO:
    """Read the annotation file, downloaded if it is missing or damaged."""
    path = folder / ANNOTATIONS
    try:
        coco, _ = read_annotations(path)
    except MisureError:
        coco = None
    if coco is None:
        _fetch_annotations(folder, server)
        coco, _ = read_annotations(path)
        records[ANNOTATIONS] = FileRecord.of(path, server.archive)
    elif ANNOTATIONS not in records:
        records[ANNOTATIONS] = FileRecord.of(path, None)
    elif records[ANNOTATIONS].sha256 != file_digest(path):
        advice = f"delete it (for a new one) or {RECORDS} (to keep it)"
        raise MisureError(f"{path} has changed since {RECORDS} was written: {advice}")
    return coco


def _fetch_annotations(folder: Path, server: CocoServer) -> None:
    """Download the archive, take one file out of it, checked by its CRC, and remove the archive."""
    path = folder / ANNOTATIONS
    archive = path.with_name(".annotations_trainval2017.zip")
    _require_server(server.archive, folder)
    try:
        fetch(server.archive, archive, digest=server.archive_sha256, patience=server.patience)
    except (UnreachableError, NotServedError, DamagedError) as error:
        raise MisureError(f"{error}; run this again, or {_by_hand(folder)}") from error
    try:
        with (
            reading("the annotation archive", "it is damaged or another one; run this again"),
            zipfile.ZipFile(archive) as members,
            members.open(ANNOTATIONS) as source,
            replacing(path) as partial,
            partial.open("wb") as out,
        ):
            shutil.copyfileobj(source, out)
    finally:
        archive.unlink()


def _missing(entries: Sequence[_Entry], threads: int, records: _Records, done: CocoDownload) -> list[_Entry]:
    """Check the images that are there, by their hash, or by decoding where none is known; return the others."""

    def check(entry: _Entry) -> FileRecord | None:
        path, record = done.folder / _place(entry), records.get(_place(entry))
        if not path.is_file():
            return None
        if record is not None:
            return record if file_digest(path) == record.sha256 else None
        try:
            check_image(path, (entry["width"], entry["height"]))
        except ImageFileError:
            return None
        return FileRecord.of(path, None)

    missing = []
    for entry, record in _in_parallel(check, entries, threads, "checking images"):
        if record is None:
            missing.append(entry)
        else:
            records[_place(entry)] = record
    done.needed, done.there = len(entries), len(entries) - len(missing)
    return missing


def _fetch_images(missing: Sequence[_Entry], server: CocoServer, records: _Records, done: CocoDownload) -> None:
    """Download images; what the server lacks and what stays damaged is noted, anything else ends it."""
    stop = threading.Event()

    def fetch_one(entry: _Entry) -> FileRecord | NotServedError | DamagedError:
        try:
            return server.fetch_image(entry, done.folder / _place(entry), stop)
        except (NotServedError, DamagedError) as error:
            return error

    _require_server(server.address(missing[0]), done.folder, f"{len(missing)} of {done.needed} images are missing; ")
    try:
        for entry, result in _in_parallel(fetch_one, missing, server.threads, "downloading images", stop):
            name = str(entry["file_name"])
            if isinstance(result, FileRecord):
                done.fetched[name] = records[_place(entry)] = result
            else:
                (done.damaged if isinstance(result, DamagedError) else done.not_served)[name] = str(result)
    except UnreachableError as error:
        there = f"{done.there + len(done.fetched)} of {done.needed} images are there"
        raise MisureError(f"{error}; {there}: run this again to go on, or {_by_hand(done.folder)}") from error


def _in_parallel(
    task: Callable[[_Entry], _Result],
    entries: Sequence[_Entry],
    threads: int,
    title: str,
    stop: threading.Event | None = None,
) -> Iterator[tuple[_Entry, _Result]]:
    """Yield every image with its result, in the order of completion, with one progress bar; an error ends it all."""
    with ThreadPoolExecutor(threads) as pool, tqdm(total=len(entries), unit="image", desc=title, leave=False) as bar:
        futures = {pool.submit(task, entry): entry for entry in entries}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
                bar.update()
        except BaseException:
            if stop is not None:
                stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
