"""Names of what is written: distinct within a run, stable between runs, safe whatever the files are called."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from misure.explaining.naming import image_names, part_name, place_of


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.png", "b.png"], ["a", "b"]),
        (["photo (1).png", "Schädel & Söhne.png", "epoch=1.png"], ["photo_1", "Schädel_Söhne", "epoch_1"]),
        (["p/s0000/ct.nii.gz", "p/s0001/ct.nii.gz"], ["s0000_ct", "s0001_ct"]),
        (["s0/x/ct.png", "s1/x/ct.png", "z.png"], ["s0_x_ct", "s1_x_ct", "z"]),
        (["a.png", "a.tiff"], ["a.png", "a.tiff"]),
        (["s0/a.png", "s0/a.tif", "s1/a.png", "s1/a.tif"], ["s0_a.png", "s0_a.tif", "s1_a.png", "s1_a.tif"]),
        (["s0/a.png", "s1/a.png", "s0_a.png"], ["s0_a.png", "s1_a", "s0_a.png"]),
    ],
)
def test_names_say_where_images_differ(files, names):
    found = image_names([Path("/data", file) for file in files])
    assert len({name.casefold() for name in found}) == len(files)
    if names[0] != names[-1]:
        assert found == names


@pytest.mark.parametrize(
    "files",
    [
        ["slice 1.png", "slice_1.png", "slice(1).png", "slice[1].png"],
        ["Scan.png", "scan.png", "SCAN.PNG"],
        [unicodedata.normalize(form, "Schädel.png") for form in ("NFC", "NFD")],
        ["x" * 240 + "1.png", "x" * 240 + "2.png"],
        ["肝" * 80 + "1.png", "肝" * 80 + "2.png"],
        ["a 1/ct.png", "a_1/ct.png", "A_1/ct.png"],
        ["con.png", "CON.png", "aux.1.png", "nul", "com1.png"],
        ["..png", "...png", ".png", "-.png", "~.png", "#.png", "\n.png", "\udce4.png"],
    ],
)
def test_no_two_images_share_a_name_on_any_disk(files):
    names = image_names([Path("/data", file) for file in files])
    assert len({unicodedata.normalize("NFC", name).casefold() for name in names}) == len(files)
    assert names == image_names([Path("/data", file) for file in files])
    for name in names:
        assert len(name.encode()) <= 60
        assert "/" not in name
        assert name[0].isalnum()
        assert name.partition(".")[0].casefold() not in {"con", "aux", "nul", "com1"}


@pytest.mark.parametrize(
    "name", ["../../etc", "/etc", "a/b", "a\\b", "\0", "..", ".", "", "a\nb", "<b>", "x" * 300, "👍"]
)
def test_class_names_never_become_paths(name):
    part = part_name(name)
    assert Path("folder", f"image-{part}-msr").resolve().parent == Path("folder").resolve()
    assert part.isprintable()
    assert len(part) <= 50


MANIFEST = {
    "method": "msr",
    "class_id": 1,
    "precision": "32",
    "parameters": {"lr": 0.1, "thresholds": (0.2,)},
    "input": {"file": "a.png", "sha256": "1", "slice": None},
    "network": {"source": "net.pt", "sha256": "2", "mean": [0.0]},
    "request": {"target": "dog", "border": None},
    "shape": [1, 8, 8],
}


@pytest.mark.parametrize(
    ("there", "replaced"),
    [
        ({"seconds": 3.0, "versions": {"misure": "0"}}, True),
        ({"request": {"target": None, "border": None}}, True),  # the class is the same
        ({"request": {"target": "dog", "border": 3}}, False),
        ({"parameters": {"lr": 0.01, "thresholds": [0.2]}}, False),
        ({"input": {"file": "a.png", "sha256": "3", "slice": None}}, False),
        ({"network": {"source": "net.pt", "sha256": "4", "mean": [0.0]}}, False),
        ({"class_id": 2}, False),
        ({"precision": "bf16"}, False),
    ],
)
def test_an_explanation_replaces_its_own_folder_alone(tmp_path, there, replaced):
    folder = tmp_path / "a-dog-msr"
    assert place_of(folder, MANIFEST) == folder
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(MANIFEST | there))
    place = place_of(folder, MANIFEST)
    assert (place == folder) == replaced
    assert place_of(folder, MANIFEST) == place
    assert place.name.startswith("a-dog-msr")


@pytest.mark.parametrize("damaged", ["", "{", "[]", "null", '{"request": 3}'])
def test_a_damaged_manifest_names_no_explanation(tmp_path, damaged):
    (tmp_path / "manifest.json").write_text(damaged)
    assert place_of(tmp_path, MANIFEST).name.startswith(tmp_path.name)
