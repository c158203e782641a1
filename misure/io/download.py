"""Downloads through pooch that notice an unreachable network in seconds, outlast passing faults and check files."""

from __future__ import annotations

import hashlib
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urlsplit

from tqdm import tqdm

from misure.errors import MisureError, brief
from misure.io.atomic import remove_abandoned, replacing

CONNECT_TIMEOUT = 4.0
"""Seconds after which a server that is only asked whether it answers counts as unreachable."""

LONGEST_PAUSE = 60.0
"""Seconds between two attempts at most."""

MOST_BYTES = 4_000_000_000
"""Of a file whose size is not known better; the largest that this package fetches has 0.5 GB."""

_BLOCK = 1 << 16
_REQUEST_TIMEOUT, _TOO_MANY, _SERVER_FAULTS = 408, 429, 500


class NotServedError(MisureError):
    """A server answers, and says that it does not give out this address (404 and its like)."""


class DamagedError(MisureError):
    """A file arrived cut short, or is not what was announced."""


class TooLargeError(DamagedError):
    """A server sends more than the file can have."""


class UnreachableError(MisureError):
    """A server does not answer, or answers with faults of its own, however often it is asked."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        attempts: How often one address is asked for, at least once.
        wait: Seconds before the second attempt; they double before each further one, up to a minute.
        timeout: Seconds without any data after which an attempt has failed.
    """

    attempts: int = 5
    wait: float = 1.0
    timeout: float = 15.0


def file_name_of(url: str) -> str:
    """Return the last part of an address, which names a file of one folder.

    Raises:
        MisureError: If it has none.
    """
    name = PurePosixPath(urlsplit(url).path).name
    if name in {"", ".."} or not name.isprintable() or "\\" in name:
        raise MisureError(f"{url} names no file: give the address of one")
    return name


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return the hexadecimal digest of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def is_reachable(url: str, timeout: float = CONNECT_TIMEOUT) -> bool:
    """Say whether a server answers at all (any HTTP status counts as an answer)."""
    import requests

    try:
        requests.head(url, timeout=timeout)
    except (requests.RequestException, ValueError):
        return False
    return True


def fetch(
    url: str,
    path: Path,
    *,
    digest: str | None,
    algorithm: str = "sha256",
    check: Callable[[Path], object] | None = None,
    patience: Patience | None = None,
    stop: threading.Event | None = None,
    progress: bool = True,
    most_bytes: int = MOST_BYTES,
) -> Path:
    """Download one file unless it is already there with the right digest.

    Connection errors, timeouts, answers 408, 429 and 5xx, what is cut short and what fails ``check`` are asked for
    again. Where Amazon S3 announces a file's MD5 (as its ETag), that is checked as well.

    Args:
        url: An http or https address.
        path: Where the file goes, once it has passed its checks; a partial download never has this name, and one that
            a killed process left is removed.
        digest: The expected hexadecimal digest, or its start: PyTorch's file names carry the first eight digits. None
            where it is not known: then a file that is there is replaced.
        algorithm: A :mod:`hashlib` algorithm name.
        check: Raises a :class:`DamagedError` if a file is not what it should be.
        patience: How long the server is waited for.
        stop: Set by another thread when further attempts are no use any more.
        progress: Whether a bar is shown.
        most_bytes: How large the file can be; what is larger is not fetched to its end.

    Returns:
        ``path``.

    Raises:
        UnreachableError: If the server gives no whole answer in time.
        NotServedError: At once, if it does not have the file.
        DamagedError: If the digest differs, every attempt failed its check, or the file is too large.
        MisureError: If the disk does not take the file.
    """
    if digest is not None and path.is_file() and _starts(file_digest(path, algorithm), digest):
        return path
    patience = patience or Patience()

    def download(partial: Path) -> None:
        with partial.open("wb") as stream:
            announced = _download(url, _Bounded(stream, url, most_bytes), patience.timeout, progress=progress)
        if announced is not None:
            _check_digest(url, partial, announced, "md5")
        if check is not None:
            check(partial)

    remove_abandoned(path)
    with replacing(path) as partial:
        _patiently(lambda: download(partial), patience, stop or threading.Event())
        if digest is not None:
            _check_digest(url, partial, digest, algorithm)
    return path


def _patiently(task: Callable[[], object], patience: Patience, stop: threading.Event) -> None:
    """Repeat a task while it fails as networks do for a moment, with growing pauses."""
    for attempt in range(1, patience.attempts):
        try:
            task()
        except TooLargeError:
            raise
        except (DamagedError, UnreachableError):
            if stop.wait(min(patience.wait * 2 ** (attempt - 1), LONGEST_PAUSE)):
                raise
        else:
            return
    task()


class _Bounded:
    """A file that takes so many bytes and no more, however many a server sends or a packed answer unfolds to."""

    def __init__(self, stream: BinaryIO, url: str, most_bytes: int) -> None:
        self.stream = stream
        self.url = url
        self.most_bytes = most_bytes
        self.flush = stream.flush

    def write(self, chunk: bytes) -> None:
        if self.stream.tell() + len(chunk) > self.most_bytes:
            raise TooLargeError(f"{self.url} has more than {self.most_bytes / 1e6:.0f} MB: it is another file")
        self.stream.write(chunk)


def _download(url: str, target: _Bounded, timeout: float, *, progress: bool) -> str | None:
    """Ask once for a file; return the MD5 that Amazon S3 announces, if it is S3 that answers."""
    import pooch
    import requests

    answers: list[requests.Response] = []  # of redirections, and the last one
    handled = sys.exception()
    name = PurePosixPath(urlsplit(url).path).name  # of the bar
    # pooch asks whether there is a bar, which one without a total does not answer
    with tqdm(total=1, unit="B", unit_scale=True, desc=name, leave=False, disable=not progress) as bar:
        downloader = pooch.HTTPDownloader(
            progressbar=bar,
            chunk_size=_BLOCK,
            timeout=timeout,
            headers={"Accept-Encoding": "identity"},
            hooks={"response": lambda answer, **_: answers.append(answer)},
        )
        try:
            downloader(url, target, None)
        except requests.HTTPError as error:
            status = answers[-1].status_code
            passing = status in {_REQUEST_TIMEOUT, _TOO_MANY} or status >= _SERVER_FAULTS
            kind = UnreachableError if passing else NotServedError
            raise kind(f"{url} answers with HTTP error {status} ({answers[-1].reason})") from error
        except requests.exceptions.ChunkedEncodingError as error:
            raise DamagedError(f"{url} was cut short: {brief(_root(error, handled))}") from error
        except requests.RequestException as error:
            raise UnreachableError(f"cannot download {url}: {brief(_root(error, handled))}") from error
        finally:
            for answer in answers:
                answer.close()
    headers = answers[-1].headers
    tag = re.fullmatch(r'"([0-9a-f]{32})"', headers.get("ETag", ""))
    return tag[1] if tag and headers.get("Server") == "AmazonS3" else None


def _check_digest(url: str, path: Path, expected: str, algorithm: str) -> None:
    digest = file_digest(path, algorithm)
    if not _starts(digest, expected):
        raise DamagedError(f"{url} has {algorithm} {digest}, expected {expected}: it was changed or cut short")


def _starts(digest: str, expected: str) -> bool:
    return bool(expected) and digest.startswith(expected.lower())


def _root(error: BaseException, handled: BaseException | None) -> BaseException:
    """Return the first error of a chain (requests and urllib3 wrap one several times) after one handled before."""
    while error.__context__ is not None and error.__context__ is not handled:
        error = error.__context__
    return error
