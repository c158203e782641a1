"""COCO's host, or a mirror of it: addresses, and downloads that are checked as far as COCO lets one check them.

COCO publishes no hash of single images: an image is checked by its announced length, by the MD5 that Amazon S3 (COCO's
host) gives as ETag, and by decoding it at the annotated size.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from misure.datasets.coco.images import UnreadableImageError, check_image
from misure.datasets.coco.manifest import FileRecord
from misure.errors import MisureError
from misure.io.atomic import replacing
from misure.io.download import DamagedError, Patience, fetch_resumable, patiently, read_bytes

COCO_HOST = "http://images.cocodataset.org"
"""How every ``coco_url`` begins (over https the host's certificate is for another name)."""

_ONE_AT_A_TIME = threading.Lock()


def check_entry(entry: Mapping[str, Any], path: Path) -> None:
    """Decode an image, one thread at a time: the check silences warnings, which no thread does for itself alone.

    Args:
        entry: What the annotation file says about it.
        path: The file.

    Raises:
        UnreadableImageError: If it is missing, damaged or of another size than annotated.
    """
    with _ONE_AT_A_TIME:
        check_image(path, (entry["width"], entry["height"]))


@dataclass(frozen=True)
class CocoServer:
    """Where COCO is downloaded from, and how patiently.

    Attributes:
        archive: Address of the annotation archive.
        archive_sha256: Its SHA-256; None leaves the check to the CRC inside the archive.
        images: What takes the place of COCO's host in every ``coco_url``, for a mirror.
        threads: How many images are downloaded at once.
        attempts: How often each file is asked for.
        wait: Seconds before the second attempt; they double before each further one.
        timeout: Seconds without data after which an attempt has failed.

    Raises:
        MisureError: If a number is out of range.
    """

    archive: str
    archive_sha256: str | None
    images: str
    threads: int = 8
    attempts: int = 5
    wait: float = 1.0
    timeout: float = 15.0

    def __post_init__(self) -> None:
        for key in ("threads", "attempts"):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise MisureError(f"coco.{key}={value} is not a whole number of at least 1")
        for key in ("wait", "timeout"):
            value = getattr(self, key)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < threading.TIMEOUT_MAX:
                raise MisureError(f"coco.{key}={value} is not a number of seconds above 0")

    @property
    def patience(self) -> Patience:
        """How long it is waited for."""
        return Patience(self.attempts, self.wait, self.timeout)

    def address(self, image: Mapping[str, Any]) -> str:
        """Return where an image is: its ``coco_url``, on the mirror if there is one."""
        url = str(image.get("coco_url") or f"{COCO_HOST}/val2017/{image['file_name']}")
        return self.images.rstrip("/") + url.removeprefix(COCO_HOST) if url.startswith(f"{COCO_HOST}/") else url

    def fetch_archive(self, path: Path) -> None:
        """Download the annotation archive, going on with what is there of it.

        Raises:
            UnreachableError: If the server gives no whole answer.
            NotServedError: If it does not have the archive.
            DamagedError: If it gives another one.
        """
        fetch_resumable(self.archive, path, digest=self.archive_sha256, patience=self.patience)

    def fetch_image(self, entry: Mapping[str, Any], path: Path, stop: threading.Event) -> FileRecord:
        """Download an image that can be decoded at its annotated size.

        Args:
            entry: What the annotation file says about it.
            path: Where it goes.
            stop: Set by another thread when it is no use any more.

        Raises:
            UnreachableError: If the server gives no whole answer.
            NotServedError: If it does not have the image.
            DamagedError: If it gives something else.
        """
        url = self.address(entry)

        def once() -> FileRecord:
            body = read_bytes(url, self.timeout)
            with replacing(path) as partial:
                partial.write_bytes(body)
                try:
                    check_entry(entry, partial)
                except UnreadableImageError as error:
                    raise DamagedError(f"{url}: {str(error).removeprefix(f'{partial.name}: ')}") from error
                return FileRecord.of(partial, url)

        return patiently(once, url, self.patience, stop)
