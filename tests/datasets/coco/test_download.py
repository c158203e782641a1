"""COCO's download against a real server on this machine, with the faults that networks have."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from coco_files import miniature
from coco_host import ARCHIVE, Server, chosen, download, files_below, one_line, published, running_host, zipped
from pipeline import PROJECT, environment, run_script

from misure.datasets.coco.download import ANNOTATIONS
from misure.errors import MisureError


@pytest.fixture
def server() -> Iterator[Server]:
    with running_host() as running:
        yield running


def test_only_the_drawn_images_arrive_and_a_second_run_asks_for_nothing(server, tmp_path):
    done = download(tmp_path, server)
    drawn = chosen()
    assert len(drawn) == 8 < len(published()) - 1
    assert sorted(server.asked) == sorted([ARCHIVE, *drawn])
    assert files_below(tmp_path / "coco") == {"downloads.json", ANNOTATIONS, *(path[1:] for path in drawn)}
    assert all((tmp_path / "coco" / path[1:]).read_bytes() == published()[path] for path in drawn)
    with zipfile.ZipFile(io.BytesIO(published()[ARCHIVE])) as archive:
        assert (tmp_path / "coco" / ANNOTATIONS).read_bytes() == archive.read(ANNOTATIONS)
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


def test_more_images_need_only_the_further_ones(server, tmp_path):
    download(tmp_path, server)
    server.asked.clear()
    assert download(tmp_path, server, per_class=2).there == 8
    assert sorted(server.asked) == sorted(set(chosen(2)) - set(chosen(1)))


@pytest.mark.parametrize("fault", ["503", "cut", "long length", "short length", "reset", "other content", "login page"])
def test_an_image_outlasts_passing_faults(server, tmp_path, fault):
    path = chosen()[3]
    server.faults[path] = [fault, fault]
    assert len(download(tmp_path, server).fetched) == 8
    assert server.asked.count(path) == 3
    assert (tmp_path / "coco" / path[1:]).read_bytes() == published()[path]
    assert not list(tmp_path.rglob("*.part"))


def test_the_archive_outlasts_passing_faults(server, tmp_path):
    server.faults[ARCHIVE] = ["stall", "cut"]
    assert len(download(tmp_path, server).fetched) == 8
    assert files_below(tmp_path / "coco" / "annotations") == {Path(ANNOTATIONS).name}


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
    with pytest.raises(MisureError, match="none of 8 images is on the server") as caught:
        download(tmp_path, server)
    assert "and 3 more" in one_line(caught)


def test_lasting_damage_is_named_and_the_rest_is_kept(server, tmp_path):
    path = chosen()[1]
    server.faults[path] = ["login page"] * 3
    with pytest.raises(MisureError, match="1 of 8 images came damaged, 7 are there") as caught:
        download(tmp_path, server)
    assert re.search(rf"{re.escape(server.url + path)} holds no", one_line(caught))
    server.asked.clear()
    assert download(tmp_path, server).there == 7
    assert server.asked == [path]


def test_an_image_of_another_size_than_annotated_is_refused(server, tmp_path):
    path = chosen()[1]
    wide = miniature(tmp_path / "wide", width=30) / "coco" / "val2017"
    server.files[path] = next(wide.iterdir()).read_bytes()
    with pytest.raises(MisureError, match="is 30 x 18, its annotations are for 24 x 18"):
        download(tmp_path / "data", server)
    assert not (tmp_path / "data" / "coco" / path[1:]).exists()


def test_a_server_that_breaks_down_ends_the_run_and_the_next_goes_on(server, tmp_path):
    drawn = chosen()
    server.faults[drawn[-1]] = ["500"] * 3
    with pytest.raises(MisureError, match=r"HTTP error 500.*of 8 images are there: run this again") as caught:
        download(tmp_path, server)
    assert "put annotations/instances_val2017.json and val2017/*.jpg into" in one_line(caught)
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
    with socket.create_server(("127.0.0.1", 0)) as listening:
        closed = f"http://127.0.0.1:{listening.getsockname()[1]}"
    if there:
        download(tmp_path, server)
        shutil.rmtree(tmp_path / "coco" / "val2017")
    with pytest.raises(MisureError, match=rf"cannot be reached: .* into {tmp_path / 'coco'} by hand") as caught:
        download(tmp_path, server, archive=f"{closed}/a.zip", images=closed)
    assert ("8 of 8 images are missing" in one_line(caught)) == there


@pytest.mark.parametrize("body", [b"PK\x03\x04 no archive", zipped(b"{}", "annotations/other.json"), zipped(b"{}")])
def test_an_archive_that_is_something_else_is_refused(server, tmp_path, body):
    server.files[ARCHIVE] = body
    with pytest.raises(MisureError, match=r"annotation archive|instances_val2017\.json"):
        download(tmp_path, server, archive_sha256=None)
    assert not [*tmp_path.rglob("*.part"), *tmp_path.rglob("*.zip")]


def test_a_flipped_bit_in_the_archive_is_found_with_and_without_its_hash(server, tmp_path):
    body = bytearray(published()[ARCHIVE])
    with zipfile.ZipFile(io.BytesIO(published()[ARCHIVE])) as archive:
        body[archive.getinfo(ANNOTATIONS).header_offset + 300] ^= 1
    good = hashlib.sha256(published()[ARCHIVE]).hexdigest()
    server.files[ARCHIVE] = bytes(body)
    for digest, message in ((good, f"expected {good}"), (None, "the annotation archive cannot be read")):
        with pytest.raises(MisureError, match=message) as caught:
            download(tmp_path, server, archive_sha256=digest)
        one_line(caught)
        assert files_below(tmp_path) <= {"coco/downloads.json"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"file_name": "../../outside.jpg"}, "no plain file name"),
        ({"coco_url": "file:///etc/passwd"}, "file:///etc/passwd cannot be reached"),
    ],
)
def test_an_annotation_file_cannot_reach_outside(server, tmp_path, changed, message):
    with zipfile.ZipFile(io.BytesIO(published()[ARCHIVE])) as archive:
        content = json.loads(archive.read(ANNOTATIONS))
    for image in content["images"]:
        image.update(changed)
    server.files[ARCHIVE] = zipped(json.dumps(content).encode())
    with pytest.raises(MisureError, match=message):
        download(tmp_path, server)
    assert files_below(tmp_path) <= {"coco/downloads.json", f"coco/{ANNOTATIONS}"}


def test_a_killed_run_is_gone_on_with(server, tmp_path):
    """SIGKILL through the entry point while two images hang; the next run fetches these two alone."""
    drawn = chosen()
    hanging = {drawn[2], drawn[5]}
    server.faults = {path: ["stall"] for path in hanging}
    settings = {
        "archive": server.url + ARCHIVE,
        "images": server.url,
        "archive_sha256": hashlib.sha256(published()[ARCHIVE]).hexdigest(),
    }
    keys = ["dataset=coco", "dataset.images_per_class=1", "data_root=data"]
    keys += [f"dataset.prepare.server.{key}={value}" for key, value in settings.items()]
    images = tmp_path / "data" / "coco" / "val2017"
    command = [sys.executable, str(PROJECT / "scripts" / "prepare_data.py"), *keys]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            if len(list(images.glob("*.jpg"))) == 6 and hanging <= set(server.asked):
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert {f"/val2017/{path.name}" for path in images.glob("*.jpg")} == set(drawn) - hanging
    assert len(list(images.glob(".*.part"))) == 2
    server.go_on.set()
    server.asked.clear()
    ended = run_script("prepare_data.py", keys, tmp_path)
    assert ended.code == 0, ended.err
    assert sorted(server.asked) == sorted(hanging)
    assert "8 of 8 images are in data/coco/val2017: 2 downloaded" in ended.out
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("plan", [False, True])
def test_a_dataset_without_files_to_prepare_says_so(tmp_path, plan):
    ended = run_script("prepare_data.py", ["dataset=triangle", f"plan_only={plan}"], tmp_path)
    assert (ended.code, ended.out) == (0, "dataset=triangle needs no preparation\n")


def test_a_plan_downloads_nothing(tmp_path):
    ended = run_script("prepare_data.py", ["dataset=coco", "data_root=data", "plan_only=true"], tmp_path)
    assert ended.code == 0, ended.err
    assert re.search("253 MB.* 100 photographs", ended.out)
    assert not list(tmp_path.iterdir())
