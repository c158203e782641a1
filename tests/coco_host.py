"""COCO's files as a host on this machine has them, and downloads from it."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import tempfile
import zipfile
from pathlib import Path

from coco_files import VOC_CLASSES, miniature
from file_host import Server

from misure.datasets.coco.download import ANNOTATIONS, CocoDownload, download_coco
from misure.datasets.coco.protocol import choose_images, class_ids, read_annotations
from misure.datasets.coco.server import COCO_HOST, CocoServer

CLASSES = tuple(VOC_CLASSES)
ARCHIVE = "/annotations/annotations_trainval2017.zip"
SHORT = 0.4  # seconds without data until an attempt has failed here


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


@functools.cache
def annotations() -> bytes:
    """The annotation file in the archive."""
    with zipfile.ZipFile(io.BytesIO(published()[ARCHIVE])) as archive:
        return archive.read(ANNOTATIONS)


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
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(annotations())
        coco, _ = read_annotations(Path(file.name))
    return [f"/val2017/{coco.imgs[i]['file_name']}" for i in choose_images(coco, class_ids(CLASSES), per_class, 0)]
