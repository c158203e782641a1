"""COCO's host, or a mirror of it, and the record of every file that came from there and passed its check.

COCO publishes no hash of single images: an image is checked by its announced length, by the MD5 that Amazon S3 (COCO's
host) gives as ETag, and by decoding it at the annotated size.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from misure.datasets.coco.images import check_image
from misure.io.atomic import write_atomically
from misure.io.download import DamagedError, Patience, fetch, file_digest
from misure.io.reading import ImageFileError, reading
from misure.validation import Between, Count, check_fields

COCO_HOST = "http://images.cocodataset.org"
"""How every ``coco_url`` begins (over https the host's certificate is for another name)."""

_MOST_BYTES = 100_000_000
"""Of an image; COCO's largest has 0.8 MB."""

_Seconds = Annotated[float, Between(0.001, 86400)]


@dataclass(frozen=True)
class FileRecord:
    """A file that was downloaded and passed its check.

    Attributes:
        url: Where it came from; None in records of older versions, which kept those of files placed by hand as well.
        bytes: Its size.
        sha256: Its hash.
    """

    url: str | None
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, url: str) -> FileRecord:
        """Describe a file."""
        return cls(url, path.stat().st_size, file_digest(path))


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
    threads: Count = 8
    attempts: Count = 5
    wait: _Seconds = 1.0
    timeout: _Seconds = 15.0

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def patience(self) -> Patience:
        """How long it is waited for."""
        return Patience(self.attempts, self.wait, self.timeout)

    def address(self, image: Mapping[str, Any]) -> str:
        """Return where an image is: its ``coco_url``, on the mirror if there is one."""
        url = str(image.get("coco_url") or f"{COCO_HOST}/val2017/{image['file_name']}")
        return self.images.rstrip("/") + url.removeprefix(COCO_HOST) if url.startswith(f"{COCO_HOST}/") else url

    def fetch_image(self, image: Mapping[str, Any], path: Path, stop: threading.Event) -> FileRecord:
        """Download an image that can be decoded at its annotated size.

        Args:
            image: What the annotation file says about it.
            path: Where it goes.
            stop: Set by another thread when further attempts are no use any more.

        Raises:
            UnreachableError: If the server gives no whole answer.
            NotServedError: If it does not have the image.
            DamagedError: If it gives something else.
        """
        url = self.address(image)

        def check(partial: Path) -> None:
            try:
                check_image(partial, (image["width"], image["height"]))
            except ImageFileError as error:
                raise DamagedError(str(error).replace(str(partial), url)) from error

        fetch(
            url,
            path,
            digest=None,
            check=check,
            patience=self.patience,
            stop=stop,
            progress=False,
            most_bytes=_MOST_BYTES,
        )
        return FileRecord.of(path, url)


def read_records(path: Path) -> dict[str, FileRecord]:
    """Read the records of earlier downloads by path below COCO's folder; none where there is no such file.

    Raises:
        MisureError: If the file is damaged.
    """
    if not path.exists():
        return {}
    with reading(path, "delete it, and what is there is checked anew"):
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): FileRecord(**entry) for name, entry in entries.items()}


def write_records(path: Path, records: Mapping[str, FileRecord]) -> None:
    """Write the records of all files.

    Raises:
        MisureError: If the folder cannot be written.
    """
    entries = {name: asdict(records[name]) for name in sorted(records)}
    text = json.dumps(entries, indent=1) + "\n"
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))
