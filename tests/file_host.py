"""A server of files on this machine, with the faults that networks have, planned by path."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping

FOREVER = 1000
"""Requests; more than any test makes."""


class Server(http.server.ThreadingHTTPServer):
    """Serves bytes by path, each request with the next fault planned for its path; notes what it was asked for.

    Faults are a status, ``cut`` (less than announced), ``stall`` (half, then silence), ``reset``, ``garbled``
    (no HTTP), ``slow``, ``short length``, ``long length``, ``other tag`` (the MD5 of another file), ``login page``.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, files: Mapping[str, bytes], software: str = "AmazonS3") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(files)
        self.software = software
        self.faults: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.go_on = threading.Event()
        self.at_once, self.most_at_once, self.counting = 0, 0, threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, change: int) -> None:
        with self.counting:
            self.at_once += change
            self.most_at_once = max(self.most_at_once, self.at_once)

    def handle_error(self, *_args) -> None:
        """A client that went away is part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.send_error(404)  # an answer all the same

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        planned = self.server.faults.get(self.path, [])
        fault = planned.pop(0) if planned else "none"
        self.server.count(+1)
        if fault == "slow":
            time.sleep(0.2)
        self.server.count(-1)  # before the answer: its reader may ask again sooner than this thread goes on
        if fault == "garbled":
            self.wfile.write(b"SSH-2.0-not-http\r\n\r\n")
        elif fault.isdigit() or self.path not in self.server.files:
            self.send_error(int(fault) if fault.isdigit() else 404)
        else:
            self._send(self.server.files[self.path], fault)

    def _send(self, body: bytes, fault: str) -> None:
        tag = hashlib.md5(b"else" if fault == "other tag" else body).hexdigest()
        if fault == "login page":
            body = b"<html>please log in</html>"
        announced = len(body) // 2 if fault == "short length" else len(body) + 9 * (fault == "long length")
        self.send_response(200)
        self.send_header("Content-Length", str(announced))
        if fault not in {"login page", "short length"}:
            self.send_header("ETag", f'"{tag}"')
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault in {"cut", "reset", "stall"} else body)
        if fault == "stall":
            self.wfile.flush()
            self.server.go_on.wait()
        if fault == "reset":  # RST instead of FIN
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def version_string(self) -> str:
        return self.server.software

    def log_message(self, *_args) -> None:
        pass


@contextlib.contextmanager
def running_host(files: Mapping[str, bytes], software: str = "AmazonS3") -> Iterator[Server]:
    """Serve files until the end of the block."""
    with Server(files, software) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.go_on.set()
        running.shutdown()
        thread.join()


def closed_port() -> str:
    """Address of a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"
