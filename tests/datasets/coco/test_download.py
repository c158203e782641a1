"""COCO's download against a real server on this machine: faults of networks and disks, files that are there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from coco_files import miniature
from coco_host import ARCHIVE, CLASSES, annotations, chosen, download, files_below, published, source, zipped
from file_host import Server, closed_port, running_host
from forked import forked
from pipeline import run_script

from misure.datasets.coco.download import ANNOTATIONS, download_coco
from misure.datasets.coco.server import CocoServer
from misure.errors import MisureError
from misure.io.atomic import partial_of

_DATA = Path(os.environ.get("MISURE_DATA", "nowhere"), "coco")


@pytest.fixture
def server() -> Iterator[Server]:
    with running_host(published()) as running:
        yield running


def test_only_the_drawn_images_arrive_and_a_second_run_asks_for_nothing(server, tmp_path):
    done = download(tmp_path, server)
    drawn = chosen()
    assert len(drawn) == 8 < len(published()) - 1
    assert sorted(server.asked) == sorted([ARCHIVE, *drawn])
    assert files_below(tmp_path / "coco") == {"downloads.json", ANNOTATIONS, *(path[1:] for path in drawn)}
    assert all((tmp_path / "coco" / path[1:]).read_bytes() == published()[path] for path in drawn)
    assert (tmp_path / "coco" / ANNOTATIONS).read_bytes() == annotations()
    records = json.loads((tmp_path / "coco" / "downloads.json").read_text())
    for path in drawn:
        body = published()[path]
        digest = hashlib.sha256(body).hexdigest()
        assert records[path[1:]] == {"url": f"{server.url}{path}", "bytes": len(body), "sha256": digest}
    assert records[ANNOTATIONS]["url"] == server.url + ARCHIVE
    assert (done.needed, done.there, len(done.fetched)) == (8, 0, 8)

    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "coco").rglob("*")}
    server.asked.clear()
    again = download(tmp_path, server)
    assert server.asked == []
    assert (again.needed, again.there, len(again.fetched)) == (8, 8, 0)
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "coco").rglob("*")}
    assert download(tmp_path, server, per_class=2).there == 8
    assert sorted(server.asked) == sorted(set(chosen(2)) - set(drawn))


@pytest.mark.parametrize("fault", ["503", "cut", "long length", "short length", "reset", "other tag", "login page"])
def test_an_image_outlasts_passing_faults(server, tmp_path, fault):
    path = chosen()[3]
    server.faults[path] = [fault, fault]
    assert len(download(tmp_path, server).fetched) == 8
    assert server.asked.count(path) == 3
    assert (tmp_path / "coco" / path[1:]).read_bytes() == published()[path]
    assert not list(tmp_path.rglob("*.part"))


def test_what_is_not_on_the_server_is_asked_for_once_named_and_counted(server, tmp_path):
    path = chosen()[0]
    server.faults[path] = ["404"]
    done = download(tmp_path, server)
    assert server.asked.count(path) == 1
    assert len(done.fetched) == 7
    assert server.url + path in done.not_served[Path(path).name]
    assert server.url + path in str(done)
    assert len(download(tmp_path, server).fetched) == 1


def test_a_mirror_without_images_is_an_error(server, tmp_path):
    server.files = {ARCHIVE: published()[ARCHIVE]}
    with pytest.raises(MisureError, match=r"^none of 8 images is on the server.*and 3 more.*$"):
        download(tmp_path, server)


def test_lasting_damage_is_named_and_the_rest_is_kept(server, tmp_path):
    login, wide = chosen()[1:3]
    server.faults[login] = ["login page"] * 3
    server.files[wide] = next((miniature(tmp_path / "wide", width=30) / "coco" / "val2017").iterdir()).read_bytes()
    with pytest.raises(MisureError, match=r"^2 of 8 images came damaged, 6 are there: .*$") as caught:
        download(tmp_path / "data", server)
    assert f"{server.url + login} holds no" in str(caught.value)
    assert "is 30 x 18, its annotations are for 24 x 18" in str(caught.value)
    assert not (tmp_path / "data" / "coco" / wide[1:]).exists()
    server.asked.clear()
    server.files[wide] = published()[wide]
    assert download(tmp_path / "data", server).there == 6
    assert sorted(server.asked) == sorted([login, wide])


def test_a_server_that_breaks_down_ends_the_run_and_the_next_goes_on(server, tmp_path):
    drawn = chosen()
    server.faults[drawn[-1]] = ["500"] * 3
    with pytest.raises(MisureError, match=r"HTTP error 500.*of 8 images are there: run this again"):
        download(tmp_path, server)
    recorded = json.loads((tmp_path / "coco" / "downloads.json").read_text())
    before = files_below(tmp_path / "coco") - {"downloads.json"}
    assert set(recorded) <= before
    server.asked.clear()
    assert download(tmp_path, server).needed == 8
    assert sorted(server.asked) == sorted(path for path in drawn if path[1:] not in before)


def test_no_more_images_at_once_than_allowed(server, tmp_path):
    server.faults = {path: ["slow"] for path in published()}
    download(tmp_path, server, threads=3)
    assert server.most_at_once in {2, 3}  # at least two wait together, 0.2 seconds each


@pytest.mark.parametrize("there", [False, True])
def test_without_network_the_folder_to_fill_is_named(server, tmp_path, there):
    """With the annotations there the number of missing images is said as well."""
    if there:
        download(tmp_path, server)
        shutil.rmtree(tmp_path / "coco" / "val2017")
    missing = "8 of 8 images are missing; " if there else ""
    with pytest.raises(MisureError, match=rf"^{missing}http.* cannot be reached: .* into {tmp_path / 'coco'} by hand$"):
        download(tmp_path, server, archive=f"{closed_port()}/a.zip", images=closed_port())


def flipped(body: bytes) -> bytes:
    """An archive with another bit in the file that is taken out of it."""
    place = body.index(ANNOTATIONS.encode()) + 300
    return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]


@pytest.mark.parametrize(
    ("body", "digest", "message"),
    [
        (b"PK\x03\x04 no archive", None, "the annotation archive cannot be read"),
        (zipped(b"{}", "annotations/other.json"), None, "the annotation archive cannot be read"),
        (zipped(b"{}"), None, r"instances_val2017\.json"),
        (flipped(published()[ARCHIVE]), None, "the annotation archive cannot be read"),
        (flipped(published()[ARCHIVE]), hashlib.sha256(published()[ARCHIVE]).hexdigest(), "expected"),
    ],
    ids=["no archive", "another file", "no annotations", "damaged", "another archive"],
)
def test_an_archive_that_is_something_else_is_refused(server, tmp_path, body, digest, message):
    server.files[ARCHIVE] = body
    with pytest.raises(MisureError, match=rf"^.*{message}.*$"):
        download(tmp_path, server, archive_sha256=digest)
    assert files_below(tmp_path) <= {"coco/downloads.json", f"coco/{ANNOTATIONS}"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"file_name": "../../outside.jpg"}, "no file of the folder"),
        ({"file_name": "folder/outside.jpg"}, "no plain file name"),
        ({"coco_url": "file:///etc/passwd"}, "file:///etc/passwd cannot be reached"),
    ],
)
def test_an_annotation_file_cannot_reach_outside(server, tmp_path, changed, message):
    content = json.loads(annotations())
    for image in content["images"]:
        image.update(changed)
    server.files[ARCHIVE] = zipped(json.dumps(content).encode())
    with pytest.raises(MisureError, match=message):
        download(tmp_path, server)
    assert files_below(tmp_path) <= {"coco/downloads.json", f"coco/{ANNOTATIONS}"}


def test_a_killed_run_is_gone_on_with(server, tmp_path):
    """Two images hang, however slow this machine is, until SIGKILL; the command fetches these two alone."""
    drawn = chosen()
    hanging = {drawn[2], drawn[5]}
    server.faults = {path: ["stall"] for path in hanging}
    images = tmp_path / "data" / "coco" / "val2017"
    with forked(download, tmp_path / "data", server, timeout=600) as process:
        while process.is_alive() and not (
            hanging <= set(server.asked)
            and len(list(images.glob("*.jpg"))) == 6
            and len(list(images.glob(".*.part"))) == 2
        ):
            time.sleep(0.02)
    assert process.exitcode == -signal.SIGKILL
    assert {f"/val2017/{path.name}" for path in images.glob("*.jpg")} == set(drawn) - hanging
    server.asked.clear()
    settings = {"archive": server.url + ARCHIVE, "images": server.url, "archive_sha256": source(server).archive_sha256}
    keys = [f"dataset.prepare.server.{key}={value}" for key, value in settings.items()]
    keys += ["dataset=coco", "dataset.images_per_class=1", "data_root=data"]
    planned = run_script("prepare_data.py", [*keys, "plan_only=true"], tmp_path)
    assert re.search("253 MB.* 1 photographs", planned.out), planned.err
    ended = run_script("prepare_data.py", keys, tmp_path)
    assert ended.code == 0, ended.err
    assert sorted(server.asked) == sorted(hanging)
    assert "8 of 8 images are in data/coco/val2017: 2 downloaded" in ended.out
    assert not list(tmp_path.rglob("*.part"))


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
        file.write_bytes(published()[chosen()[3]] if damage == "changed" else published()[victim][:-200])
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: Linux alone has a disk that is always full")
def test_a_full_disk_is_one_line_and_stops_at_once(server, tmp_path):
    images = tmp_path / "coco" / "val2017"
    images.mkdir(parents=True)
    for path in chosen():
        partial_of(images / Path(path).name).symlink_to("/dev/full")
    with pytest.raises(MisureError, match=r"^cannot write .*jpg: No space left on device; free space.*$"):
        download(tmp_path, server, threads=1)
    assert server.asked.count(chosen()[0]) == 1  # no retries of what cannot work
    assert len(server.asked) < 9  # and not all the further images


def test_warnings_are_heard_as_before(server, tmp_path):
    """Checking images silences warnings for a moment; threads that overlap in that would silence them for good."""
    before = list(warnings.filters)
    for _ in range(3):
        (tmp_path / "coco" / "downloads.json").unlink(missing_ok=True)
        download(tmp_path, server, per_class=2, threads=8)
        assert warnings.filters == before
