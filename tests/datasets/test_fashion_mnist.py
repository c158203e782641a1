"""Fashion-MNIST: the IDX format, damaged files, and where items are taken from."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from file_host import running_host
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pipeline import shipped_root
from torchvision.datasets import FashionMNIST

from misure.datasets import fashion_mnist
from misure.datasets.fashion_mnist import SHIPPED_FOLDER, available, find_folder, load_items, read_idx
from misure.errors import MisureError

STEMS = [stem for pair in fashion_mnist._STEMS.values() for stem in pair]


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write bytes in the official format, gzipped."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def offline(tmp_path, monkeypatch) -> Path:
    """An empty data root on a machine without system package and without network."""
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", tmp_path / "no_system_package")
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:1/"])  # nothing listens on port 1
    return tmp_path / "data"


def make_source(folder: Path, fill: int) -> Path:
    """Write four small official-looking files whose pixels are all ``fill``."""
    folder.mkdir(parents=True)
    for stem in STEMS:
        labels = "labels" in stem
        write_idx(folder / f"{stem}.gz", np.arange(4) % 3 if labels else np.full((4, 28, 28), fill))
    return folder


@given(data=arrays(np.uint8, array_shapes(min_dims=1, max_dims=4, max_side=6)), zipped=st.booleans())
def test_what_is_written_is_read(tmp_path_factory, data, zipped):
    path = tmp_path_factory.mktemp("idx") / "file.gz"
    write_idx(path, data)
    if not zipped:
        path = path.with_suffix("")
        path.write_bytes(gzip.decompress(path.with_suffix(".gz").read_bytes()))
    found = read_idx(path)
    assert found.dtype == np.uint8
    assert np.array_equal(found, data)


@pytest.mark.parametrize(
    ("zipped", "damage", "message"),
    [
        (True, lambda content: content[:-1], "cannot be read"),
        (True, lambda content: content[:20] + bytes(len(content) - 40) + content[-20:], "cannot be read"),
        (True, lambda _: b"<html>not found</html>", "cannot be read"),
        (False, lambda content: content[:-1], "truncated"),
        (False, lambda content: content + b"\0", "truncated"),
        (False, lambda content: b"\0\0\x0b" + content[3:], "not an IDX"),
        (False, lambda content: content[:6], "not an IDX"),
        (False, lambda _: b"", "not an IDX"),
        (False, lambda _: bytes([0, 0, 8, 3, 1, 0, 0, 0] * 2), "truncated"),  # 2**56 bytes, says its header
        (False, lambda _: bytes([0, 0, 8, 4] + [0x80, 0, 0, 0] * 4), "truncated"),  # 2**124
        (True, lambda _: gzip.compress(bytes(110_000_000)), "not an IDX"),  # 0.1 MB
    ],
)
def test_a_damaged_file_gets_one_line(tmp_path, zipped, damage, message):
    path = tmp_path / "file.gz"
    write_idx(path, np.random.default_rng(0).integers(0, 256, (3, 28, 28)))
    content = path.read_bytes()
    if not zipped:
        path, content = path.with_suffix(""), gzip.decompress(content)
    path.write_bytes(damage(content))
    with pytest.raises(MisureError, match=rf"^{path}.* {message}.*$"):
        read_idx(path)


@pytest.mark.parametrize("name", ["fashion-mnist", "fashion_mnist", "FashionMNIST/raw"])
def test_the_data_root_comes_first(offline, monkeypatch, name):
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", make_source(offline / "system", 9))
    make_source(offline / name, 7)
    items = load_items("train", [0, 1], offline)
    assert items.images.unique().tolist() == [7]
    assert len(items.images) == 3  # labels are 0, 1, 2, 0
    assert "data root" in items.source


def test_an_incomplete_data_root_is_passed_over_for_the_system_package(offline, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", make_source(offline / "system", 9))
    (make_source(offline / "fashion-mnist", 7) / f"{STEMS[3]}.gz").unlink()
    items = load_items("train", [0], offline)
    assert items.images.unique().tolist() == [9]
    assert "system package" in items.source


def test_torchvisions_mirrors_come_before_the_subset(offline, monkeypatch):
    remote = {f"/{file.name}": file.read_bytes() for file in sorted(make_source(offline / "remote", 5).iterdir())}
    resources = [(path[1:], hashlib.md5(body).hexdigest()) for path, body in remote.items()]
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    with running_host(remote) as server:
        monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:1/", f"{server.url}/"])
        assert find_folder(offline, download=False)[0] == SHIPPED_FOLDER
        items = load_items("val", [0, 1, 2], offline)
    assert items.images.unique().tolist() == [5]
    assert items.source == "torchvision download"
    assert "data root" in load_items("val", [0], offline).source


def test_items_are_fetched_ahead_for_workers_without_internet(offline, monkeypatch):
    remote = {f"/{file.name}": file.read_bytes() for file in sorted(make_source(offline / "remote", 5).iterdir())}
    resources = [(path[1:], hashlib.md5(body).hexdigest()) for path, body in remote.items()]
    monkeypatch.setattr(FashionMNIST, "resources", resources)
    there = available(offline)
    assert (there.source.split()[1], there.offline) == ("subset", {"download": False})
    there.fetch()
    assert available(offline) == there  # no server answers
    with running_host(remote) as server:
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"{server.url}/"])
        there.fetch()
    there = available(offline)
    assert (there.source, there.download, there.fetch) == ("Fashion-MNIST, data root (raw)", "", None)
    assert load_items("val", [0], offline, download=False).images.unique().tolist() == [5]


@pytest.mark.parametrize(("download", "reason"), [(True, "network is unreachable"), (False, "switched off")])
def test_the_subset_serves_where_nothing_else_does_and_without_it_the_folder_is_named(
    offline, monkeypatch, download, reason
):
    assert find_folder(offline, download=download)[0] == SHIPPED_FOLDER
    assert not offline.exists()
    monkeypatch.setattr(fashion_mnist, "SHIPPED_FOLDER", offline / "nothing_shipped")
    with pytest.raises(MisureError, match=reason) as caught:
        find_folder(offline, download=download)
    assert str(offline / "fashion-mnist") in str(caught.value)


def test_the_shipped_subset_has_disjoint_splits_of_1500_and_300(tmp_path):
    root = shipped_root(tmp_path / "data")
    train, val = (load_items(split, [0, 1, 2], root).images for split in ("train", "val"))
    assert train.shape == (1500, 28, 28)
    assert val.shape == (300, 28, 28)
    items = {item.numpy().tobytes() for item in (*train, *val)}
    assert len(items) == 1800
    per_class = [len(load_items("val", [label], root).images) for label in range(3)]
    assert per_class == [100, 100, 100]


def test_items_that_are_not_there_or_do_not_belong_together_are_refused(offline):
    write_idx(make_source(offline / "fashion-mnist", 7) / f"{STEMS[1]}.gz", np.zeros(3))
    with pytest.raises(MisureError, match="4 images but 3 labels"):
        load_items("train", [0], offline)
    write_idx(offline / "fashion-mnist" / f"{STEMS[1]}.gz", np.zeros((4, 1)))
    with pytest.raises(MisureError, match=r"shapes \(4, 28, 28\) and \(4, 1\), not"):
        load_items("train", [0], offline)
    with pytest.raises(MisureError, match=r"no val item of classes \[7\]"):
        load_items("val", [7], offline)
