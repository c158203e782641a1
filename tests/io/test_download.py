"""Downloads against a real server on this machine: whole, wrong, cut short, missing, silent."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from misure.errors import MisureError
from misure.io.download import (
    LONGEST_PAUSE,
    DamagedError,
    NotServedError,
    Patience,
    UnreachableError,
    fetch,
    fetch_resumable,
    file_digest,
    is_reachable,
    patiently,
    read_bytes,
)

BODY = bytes(range(256)) * 1000  # several blocks
DIGEST = hashlib.sha256(BODY).hexdigest()
SHORT_WAIT = 0.3  # seconds; what an unresponsive server is given here


class Server(http.server.ThreadingHTTPServer):
    """Serves ``/whole``, ``/cut`` (less than announced), ``/garbled`` (no HTTP) and ``/s3`` and ``/cdn``, whose ETag
    is another file's MD5 (which says something on S3 alone); counts requests, and answers ``/<status>`` with it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.software = "test"

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == "/garbled":
            self.wfile.write(b"SSH-2.0-not-http\r\n\r\n")
        elif self.path in {"/whole", "/cut"}:
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY if self.path == "/whole" else BODY[:1000])
        elif self.path in {"/s3", "/cdn"}:
            self.server.software = "AmazonS3" if self.path == "/s3" else "cdn"
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.md5(b"else").hexdigest()}"')
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)
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
        running.shutdown()
        thread.join()


@pytest.fixture
def silent() -> Iterator[str]:
    """Address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/whole"


@pytest.fixture
def closed() -> str:
    """Address of a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    return f"http://127.0.0.1:{port}/whole"


def test_a_whole_file_arrives_and_is_not_fetched_again(server, tmp_path):
    path = tmp_path / "folder" / "file"
    for _ in range(2):
        assert fetch(server.url("/whole"), path, digest=DIGEST) == path
    assert path.read_bytes() == BODY
    assert file_digest(path) == DIGEST
    assert server.asked == ["/whole"]
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_good_file_is_enough_where_there_is_no_network(closed, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(BODY)
    assert fetch(closed, path, digest=DIGEST) == path


def test_a_damaged_file_is_replaced(server, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(BODY[:-1])
    fetch(server.url("/whole"), path, digest=DIGEST)
    assert path.read_bytes() == BODY


def test_another_algorithm_is_checked_as_well(server, tmp_path):
    digest = hashlib.md5(BODY).hexdigest()
    assert fetch(server.url("/whole"), tmp_path / "file", digest=digest, algorithm="md5").read_bytes() == BODY
    with pytest.raises(MisureError, match="md5"):
        fetch(server.url("/whole"), tmp_path / "other", digest=DIGEST[:32], algorithm="md5")


@pytest.mark.parametrize("length", [1, 8, 63, 64])
def test_the_start_of_a_digest_suffices_as_in_the_names_of_pytorchs_files(server, tmp_path, length):
    path = tmp_path / "file"
    for digest in (DIGEST[:length], DIGEST[:length].upper()):
        assert fetch(server.url("/whole"), path, digest=digest) == path
    assert server.asked == ["/whole"]


@pytest.mark.parametrize("digest", ["", DIGEST + "0", DIGEST[1:], f"{'0' if DIGEST[0] != '0' else '1'}{DIGEST[1:8]}"])
def test_what_is_not_the_start_of_the_digest_is_refused(server, tmp_path, digest):
    with pytest.raises(MisureError, match="expected"):
        fetch(server.url("/whole"), tmp_path / "file", digest=digest)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "digest", "message"),
    [
        ("/whole", "0" * 64, "expected 0000"),
        ("/cut", DIGEST, "cut short"),
        ("/missing", DIGEST, "404"),
        ("/garbled", DIGEST, "by hand"),
    ],
)
def test_a_bad_answer_leaves_what_was_there_and_nothing_half_written(server, tmp_path, path, digest, message):
    target = tmp_path / "file"
    target.write_bytes(b"older")
    with pytest.raises(MisureError, match=message) as caught:
        fetch(server.url(path), target, digest=digest)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert target.read_bytes() == b"older"


