"""Downloads against a real server on this machine: whole, wrong, cut short, missing, silent."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator

import pytest

from misure.download import fetch, file_digest, is_reachable
from misure.errors import MisureError

BODY = bytes(range(256)) * 1000  # several blocks
DIGEST = hashlib.sha256(BODY).hexdigest()
SHORT_WAIT = 0.3  # seconds; what an unresponsive server is given here


class Server(http.server.ThreadingHTTPServer):
    """Serves ``/whole``, ``/cut`` (less than announced) and ``/garbled`` (no HTTP); counts requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []

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
        else:
            self.send_error(404)

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
