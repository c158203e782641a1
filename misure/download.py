"""Downloads that notice an unreachable network in seconds and check what they fetched."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from tqdm import tqdm

from misure.errors import MisureError

CONNECT_TIMEOUT = 4.0
"""Seconds to wait for a connection or for the next block of data."""

_BLOCK = 1 << 16


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
        digest: The expected hexadecimal digest.
        algorithm: A :mod:`hashlib` algorithm name.
        timeout: Seconds without any data after which the network counts as unreachable.

    Returns:
        ``path``.

    Raises:
        MisureError: If the server cannot be reached or the digest differs.
    """
    if path.exists() and file_digest(path, algorithm) == digest:
        return path
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise MisureError(f"cannot download {url}: only http and https addresses are supported")
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _stream_to(url, partial, timeout)
        found = file_digest(partial, algorithm)
        if found != digest:
            raise MisureError(
                f"{url} has {algorithm} {found}, expected {digest}: the file was changed or cut short; "
                "try again or place the right file by hand"
            )
        partial.replace(path)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = " ".join(str(error).split())
        raise MisureError(f"cannot download {url}: {reason}; place the file at {path} by hand") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def _stream_to(url: str, partial: Path, timeout: float) -> None:
    with urllib.request.urlopen(url, timeout=timeout) as response, partial.open("wb") as out:  # noqa: S310
        total = int(response.headers.get("Content-Length") or 0) or None
        with tqdm(total=total, unit="B", unit_scale=True, desc=Path(url).name, leave=False) as bar:
            while block := response.read(_BLOCK):
                out.write(block)
                bar.update(len(block))
