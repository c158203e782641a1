"""COCO's addresses, the settings of a download, and the records of what came."""

from __future__ import annotations

import pytest

from misure.datasets.coco.server import COCO_HOST, CocoServer, FileRecord, read_records, write_records
from misure.errors import MisureError


def test_addresses_are_the_images_own_unless_there_is_a_mirror():
    entry = {"file_name": "1.jpg", "coco_url": "http://images.cocodataset.org/val2017/000000000001.jpg"}
    official, mirror = (CocoServer("", None, images) for images in (COCO_HOST, "https://example.org/coco/"))
    assert official.address(entry) == entry["coco_url"]
    assert mirror.address(entry) == "https://example.org/coco/val2017/000000000001.jpg"
    assert mirror.address({"file_name": "1.jpg"}) == "https://example.org/coco/val2017/1.jpg"
    assert mirror.address(entry | {"coco_url": "http://else.org/1.jpg"}) == "http://else.org/1.jpg"


@pytest.mark.parametrize("key", ["threads", "attempts", "wait", "timeout"])
def test_settings_out_of_range_are_named(key):
    for value in (0, -1, "many", True, float("nan"), float("inf")):
        with pytest.raises(MisureError, match=f"{key}="):
            CocoServer("", None, "", **{key: value})


def test_records_come_back(tmp_path):
    path = tmp_path / "folder" / "downloads.json"
    assert read_records(path) == {}
    records = {"b": FileRecord("http://else.org/b", 3, "0f"), "a": FileRecord(None, 0, "")}
    write_records(path, records)
    assert read_records(path) == records


@pytest.mark.parametrize("text", ["[1]", '{"a": 1}', '{"a": {"size": 1}}', "{", "\xff"])
def test_damaged_records_say_what_to_do(tmp_path, text):
    path = tmp_path / "downloads.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(MisureError, match=r"downloads.json cannot be read .* delete it"):
        read_records(path)
