"""Downloads against a real server on this machine: whole, wrong, cut short, missing, silent, killed, no room."""

from __future__ import annotations

import hashlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from misure.errors import MisureError
from misure.io.download import (
    LONGEST_PAUSE,
    DamagedError,
    NotServedError,
    Patience,
    UnreachableError,
    fetch,
    file_digest,
    is_reachable,
)

BODY = bytes(range(256)) * 1000  # several blocks
DIGEST = hashlib.sha256(BODY).hexdigest()
SHORT_WAIT = 0.3  # seconds; what an unresponsive server is given here
QUICK = Patience(attempts=2, wait=0.01, timeout=SHORT_WAIT)


class Server(http.server.ThreadingHTTPServer):
    """Serves ``/whole``, ``/cut`` (less than announced), ``/stall`` (half, then silence), ``/garbled`` (no HTTP) and
    ``/s3`` and ``/cdn``, whose ETag is another file's MD5; answers ``/<status>`` with it; notes what it is asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.go_on = threading.Event()
        self.software = "test"

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, *_args) -> None:
        """A client that went away is part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.software = "AmazonS3" if self.path == "/s3" else "test"
        if self.path == "/garbled":
            self.wfile.write(b"SSH-2.0-not-http\r\n\r\n")
        elif self.path[1:] in {"whole", "cut", "stall", "s3", "cdn"}:
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            if self.path in {"/s3", "/cdn"}:
                self.send_header("ETag", f'"{hashlib.md5(b"else").hexdigest()}"')
            self.end_headers()
            self.wfile.write(BODY[:1000] if self.path in {"/cut", "/stall"} else BODY)
            if self.path == "/stall":
                self.wfile.flush()
                self.server.go_on.wait(20)
        else:
            self.send_error(int(self.path[1:]) if self.path[1:].isdigit() else 404)

    def version_string(self) -> str:
        return self.server.software

    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, *_args) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.go_on.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def closed() -> str:
    """Address of a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    return f"http://127.0.0.1:{port}/whole"


def test_a_whole_file_arrives_and_is_not_fetched_again(server, tmp_path):
    path = tmp_path / "folder" / "file"
    assert is_reachable(server.url("/any"))  # whatever it answers
    for _ in range(2):
        assert fetch(server.url("/whole"), path, digest=DIGEST) == path
    assert path.read_bytes() == BODY
    assert file_digest(path) == DIGEST
    assert server.asked == ["/whole"]
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("older", [BODY[:-1], b""])
def test_a_damaged_file_is_replaced(server, tmp_path, older):
    path = tmp_path / "file"
    path.write_bytes(older)
    fetch(server.url("/whole"), path, digest=DIGEST)
    assert path.read_bytes() == BODY


def test_without_a_digest_the_check_decides_and_a_file_is_fetched_anew(server, tmp_path):
    path = tmp_path / "file"
    for _ in range(2):
        fetch(server.url("/whole"), path, digest=None, check=lambda partial: partial.read_bytes() == BODY)
    assert len(server.asked) == 2

    def refuse(partial):
        raise DamagedError("no picture")

    with pytest.raises(DamagedError, match="no picture"):
        fetch(server.url("/whole"), path, digest=None, check=refuse, patience=QUICK)
    assert len(server.asked) == 4  # what fails its check is asked for again
    assert path.read_bytes() == BODY


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("sha256", DIGEST.upper()),
        ("sha256", DIGEST[:8]),  # as in the names of PyTorch's files
        ("sha256", DIGEST[:1]),
        ("md5", hashlib.md5(BODY).hexdigest()),
    ],
)
def test_the_start_of_a_digest_in_any_case_suffices(server, tmp_path, algorithm, digest):
    for _ in range(2):
        fetch(server.url("/whole"), tmp_path / "file", digest=digest, algorithm=algorithm)
    assert server.asked == ["/whole"]


OTHER = f"{'0' if DIGEST[0] != '0' else '1'}{DIGEST[1:8]}"


@pytest.mark.parametrize(
    ("path", "digest", "kind", "asked"),
    [
        ("/whole", "", DamagedError, 1),  # another file on the server does not change by asking again
        ("/whole", DIGEST + "0", DamagedError, 1),
        ("/whole", OTHER, DamagedError, 1),
        ("/cut", DIGEST, DamagedError, 2),
        ("/stall", DIGEST, UnreachableError, 2),
        ("/garbled", DIGEST, UnreachableError, 2),
        ("/s3", DIGEST, DamagedError, 2),
        ("/404", DIGEST, NotServedError, 1),
        ("/500", DIGEST, UnreachableError, 2),
        ("/429", DIGEST, UnreachableError, 2),
    ],
)
def test_a_bad_answer_leaves_what_was_there_and_nothing_half_written(server, tmp_path, path, digest, kind, asked):  # noqa: PLR0917
    target = tmp_path / "file"
    target.write_bytes(b"older")
    with pytest.raises(kind) as caught:
        fetch(server.url(path), target, digest=digest, patience=QUICK)
    assert type(caught.value) is kind
    assert server.url(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert target.read_bytes() == b"older"
    assert server.asked == [path] * asked


def test_an_md5_is_believed_from_s3_alone(server, tmp_path):
    assert fetch(server.url("/cdn"), tmp_path / "file", digest=DIGEST).read_bytes() == BODY


def test_a_closed_or_silent_port_and_a_local_address_are_unreachable(closed, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        quiet = f"http://127.0.0.1:{silent.getsockname()[1]}/whole"
        for url, reason in ((closed, "refused"), (quiet, "timed out"), (Path(__file__).as_uri(), "file:")):
            assert not is_reachable(url, timeout=SHORT_WAIT)
            with pytest.raises(UnreachableError, match=reason):
                fetch(url, tmp_path / "file", digest=DIGEST, patience=QUICK)
    assert not list(tmp_path.iterdir())


def test_the_reason_is_the_downloads_own_while_another_error_is_handled(closed, tmp_path):
    try:
        {}["handled meanwhile"]
    except KeyError:
        with pytest.raises(UnreachableError, match="refused"):
            fetch(closed, tmp_path / "file", digest=DIGEST, patience=QUICK)


class Clock:
    """Stands in for the event that is waited on: notes the pauses, and is set after some of them."""

    def __init__(self, set_after: int = 1000) -> None:
        self.pauses: list[float] = []
        self.set_after = set_after

    def wait(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        return len(self.pauses) >= self.set_after


def test_passing_faults_are_waited_out_with_pauses_that_double_up_to_a_minute(server, tmp_path):
    clock = Clock()
    with pytest.raises(UnreachableError):
        fetch(server.url("/500"), tmp_path / "file", digest=DIGEST, patience=Patience(attempts=9), stop=clock)
    assert clock.pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE]


def test_waiting_ends_when_it_is_no_use_any_more(server, tmp_path):
    with pytest.raises(UnreachableError):
        fetch(server.url("/500"), tmp_path / "file", digest=DIGEST, stop=Clock(set_after=2))
    assert len(server.asked) == 2


def test_a_folder_that_cannot_be_made_is_named(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MisureError, match=r"cannot write .*below"):
        fetch(server.url("/whole"), tmp_path / "file" / "below", digest=DIGEST)
    assert server.asked == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: Linux alone has a disk that is always full")
def test_a_full_disk_is_one_line_and_not_asked_for_again(server, tmp_path):
    (tmp_path / f".file.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(MisureError, match=r"cannot write .*file: No space left on device") as caught:
        fetch(server.url("/whole"), tmp_path / "file", digest=DIGEST)
    assert "\n" not in str(caught.value)
    assert server.asked == ["/whole"]
    assert not list(tmp_path.iterdir())


def test_a_killed_download_leaves_no_file_and_the_next_one_cleans_up(server, tmp_path):
    path = tmp_path / "file"
    arguments = f"{server.url('/stall')!r}, Path({str(path)!r}), digest={DIGEST!r}"
    code = f"from pathlib import Path; from misure.io.download import fetch; fetch({arguments})"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None and not server.asked:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert [left.suffix for left in tmp_path.iterdir()] == [".part"]
    fetch(server.url("/whole"), path, digest=DIGEST)
    assert [left.name for left in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == BODY
