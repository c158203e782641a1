"""Downloading the part of COCO-2017 that the protocol needs, into the official layout.

The annotation archive is fetched once, for one file in it; then each image that
:func:`misure.datasets.coco.protocol.choose_images` draws, by its own address. COCO publishes no hash of single images
(:mod:`misure.datasets.coco.server` says how they are checked): their SHA-256 is kept in ``downloads.json``, so that
later runs notice any change. What is there and passes its check is never fetched or written again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pycocotools.coco import COCO
from tqdm import tqdm

from misure.datasets.coco.images import UnreadableImageError
from misure.datasets.coco.manifest import DownloadManifest, FileRecord
from misure.datasets.coco.protocol import choose_images, class_ids, load_annotations
from misure.datasets.coco.server import CocoServer, check_entry
from misure.errors import MisureError
from misure.io.atomic import replacing
from misure.io.download import DamagedError, NotServedError, UnreachableError, file_digest, is_reachable

ANNOTATIONS = "annotations/instances_val2017.json"
IMAGES = "val2017"

_NAMED = 5
"""How many files a message names."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass
class CocoDownload:
    """What a download did.

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

    @property
    def summary(self) -> str:
        """A few lines for the user."""
        megabytes = sum(record.bytes for record in self.fetched.values()) / 1e6
        here = f"{self.there + len(self.fetched)} of {self.needed} images are in {self.folder / IMAGES}"
        how = f"{len(self.fetched)} downloaded ({megabytes:.1f} MB), {self.there} skipped because they were there"
        lacking = f"{len(self.not_served)} not on the server: {_named(self.not_served)}" if self.not_served else ""
        return "\n".join(line for line in (f"COCO-2017: {here}: {how}", lacking, self.note) if line)


def download_coco(
    data_root: Path, classes: Sequence[str], images_per_class: int, seed: int, server: CocoServer
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
    done = CocoDownload(data_root / "coco")
    labels = class_ids(classes)
    with _alone_in(done.folder):
        manifest = DownloadManifest(done.folder / "downloads.json")
        try:
            coco = _annotations(done.folder, server, manifest)
            entries = [coco.imgs[image] for image in choose_images(coco, labels, images_per_class, seed)]
            missing = _missing(entries, server, manifest, done)
            if missing:
                _fetch_images(missing, server, manifest, done)
        except BaseException:
            with contextlib.suppress(MisureError):  # the first error says more
                manifest.save()
            raise
        _save(manifest, done)
    _complain(done)
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
        for stray in folder.glob("*/.*.part"):
            with contextlib.suppress(OSError):
                stray.unlink()
        yield
    finally:
        os.close(handle)


def _annotations(folder: Path, server: CocoServer, manifest: DownloadManifest) -> COCO:
    """Read the annotation file, downloaded if it is missing or damaged."""
    path = folder / ANNOTATIONS
    known = manifest.files.get(ANNOTATIONS)
    try:
        coco = load_annotations(path)
    except MisureError:
        _extract(_archive(folder, server), path)
        coco = load_annotations(path)
        manifest.files[ANNOTATIONS] = FileRecord.of(path, server.archive)
        return coco
    if known is None:
        manifest.files[ANNOTATIONS] = FileRecord.of(path, None)
    elif known.sha256 != file_digest(path):
        name = manifest.path.name
        raise MisureError(
            f"{path} has changed since {name} was written: delete it (for a new one) or {name} (to keep it)"
        )
    return coco


def _archive(folder: Path, server: CocoServer) -> Path:
    """Download the annotation archive, under a name that says that it is there for the moment only."""
    archive = folder / "annotations" / "annotations_trainval2017.zip.part"
    _require_server(server.archive, folder)
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        server.fetch_archive(archive)
    except OSError as error:
        raise MisureError(f"cannot write {archive.parent}: {error.strerror}; choose another data_root") from error
    except (UnreachableError, NotServedError, DamagedError) as error:
        raise MisureError(f"{error}; run this again, or {_by_hand(folder)}") from error
    return archive


def _extract(archive: Path, path: Path) -> None:
    """Take one file out of the archive, checked by its CRC, and remove the archive."""
    try:
        with (
            zipfile.ZipFile(archive) as members,
            members.open(ANNOTATIONS) as source,
            replacing(path) as partial,
            partial.open("wb") as out,
        ):
            shutil.copyfileobj(source, out)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        archive.unlink()
        raise MisureError(f"the annotation archive is damaged or another one ({error}): run this again") from error
    archive.unlink()


def _missing(
    entries: Sequence[Mapping[str, Any]], server: CocoServer, manifest: DownloadManifest, done: CocoDownload
) -> list[Mapping[str, Any]]:
    """Check the images that are there; return the entries of the others."""

    def check(entry: Mapping[str, Any]) -> FileRecord | None:
        name = _file_name(entry)
        return _checked(done.folder / IMAGES / name, entry, manifest.files.get(f"{IMAGES}/{name}"))

    missing = []
    for entry, record in _in_parallel(check, entries, server.threads, "checking images"):
        if record is None:
            missing.append(entry)
        else:
            manifest.files[f"{IMAGES}/{_file_name(entry)}"] = record
    done.needed, done.there = len(entries), len(entries) - len(missing)
    return missing


def _fetch_images(
    missing: Sequence[Mapping[str, Any]], server: CocoServer, manifest: DownloadManifest, done: CocoDownload
) -> None:
    """Download images; what the server lacks and what stays damaged is noted, anything else ends it."""
    stop = threading.Event()

    def fetch_one(entry: Mapping[str, Any]) -> FileRecord | NotServedError | DamagedError:
        try:
            return server.fetch_image(entry, done.folder / IMAGES / _file_name(entry), stop)
        except (NotServedError, DamagedError) as error:
            return error

    _require_server(server.address(missing[0]), done.folder, f"{len(missing)} of {done.needed} images are missing; ")
    try:
        for entry, result in _in_parallel(fetch_one, missing, server.threads, "downloading images", stop):
            name = _file_name(entry)
            if isinstance(result, FileRecord):
                done.fetched[name] = manifest.files[f"{IMAGES}/{name}"] = result
            else:
                (done.damaged if isinstance(result, DamagedError) else done.not_served)[name] = str(result)
    except UnreachableError as error:
        there = done.there + len(done.fetched)
        advice = f"run this again to go on, or {_by_hand(done.folder)}"
        raise MisureError(f"{error}; {there} of {done.needed} images are there: {advice}") from error


def _checked(path: Path, entry: Mapping[str, Any], known: FileRecord | None) -> FileRecord | None:
    """Return the record of a file that is there and good: by its hash, or by decoding it where none is known."""
    if not path.is_file():
        return None
    if known is not None:
        return known if file_digest(path) == known.sha256 else None
    try:
        check_entry(entry, path)
    except UnreadableImageError:
        return None
    return FileRecord.of(path, None)


def _in_parallel(
    task: Callable[[_Item], _Result],
    items: Sequence[_Item],
    threads: int,
    title: str,
    stop: threading.Event | None = None,
) -> Iterator[tuple[_Item, _Result]]:
    """Yield every item with its result, in the order of completion, with one progress bar; an error ends it all."""
    with ThreadPoolExecutor(threads) as pool, tqdm(total=len(items), unit="image", desc=title, leave=False) as bar:
        futures = {pool.submit(task, item): item for item in items}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
                bar.update()
        except BaseException:
            if stop is not None:
                stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _save(manifest: DownloadManifest, done: CocoDownload) -> None:
    """Keep the hashes; where nothing was downloaded, a folder that cannot be written is no failure."""
    try:
        manifest.save()
    except MisureError as error:
        if done.fetched:
            raise
        done.note = f"hashes are not kept: {error}"


def _complain(done: CocoDownload) -> None:
    if done.damaged:
        raise MisureError(
            f"{len(done.damaged)} of {done.needed} images came damaged, {done.there + len(done.fetched)} are there: "
            f"{_named(done.damaged)}; run this again"
        )
    if done.not_served and not done.there and not done.fetched:
        raise MisureError(f"none of {done.needed} images is on the server: {_named(done.not_served)}; see coco.images")


def _require_server(url: str, folder: Path, situation: str = "") -> None:
    if not is_reachable(url):
        raise MisureError(f"{situation}{url} cannot be reached: connect to the network, or {_by_hand(folder)}")


def _by_hand(folder: Path) -> str:
    return f"put {ANNOTATIONS} and {IMAGES}/*.jpg into {folder} by hand"


def _file_name(entry: Mapping[str, Any]) -> str:
    name = str(entry["file_name"])
    if Path(name).name != name:
        raise MisureError(f"image {entry['id']} of the annotation file is called {name!r}, which is no plain file name")
    return name


def _named(reasons: Mapping[str, str]) -> str:
    shown = list(reasons.values())[:_NAMED]
    more = f" and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    return "; ".join(shown) + more
