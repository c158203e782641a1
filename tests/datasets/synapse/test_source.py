"""Where slices come from: official volumes, TransUNet's own, a user's, phantoms; and preparing them by command."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from ct_files import labels, own_folder, raw, transunet, write_case, write_nifti
from pipeline import run_script

from misure.datasets.synapse.btcv import find_pairs, prepare
from misure.datasets.synapse.dataset import SynapseDataset
from misure.datasets.synapse.prepared import is_prepared
from misure.datasets.synapse.source import locate, prepare_synapse
from misure.datasets.synthetic.phantom import PhantomSpec
from misure.errors import MisureError


def test_official_volumes_are_prepared_on_the_way(tmp_path, monkeypatch):
    location = locate(raw(tmp_path), stand_in=tmp_path / "phantoms")
    assert location.folder == tmp_path / "synapse" / "prepared"
    assert location.source == "3 official BTCV volumes"
    assert not location.stand_in
    assert locate(tmp_path) == location
    write_case(tmp_path / "synapse", 7)  # noticed at the next start
    assert locate(tmp_path).source == "4 official BTCV volumes"
    image, _ = write_case(tmp_path / "synapse", 9)
    image.unlink()
    with pytest.warns(UserWarning, match="case0009 is not used: missing partner"):
        locate(tmp_path)


@pytest.mark.parametrize("lost", ["all images", "an image", "a folder", "a change"])
def test_opening_removes_nothing_whatever_became_of_the_raw_files(tmp_path, lost):
    first = locate(raw(tmp_path))
    before = {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()}
    images = sorted((tmp_path / "synapse").rglob("img????.nii.gz"))
    if lost == "a folder":
        shutil.move(tmp_path / "synapse" / "RawData", tmp_path / "away")
    elif lost == "a change":
        images[0].write_bytes(images[0].read_bytes()[:-20])
    else:
        for image in images[: None if lost == "all images" else 1]:
            image.unlink()
    with (
        pytest.warns(UserWarning, match="^case0001.*: their files are gone or") if lost != "a folder" else nullcontext()
    ):
        assert locate(tmp_path) == first
    assert {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()} == before
    if lost == "an image":
        prepare_synapse(tmp_path)
        assert not list(first.folder.rglob("case0001*"))


def test_what_was_made_with_other_settings_is_made_again_where_all_files_are_there(tmp_path):
    first = locate(raw(tmp_path))
    path = first.folder / "manifest.json"
    path.write_text(path.read_text().replace("-125", "-100"))
    image = min((tmp_path / "synapse").rglob("img????.nii.gz"))
    image.rename(tmp_path / "away")
    with pytest.raises(MisureError, match="prepared with other settings: bring the files of case0001 back first"):
        locate(tmp_path)
    (tmp_path / "away").rename(image)
    assert locate(tmp_path) == first
    assert "-125" in path.read_text()


def test_a_folder_that_cannot_be_read_is_one_line_and_not_empty(tmp_path, monkeypatch):
    locate(raw(tmp_path))
    scan = os.scandir

    def stale(place):
        if str(place).endswith("Training"):
            raise OSError(errno.ESTALE, "Stale file handle", place)
        return scan(place)

    monkeypatch.setattr(os, "scandir", stale)
    with pytest.raises(
        MisureError, match=r"^.*Training cannot be read \(Stale file handle\): check its file system.*$"
    ):
        locate(tmp_path)


def test_transunets_slices_are_read_as_they_are(tmp_path):
    train, val = (
        SynapseDataset(split, transunet(tmp_path) if split == "train" else tmp_path, size=8)
        for split in ("train", "val")
    )
    assert train.source == "TransUNet's preprocessed BTCV slices"
    assert not train.stand_in
    assert [train.group(i) for i in range(5)] == ["case0005"] * 3 + ["case0006"] * 2
    assert (train.cases, val.cases) == (("case0005", "case0006"), ("case0008",))
    with np.load(train.location.folder / "train_npz" / "case0006_slice001.npz") as file:
        torch.testing.assert_close(train[4]["image"][0], torch.tensor(file["image"]), rtol=0, atol=0)
        assert (train[4]["mask"].numpy() == file["label"]).all()
    assert (val[3]["mask"] == 8).all()


def test_nothing_found_says_what_to_do_in_three_lines(tmp_path):
    with pytest.raises(MisureError, match=r"^.*syn3193805.*\n.*Abdomen/RawData\.zip.*\n.*stand_in=true.*$"):
        locate(tmp_path)


def test_ambiguous_and_unfinished_folders_are_refused(tmp_path):
    done = prepare(find_pairs(raw(tmp_path / "elsewhere")), tmp_path / "synapse" / "prepared")
    assert locate(tmp_path).source == "3 official BTCV volumes"
    done.manifest.complete = False
    done.manifest.save(done.folder)
    with pytest.raises(MisureError, match=r"prepared is not finished: run misure prepare"):
        locate(tmp_path)
    transunet(tmp_path)
    with pytest.raises(MisureError, match="several prepared data sets, keep one"):
        locate(tmp_path)


def test_phantoms_stand_in_where_there_is_nothing(tmp_path):
    spec = PhantomSpec(train_volumes=2, val_volumes=1, size=48, slices=10)
    train = SynapseDataset("train", tmp_path / "data", tmp_path / "made", 32, phantom=spec)
    assert train.stand_in
    assert train.source == "stand-in: phantom CT (3 volumes of 48 x 48 x 10, seed 0)"
    assert len(train.cases) == 2
    assert is_prepared(train.location.folder)
    volumes = sorted((tmp_path / "made").rglob("img????.nii.gz"))
    assert len(volumes) == 3
    before = [path.stat().st_mtime_ns for path in volumes]
    val = SynapseDataset("val", tmp_path / "data", str(tmp_path / "made"), 32, phantom=spec)
    assert [path.stat().st_mtime_ns for path in volumes] == before
    assert val.location == train.location
    other = PhantomSpec(train_volumes=2, val_volumes=1, size=48, slices=10, seed=1)
    assert SynapseDataset("val", tmp_path / "data", tmp_path / "made", 32, phantom=other).fingerprint != val.fingerprint
    with pytest.raises(MisureError, match="Synapse multi-organ CT was not found"):
        SynapseDataset("val", tmp_path / "data", tmp_path / "made", allow_stand_in=False)
    # copied among real data, generated slices still say what they are
    (tmp_path / "data" / "synapse").mkdir(parents=True)
    train.location.folder.rename(tmp_path / "data" / "synapse" / "prepared")
    assert SynapseDataset("val", tmp_path / "data").stand_in


def test_sources(tmp_path):
    done = run_script("prepare_data.py", [f"data_root={raw(tmp_path / 'a')}"], tmp_path)
    assert done.code == 0, done.err
    assert "10 training and 5 validation slices of 3 volumes" in done.out
    assert "missing cases: 0002" in done.out
    assert "2 training" not in prepare_synapse(tmp_path / "b", raw(tmp_path / "a"))
    assert SynapseDataset("train", tmp_path / "b", size=8).cases == ("case0005", "case0006")
    source = own_folder(tmp_path / "mine")
    write_nifti(source / "labels" / "lonely.nii.gz", labels())
    text = prepare_synapse(tmp_path / "c", source)
    assert text.splitlines()[1:] == [
        "a is case1001, train",
        "b is case1003, val",
        "rejected: lonely: missing partner: no image",
    ]
    assert SynapseDataset("val", tmp_path / "c", size=8).source == "2 own CT volumes"
    done = run_script("prepare_data.py", [f"data_root={tmp_path / 'e'}", f"source={source}"], tmp_path)
    assert done.code == 1
    assert "rejected: lonely: missing partner: no image" in done.err
    assert "volumes that are not used: 1, the others are prepared" in done.err
    assert SynapseDataset("val", tmp_path / "e", size=8).source == "2 own CT volumes"
    assert prepare_synapse(transunet(tmp_path / "d")).startswith("nothing to prepare: TransUNet")


def test_a_file_in_the_way_is_one_line(tmp_path):
    raw(tmp_path)
    (tmp_path / "synapse" / "prepared").touch()
    with pytest.raises(MisureError, match=r"cannot make .*prepared: "):
        locate(tmp_path)


def test_sources_that_are_none(tmp_path):
    with pytest.raises(MisureError, match="not found"):
        prepare_synapse(tmp_path)
    with pytest.raises(MisureError, match="is not a folder: name the unpacked archive"):
        prepare_synapse(tmp_path, tmp_path / "nowhere")
    for path in own_folder(tmp_path / "mine").rglob("images/*"):
        path.write_bytes(b"\x1f\x8b")
    with pytest.raises(MisureError, match=r"(?s)no volume can be used; .*rejected: a.nii.gz, a.nii: .*cannot be read"):
        prepare_synapse(tmp_path, tmp_path / "mine")
    with pytest.raises(MisureError, match="holds 3 official volumes: keep one kind"):
        prepare_synapse(raw(tmp_path / "both"), own_folder(tmp_path / "good"))
    with pytest.raises(MisureError, match="labels=total is not known; close names: totalsegmentator"):
        prepare_synapse(tmp_path, tmp_path / "good", "total")
