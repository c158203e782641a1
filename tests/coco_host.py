"""A host of COCO's files on this machine, with faults planned by path, and downloads from it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import io
import json
import socket
import struct
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from coco_files import VOC_CLASSES, miniature
from PIL import Image, ImageOps

from misure.datasets.coco.download import ANNOTATIONS, CocoDownload, download_coco
from misure.datasets.coco.protocol import choose_images, class_ids, read_annotations
from misure.datasets.coco.server import COCO_HOST, CocoServer

CLASSES = tuple(VOC_CLASSES)
ARCHIVE = "/annotations/annotations_trainval2017.zip"
SHORT = 0.4  # seconds without data until an attempt has failed here


class Server(http.server.ThreadingHTTPServer):
    """Serves bytes by path, each request with the next fault planned for its path; notes what it was asked for."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
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
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        planned = self.server.faults.get(self.path, [])
        fault = planned.pop(0) if planned else "none"
        self.server.count(+1)
        if fault == "slow":
            time.sleep(0.2)
        self.server.count(-1)  # before the answer: its reader may ask again sooner than this thread goes on
        if fault.isdigit() or self.path not in self.server.files:
            self.send_error(int(fault) if fault.isdigit() else 404)
        else:
            self._send(self.server.files[self.path], fault)

    def _send(self, body: bytes, fault: str) -> None:
        tag = hashlib.md5(body).hexdigest()
        if fault == "other content":
            body = other_picture(body)
        if fault == "login page":
            body = b"<html>please log in</html>"
        announced = len(body) // 2 if fault == "short length" else len(body) + 9 * (fault == "long length")
        self.send_response(200)
        self.send_header("Content-Length", str(announced))
        if fault not in {"login page", "short length"}:
            self.send_header("ETag", f'"{tag}"')
        self.end_headers()
        self._send_body(body, fault)

    def _send_body(self, body: bytes, fault: str) -> None:
        broken = fault in {"cut", "reset", "stall"}
        self.wfile.write(body[: len(body) // 2] if broken else body)
        if fault == "stall":
            self.wfile.flush()
            self.server.go_on.wait(20)
        if fault == "reset":  # RST instead of FIN
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def version_string(self) -> str:
        return "AmazonS3"

    def log_message(self, *_args) -> None:
        pass


def other_picture(body: bytes) -> bytes:
    """A whole JPEG of the same size with other pixels."""
    out = io.BytesIO()
    ImageOps.mirror(Image.open(io.BytesIO(body))).save(out, "JPEG")
    return out.getvalue()


def zipped(annotations: bytes, name: str = ANNOTATIONS) -> bytes:
    """The archive: other files first, as in COCO's."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations/captions_val2017.json", "{}" * 5000)
        archive.writestr(name, annotations)
    return out.getvalue()


@functools.cache
def published() -> dict[str, bytes]:
    """What COCO's host has, by path: an archive and 16 images, two of each class."""
    with tempfile.TemporaryDirectory() as folder:
        coco = miniature(Path(folder), per_class=2) / "coco"
        content = json.loads((coco / ANNOTATIONS).read_text())
        images = {f"/val2017/{file.name}": file.read_bytes() for file in (coco / "val2017").iterdir()}
    for image in content["images"]:
        image["coco_url"] = f"{COCO_HOST}/val2017/{image['file_name']}"
    return {ARCHIVE: zipped(json.dumps(content).encode())} | images


@contextlib.contextmanager
def running_host() -> Iterator[Server]:
    """Serve what is published until the end of the block."""
    with Server() as running:
        running.files = dict(published())
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.go_on.set()
        running.shutdown()
        thread.join()


def source(server: Server, **changed) -> CocoServer:
    """The local server as COCO's, with short waits."""
    archive_sha256 = hashlib.sha256(server.files[ARCHIVE]).hexdigest()
    settings = {"threads": 3, "attempts": 3, "wait": 0.01, "timeout": SHORT, "archive_sha256": archive_sha256}
    return CocoServer(**{"archive": server.url + ARCHIVE, "images": server.url} | settings | changed)


def download(root: Path, server: Server, per_class: int = 1, **changed) -> CocoDownload:
    """Download what the protocol draws."""
    return download_coco(root, CLASSES, per_class, 0, source(server, **changed))


def files_below(root: Path) -> set[str]:
    """Files, by path below a folder."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}


def chosen(per_class: int = 1) -> list[str]:
    """Paths on the server of the images that the protocol draws."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(io.BytesIO(published()[ARCHIVE])) as archive:
        coco, _ = read_annotations(Path(archive.extract(ANNOTATIONS, folder)))
    return [f"/val2017/{coco.imgs[i]['file_name']}" for i in choose_images(coco, class_ids(CLASSES), per_class, 0)]


def one_line(caught) -> str:
    """The text of a caught error, which is one line."""
    text = str(caught.value)
    assert "\n" not in text
    return text