def test_a_silent_server_is_given_up(silent, tmp_path):
    with pytest.raises(MisureError, match="timed out"):
        fetch(silent, tmp_path / "file", digest=DIGEST, timeout=SHORT_WAIT)
    assert not list(tmp_path.iterdir())
    assert not is_reachable(silent, timeout=SHORT_WAIT)


def test_a_closed_port_is_unreachable(closed, tmp_path):
    assert not is_reachable(closed)
    with pytest.raises(MisureError, match="place the file at"):
        fetch(closed, tmp_path / "file", digest=DIGEST)
    assert not list(tmp_path.iterdir())


def test_any_answer_counts_as_reachable(server):
    assert is_reachable(server.url("/whole"))


def test_only_web_addresses_are_fetched(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(BODY)
    with pytest.raises(MisureError, match="only http and https"):
        fetch(source.as_uri(), tmp_path / "file", digest=DIGEST)


def test_a_folder_that_cannot_be_made_is_named(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MisureError, match="cannot download"):
        fetch(server.url("/whole"), tmp_path / "file" / "below", digest=DIGEST)


class Clock:
    """Stands in for the event that is waited on: notes the pauses, and is set after some of them."""

    def __init__(self, set_after: int = 1000) -> None:
        self.pauses: list[float] = []
        self.set_after = set_after

    def wait(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        return len(self.pauses) >= self.set_after


@pytest.mark.parametrize("path", ["/500", "/503", "/429", "/408", "/cut"])
def test_passing_faults_are_waited_out_with_pauses_that_double_up_to_a_minute(server, path):
    clock = Clock()
    with pytest.raises(DamagedError if path == "/cut" else UnreachableError, match=path) as caught:
        patiently(lambda: read_bytes(server.url(path), 5), server.url(path), Patience(attempts=9, wait=1), clock)
    assert clock.pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE]
    assert len(server.asked) == 9
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["/404", "/403", "/410"])
def test_what_is_not_served_is_not_asked_for_again(server, path):
    with pytest.raises(NotServedError, match=f"HTTP Error {path[1:]}"):
        patiently(lambda: read_bytes(server.url(path), 5), server.url(path), Patience(), Clock())
    assert server.asked == [path]


def test_waiting_ends_when_it_is_no_use_any_more(server):
    with pytest.raises(UnreachableError, match="500"):
        patiently(lambda: read_bytes(server.url("/500"), 5), server.url("/500"), Patience(), Clock(set_after=2))
    assert len(server.asked) == 2


def test_other_errors_are_not_repeated():
    calls = []

    def task() -> None:
        calls.append(1)
        raise MisureError("cannot write x: No space left on device")

    with pytest.raises(MisureError, match="No space"):
        patiently(task, "x", Patience(), Clock())
    assert len(calls) == 1


def test_an_md5_is_believed_from_s3_alone(server):
    assert read_bytes(server.url("/cdn"), 5) == BODY
    with pytest.raises(DamagedError, match="the server announced"):
        read_bytes(server.url("/s3"), 5)


def test_a_large_file_that_lacks_its_digest_is_deleted(server, tmp_path):
    path = tmp_path / "file.part"
    quick = Patience(attempts=2, wait=0.01)
    with pytest.raises(DamagedError, match="expected 0000"):
        fetch_resumable(server.url("/whole"), path, digest="0000", patience=quick)
    assert not path.exists()
    for digest in (DIGEST[:8], None):
        fetch_resumable(server.url("/whole"), path, digest=digest, patience=quick)
        assert path.read_bytes() == BODY
    with pytest.raises(NotServedError, match="404"):
        fetch_resumable(server.url("/missing"), path, digest=None, patience=quick)
    with pytest.raises(MisureError, match="only http and https"):
        fetch_resumable(path.as_uri(), path, digest=None, patience=quick)


def test_a_large_file_that_is_cut_short_keeps_what_came(server, tmp_path):
    path = tmp_path / "file.part"
    with pytest.raises(DamagedError, match=f"cut short after 1000 of {len(BODY)} bytes"):
        fetch_resumable(server.url("/cut"), path, digest=DIGEST, patience=Patience(attempts=2, wait=0.01))
    assert path.read_bytes() == BODY[:1000]
