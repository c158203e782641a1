"""What COCO's download does with files that are there, disks that are full and folders that cannot be written."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from coco_host import (
    ARCHIVE,
    CLASSES,
    Server,
    chosen,
    download,
    one_line,
    other_picture,
    published,
    running_host,
)

from misure.datasets.coco.download import ANNOTATIONS, download_coco
from misure.datasets.coco.server import CocoServer
from misure.errors import MisureError

_DATA = Path(os.environ.get("MISURE_DATA", "nowhere"), "coco")


@pytest.fixture
def server() -> Iterator[Server]:
    with running_host() as running:
        yield running


def test_what_was_placed_by_hand_is_enough_without_network(server, tmp_path):
    download(tmp_path, server)
    (tmp_path / "coco" / "downloads.json").unlink()
    server.asked.clear()
    done = download(tmp_path, server, images="http://127.0.0.1:1", archive="http://127.0.0.1:1/a.zip")
    assert (done.there, done.needed) == (8, 8)
    assert server.asked == []
    assert not (tmp_path / "coco" / "downloads.json").exists()


@pytest.mark.skipif(not _DATA.is_dir(), reason="no coco folder under MISURE_DATA: real images are absent")
def test_real_images_placed_by_hand_are_taken_as_they_are(tmp_path):
    for name in ("annotations", "val2017"):
        (tmp_path / "coco").mkdir(exist_ok=True)
        (tmp_path / "coco" / name).symlink_to(_DATA / name, target_is_directory=True)
    nowhere = CocoServer("http://127.0.0.1:1/a.zip", None, "http://127.0.0.1:1")
    done = download_coco(tmp_path, CLASSES, 100, 0, nowhere)
    assert done.there == done.needed > 0


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "cut, without a record"])
def test_an_image_that_fails_its_check_is_downloaded_again(server, tmp_path, damage):
    download(tmp_path, server)
    victim = chosen()[2]
    file = tmp_path / "coco" / victim[1:]
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(other_picture(published()[victim]) if damage == "changed" else published()[victim][:-200])
    if damage.endswith("record"):
        (tmp_path / "coco" / "downloads.json").unlink()
    server.asked.clear()
    assert list(download(tmp_path, server).fetched) == [file.name]
    assert server.asked == [victim]
    assert file.read_bytes() == published()[victim]


def test_a_cut_annotation_file_is_downloaded_again_and_a_changed_one_is_not_overwritten(server, tmp_path):
    download(tmp_path, server)
    path = tmp_path / "coco" / ANNOTATIONS
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    server.asked.clear()
    download(tmp_path, server)
    assert server.asked == [ARCHIVE]
    assert path.read_bytes() == whole
    path.write_bytes(whole + b"\n")
    with pytest.raises(MisureError, match=r"has changed since downloads.json was written: delete it"):
        download(tmp_path, server)
    assert path.read_bytes() == whole + b"\n"
    (tmp_path / "coco" / "downloads.json").unlink()
    assert download(tmp_path, server).there == 8


def test_a_full_disk_is_one_line_and_stops_at_once(server, tmp_path):
    """Linux's disk that is always full, in place of the first image."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full: Linux alone has one")
    images = tmp_path / "coco" / "val2017"
    images.mkdir(parents=True)
    for path in chosen():
        (images / f".{Path(path).name}.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(MisureError, match=r"cannot write .*jpg: No space left on device; free space") as caught:
        download(tmp_path, server, threads=1)
    one_line(caught)
    for link in images.glob(".*"):
        link.unlink()
    assert server.asked.count(chosen()[0]) == 1  # no retries of what cannot work
    assert len(server.asked) < 9  # and not all the further images
    assert len(download(tmp_path, server).fetched) == 8


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take all rights to write below a folder; root has to become somebody else for that."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        if os.geteuid() == 0:
            os.seteuid(65534)
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        for path in folders:
            path.chmod(0o755)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_read_only_folder_is_one_line_unless_it_is_complete(server, open_folder):
    with read_only(open_folder), pytest.raises(MisureError, match=r"cannot write .*coco.*: Permission denied"):
        download(open_folder, server)
    assert server.asked == []
    download(open_folder, server)
    with read_only(open_folder):
        assert download(open_folder, server).there == 8
    (open_folder / "coco" / chosen()[0][1:]).unlink()
    with read_only(open_folder), pytest.raises(MisureError, match=r"cannot write .*jpg: Permission denied"):
        download(open_folder, server)


def test_warnings_are_heard_as_before(server, tmp_path):
    """Checking images silences warnings for a moment; threads that overlap in that would silence them for good."""
    before = list(warnings.filters)
    for _ in range(3):
        (tmp_path / "coco" / "downloads.json").unlink(missing_ok=True)
        download(tmp_path, server, per_class=2, threads=8)
        assert warnings.filters == before
