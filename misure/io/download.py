"""Downloads that notice an unreachable network in seconds, outlast passing faults and check what they fetched."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from misure.errors import MisureError

CONNECT_TIMEOUT = 4.0
"""Seconds to wait for a connection or for the next block of data."""

LONGEST_PAUSE = 60.0
"""Seconds between two attempts at most."""

_BLOCK = 1 << 16
_PARTIAL_CONTENT, _REQUEST_TIMEOUT, _UNSATISFIABLE, _TOO_MANY, _SERVER_FAULTS = 206, 408, 416, 429, 500

_Result = TypeVar("_Result")


class NotServedError(MisureError):
    """A server answers, and says that it does not give out this address (404 and its like)."""


class DamagedError(MisureError):
    """What came was cut short, or is not what was announced."""


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


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return the hexadecimal digest of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def is_reachable(url: str, timeout: float = CONNECT_TIMEOUT) -> bool:
    """Say whether a server answers at all (any HTTP status counts as an answer)."""
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - scheme checked in fetch
    try:
        with urllib.request.urlopen(request, timeout=timeout):  # noqa: S310
            return True
    except urllib.error.HTTPError as answer:
        answer.close()
        return True
    except (OSError, ValueError, http.client.HTTPException):
        return False


def fetch(url: str, path: Path, *, digest: str, algorithm: str = "sha256", timeout: float = CONNECT_TIMEOUT) -> Path:
    """Download one file unless it is already there with the right digest.

    Args:
        url: An http or https address.
        path: Where the file goes; a partial download never has this name.
        digest: The expected hexadecimal digest, or its start: PyTorch's file names carry the first eight digits.
        algorithm: A :mod:`hashlib` algorithm name.
        timeout: Seconds without any data after which the network counts as unreachable.

    Returns:
        ``path``.

    Raises:
        MisureError: If the server cannot be reached or the digest differs.
    """
    if path.exists() and _starts(file_digest(path, algorithm), digest):
        return path
    _require_web(url)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _stream_to(url, partial, timeout)
        _check_digest(url, partial, digest, algorithm)
        partial.replace(path)
    except DamagedError as error:
        raise MisureError(f"{error}; try again or place the right file at {path} by hand") from error
    except (OSError, http.client.HTTPException, UnreachableError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise MisureError(f"cannot download {url}: {_reason(error)}; place the file at {path} by hand") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def fetch_resumable(url: str, partial: Path, *, digest: str | None, patience: Patience) -> None:
    """Download a large file, going on where an earlier attempt or a killed process stopped.

    Args:
        url: An http or https address.
        partial: Where the bytes gather; no other process may write there. It is deleted if the digest differs.
        digest: The expected SHA-256, or its start; None where it is not known.
        patience: How long the server is waited for.

    Raises:
        UnreachableError: If the server gives no whole answer in time.
        NotServedError: If it does not have the file.
        DamagedError: If the digest differs.
        MisureError: If the disk does not take the file.
    """
    _require_web(url)
    patiently(lambda: _stream_to(url, partial, patience.timeout), url, patience)
    try:
        if digest is not None:
            _check_digest(url, partial, digest, "sha256")
    except DamagedError:
        partial.unlink()
        raise


def read_bytes(url: str, timeout: float) -> bytes:
    """Ask once for a small file and check its announced length, and its MD5 where Amazon S3 gives it as the ETag.

    Raises:
        DamagedError: If what came is something else.
        OSError: If the connection fails, as urllib reports it; so for HTTPException.
    """
    _require_web(url)
    with urllib.request.urlopen(url, timeout=timeout) as response:  # noqa: S310 - scheme checked above
        try:
            body: bytes = response.read()
        except http.client.IncompleteRead as error:
            raise DamagedError(f"{url} was cut short after {len(error.partial)} bytes") from error
        tag = re.fullmatch(r'"([0-9a-f]{32})"', response.headers.get("ETag") or "")
        from_s3 = response.headers.get("Server") == "AmazonS3"
    if tag and from_s3 and (found := hashlib.md5(body, usedforsecurity=False).hexdigest()) != tag[1]:
        raise DamagedError(f"{url} has MD5 {found}, the server announced {tag[1]}")
    return body


def patiently(
    task: Callable[[], _Result], url: str, patience: Patience, stop: threading.Event | None = None
) -> _Result:
    """Repeat a task while it fails as networks do for a moment, with growing pauses.

    Connection errors, timeouts, answers 408, 429 and 5xx, and damaged content count as passing faults.

    Args:
        task: Asks the server once.
        url: For messages.
        patience: How often and how long.
        stop: Set by another thread when it is no use any more.

    Raises:
        NotServedError: At once, if the server does not have it.
        DamagedError: If every attempt gave damaged content, the last one at least.
        UnreachableError: If every attempt failed otherwise.
    """
    stop = stop or threading.Event()
    failure: Exception = UnreachableError("nobody asked")
    for attempt in range(max(1, patience.attempts)):
        if attempt and stop.wait(min(patience.wait * 2 ** (attempt - 1), LONGEST_PAUSE)):
            break
        try:
            return task()
        except urllib.error.HTTPError as answer:
            answer.close()
            if answer.code not in {_REQUEST_TIMEOUT, _TOO_MANY} and answer.code < _SERVER_FAULTS:
                raise NotServedError(f"{url}: {_reason(answer)}") from answer
            failure = answer
        except (OSError, http.client.HTTPException, DamagedError, UnreachableError) as error:
            failure = error
    if isinstance(failure, DamagedError):
        raise failure
    raise UnreachableError(f"cannot download {url}: {_reason(failure)}") from failure


def _stream_to(url: str, partial: Path, timeout: float) -> None:
    """Ask once for the rest of a partial file, or for all of it where there is none or the server cannot go on."""
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
            _append(response, partial, start if response.status == _PARTIAL_CONTENT else 0, url)
    except urllib.error.HTTPError as answer:
        if answer.code != _UNSATISFIABLE or not start:
            raise
        answer.close()
        if answer.headers.get("Content-Range") != f"bytes */{start}":  # otherwise all of it is here
            partial.unlink()
            raise DamagedError(f"{url} is shorter than the {start} bytes of an earlier download") from answer


def _append(response: http.client.HTTPResponse, partial: Path, start: int, url: str) -> None:
    total = None if response.length is None else start + response.length
    name = Path(urllib.parse.urlsplit(url).path).name
    try:
        with partial.open("r+b" if start else "wb") as out:
            out.seek(start)
            with tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=name, leave=False) as bar:
                while block := _read(response):
                    out.write(block)
                    bar.update(len(block))
            end = out.tell()
    except OSError as error:
        reason = error.strerror or error
        raise MisureError(f"cannot write {partial}: {reason}; free space or choose another folder") from error
    if total is not None and end < total:
        raise DamagedError(f"{url} was cut short after {end} of {total} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    """Read a block; the network's errors are told from the disk's."""
    try:
        return response.read(_BLOCK)
    except OSError as error:
        raise UnreachableError(_reason(error)) from error


def _require_web(url: str) -> None:
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise MisureError(f"cannot download {url}: only http and https addresses are supported")


def _check_digest(url: str, path: Path, digest: str, algorithm: str) -> None:
    found = file_digest(path, algorithm)
    if not _starts(found, digest):
        raise DamagedError(f"{url} has {algorithm} {found}, expected {digest}: it was changed or cut short")


def _starts(found: str, digest: str) -> bool:
    return bool(digest) and found.startswith(digest.lower())


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
