"""Synapse slices: what an entry is, augmentation, real CT end to end."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from ct_files import raw, scan, transunet, write_nifti
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch.utils.data import DataLoader

from misure.datasets.base import SegmentationDataset
from misure.datasets.datamodule import InPasses
from misure.datasets.synapse.dataset import CLASS_NAMES, SynapseDataset, augment, resize_image, resize_label
from misure.datasets.synapse.source import prepare_synapse
from misure.errors import MisureError

REAL_CT = Path(os.environ.get("MISURE_DATA", "data")) / "abdominal_ct"


def test_it_is_a_segmentation_dataset(tmp_path, monkeypatch):
    dataset: SegmentationDataset = SynapseDataset("train", raw(tmp_path), size=16)
    (dataset.location.folder / "train_npz" / "README").touch()
    (dataset.location.folder / "train_npz" / "case0007_slice000.npz").write_bytes(b"from a killed preparation")
    assert len(dataset) == len(SynapseDataset("train", tmp_path, size=16)) == 10
    entry = dataset[7]
    assert (entry["image"].shape, entry["image"].dtype) == ((1, 16, 16), torch.float32)
    assert 0 <= entry["image"].min() <= entry["image"].max() <= 1
    assert (entry["mask"].shape, entry["mask"].dtype, int(entry["index"])) == ((16, 16), torch.int64, 7)
    assert dataset.group(7) == "case0006"
    first = entry["image"].clone()
    entry["image"].zero_()
    monkeypatch.setattr(np, "load", None)  # it is read once, and stays as it is
    assert torch.equal(dataset[7]["image"], first)
    with pytest.raises(IndexError):
        dataset[10]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_volume_is_its_slices_at_their_own_size(tmp_path, split):
    dataset = SynapseDataset(split, raw(tmp_path), size=16)
    case = dataset.cases[-1]
    image, label = dataset.volume(case)
    assert image.shape == label.shape == (5, 6, 7)
    assert (image.dtype, label.dtype) == (np.float32, np.uint8)
    indices = [i for i in range(len(dataset)) if dataset.group(i) == case]
    assert len(indices) == 5
    for number, index in enumerate(indices):
        np.testing.assert_array_equal(dataset[index]["image"][0].numpy(), resize_image(image[number], 16))
        np.testing.assert_array_equal(dataset[index]["mask"].numpy(), resize_label(label[number], 16))
    with pytest.raises(MisureError, match=f"case0040 is not a {split} case"):
        dataset.volume("case0040")


@given(shape=st.tuples(st.integers(4, 40), st.integers(4, 40)), size=st.integers(4, 24))
def test_resizing_is_interpolation_between_the_corners(shape, size):
    rng = np.random.default_rng(0)
    image, label = rng.random(shape, np.float32), rng.integers(0, 9, shape).astype(np.uint8)
    grid = np.meshgrid(*(np.linspace(0, n - 1, size) for n in shape), indexing="ij")
    expected = ndimage.map_coordinates(image, grid, order=3, mode="mirror").clip(0, 1)
    resized = resize_image(image, size)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, expected, atol=1e-5)  # float32
    small = resize_label(label, size)
    assert small.shape == (size, size)
    for i, j in np.ndindex(size, size):
        row, column = grid[0][i, j], grid[1][i, j]
        rows = {int(np.floor(row + s)) for s in (0.499, 0.5, 0.501)}  # halves may go either way
        columns = {int(np.floor(column + s)) for s in (0.499, 0.5, 0.501)}
        choice = {int(label[r, c]) for r in rows for c in columns if r < shape[0] and c < shape[1]}
        assert int(small[i, j]) in choice


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")  # on a machine of one core
def test_workers_give_the_same_entries(tmp_path):
    dataset = SynapseDataset("val", raw(tmp_path), size=8)
    loaded = list(DataLoader(dataset, batch_size=None, num_workers=2))
    for i, other in enumerate(loaded):
        assert all(torch.equal(dataset[i][key], other[key]) for key in other)


def test_the_fingerprint_is_that_of_the_files(tmp_path):
    raw(tmp_path)
    of = {split: SynapseDataset(split, tmp_path).fingerprint for split in ("train", "val")}
    assert len(set(of.values())) == 2
    assert SynapseDataset("val", tmp_path, size=96).fingerprint != of["val"]
    folder = tmp_path / "synapse" / "RawData" / "Training"
    write_nifti(folder / "img" / "img0005.nii.gz", scan(seed=99))
    with pytest.warns(UserWarning, match="case0005: their files are gone or have changed"):
        assert SynapseDataset("train", tmp_path).fingerprint == of["train"]
    prepare_synapse(tmp_path)
    assert SynapseDataset("train", tmp_path).fingerprint != of["train"]
    assert SynapseDataset("val", tmp_path).fingerprint == of["val"]
    theirs = SynapseDataset("train", transunet(tmp_path / "theirs"), size=8).fingerprint
    assert theirs == SynapseDataset("train", tmp_path / "theirs", size=8).fingerprint
    changed = next((tmp_path / "theirs").rglob("*slice001.npz"))
    content = bytearray(changed.read_bytes())
    content[len(content) // 2] ^= 1  # of the same name and size
    changed.write_bytes(content)
    other = SynapseDataset("train", tmp_path / "theirs", size=8).fingerprint
    assert other != theirs
    next((tmp_path / "theirs").rglob("*slice002.npz")).unlink()
    assert SynapseDataset("train", tmp_path / "theirs", size=8).fingerprint not in {theirs, other}


@pytest.mark.parametrize("factor", [1, 0.9999999, 1.00005])
def test_labels_nearly_whole_keep_every_organ(tmp_path, factor):
    """Cut off after the point, 0.9999999 would be background."""
    transunet(tmp_path)
    path = next(tmp_path.rglob("case0005_slice001.npz"))
    label = np.arange(64).reshape(8, 8) % 9
    np.savez(path, image=np.zeros((8, 8), np.float32), label=(label * factor).astype(np.float32))
    np.testing.assert_array_equal(SynapseDataset("train", tmp_path, size=8)[1]["mask"].numpy(), label)
    for wrong in (label - 1, label * 0.5, np.where(label, label, np.nan)):
        np.savez(path, image=np.zeros((8, 8), np.float32), label=wrong)
        with pytest.raises(MisureError, match=r"case0005_slice001\.npz.*(has label -1|unknown label value)"):
            SynapseDataset("train", tmp_path, size=8)[1]


def test_damaged_and_foreign_files_are_named(tmp_path):
    transunet(tmp_path)
    folder = tmp_path / "synapse" / "project_TransUNet" / "Synapse"
    path = folder / "train_npz" / "case0005_slice001.npz"
    np.savez(path, image=np.zeros((8, 8), np.float32), label=np.full((8, 8), 13.0))
    with pytest.raises(MisureError, match=r"case0005_slice001.npz has label 13: the eight organs are 1 to 8"):
        SynapseDataset("train", tmp_path)[1]
    whole = path.read_bytes()
    np.savez(path, image=np.zeros((8, 8), np.float32))
    for content in (path.read_bytes(), whole[:200], b"", b"PK"):
        path.write_bytes(content)
        with pytest.raises(MisureError, match=r"case0005_slice001.npz cannot be read"):
            SynapseDataset("train", tmp_path)[1]
    volume = folder / "test_vol_h5" / "case0008.npy.h5"
    volume.write_bytes(volume.read_bytes()[:300])
    with pytest.raises(MisureError, match=r"case0008.npy.h5 cannot be read"):
        SynapseDataset("val", tmp_path)
    volume.unlink()
    with pytest.raises(MisureError, match="has no val slice"):
        SynapseDataset("val", tmp_path)


def test_image_and_label_are_changed_alike_and_by_the_named_ways():
    base = np.arange(81, dtype=np.float32).reshape(9, 9) + 1
    kinds = {"same": 0, "turned": 0, "rotated": 0}
    turned = [np.flip(np.rot90(base, k), axis) for k in range(4) for axis in (0, 1)]
    rotated = {angle: ndimage.rotate(base, angle, order=0, reshape=False) for angle in range(-20, 20)}
    for number in range(600):
        image, label = augment(base, base.astype(np.uint8), (3, number, 0))
        np.testing.assert_array_equal(image, label)
        if (image == base).all():
            kinds["same"] += 1
        elif any((image == other).all() for other in turned):
            kinds["turned"] += 1
        else:
            assert any((image == other).all() for other in rotated.values())
            kinds["rotated"] += 1
    # 1/4, 1/2 and 1/4 (a few small angles change nothing on 9 x 9); 5 standard deviations are 0.1
    assert kinds["turned"] / 600 == pytest.approx(0.5, abs=0.1)
    assert kinds["rotated"] / 600 == pytest.approx(0.23, abs=0.1)


def test_augmentation_is_keyed(tmp_path):
    raw(tmp_path)

    def passes(seed):
        dataset = SynapseDataset("train", tmp_path, size=16, augment=True, seed=seed)
        return [torch.stack([dataset.in_pass(i, number)["image"] for i in range(4)]) for number in (0, 1)]

    first, second = passes(0)
    assert not torch.equal(first, second)
    assert torch.equal(torch.stack(passes(0)), torch.stack([first, second]))
    assert not torch.equal(passes(1)[0], first)
    dataset = SynapseDataset("train", tmp_path, size=16, augment=True)
    backwards = [dataset[i]["image"] for i in (3, 2, 1, 0)]
    assert torch.equal(torch.stack(backwards[::-1]), first)  # the order of the others does not matter
    served = InPasses(dataset)  # neither does which process asks, nor what it was asked before
    assert torch.equal(torch.stack([served[len(dataset) + i]["image"] for i in range(4)]), second)
    assert SynapseDataset("train", tmp_path, size=16).fingerprint != dataset.fingerprint


@pytest.mark.skipif(not REAL_CT.is_dir(), reason=f"no real CT: {REAL_CT} is absent (set MISURE_DATA)")
def test_real_ct_end_to_end(tmp_path):
    """A NIfTI scan and a DICOM series with TotalSegmentator's labels; voxel counts from their description."""
    pairs = {
        "a": ("example_ct.nii.gz", "example_seg_fast_force_split.nii.gz"),
        "b": ("example_ct_dicom", "example_seg_dicom.nii.gz"),
    }
    for part in ("images", "labels"):
        (tmp_path / "own" / part).mkdir(parents=True)
    for name, (image, label) in pairs.items():
        ending = "" if (REAL_CT / image).is_dir() else ".nii.gz"
        (tmp_path / "own" / "images" / f"{name}{ending}").symlink_to((REAL_CT / image).resolve())
        (tmp_path / "own" / "labels" / f"{name}.nii.gz").symlink_to((REAL_CT / label).resolve())
    assert "rejected" not in prepare_synapse(tmp_path, tmp_path / "own", "totalsegmentator")
    train, val = (SynapseDataset(split, tmp_path) for split in ("train", "val"))
    assert (len(train), len(val)) == (112, 20)
    _, label = train.volume("case1001")
    counts = [1839, 1319, 5090, 7134, 41692, 695, 9668, 4836]  # in the order of CLASS_NAMES
    assert np.bincount(label.ravel(), minlength=9).tolist()[1:] == counts
    assert sum(bool(plane.any()) for plane in label) == 51
    depth, row, column = (
        {name: np.nonzero(label == number)[axis].mean() for number, name in enumerate(CLASS_NAMES)} for axis in range(3)
    )
    assert column["liver"] < column["aorta"] < column["spleen"]  # the patient's right is on the left
    assert column["right kidney"] < column["aorta"] < column["left kidney"]
    assert row["left kidney"] > row["pancreas"]  # which lies in front
    assert depth["liver"] > depth["left kidney"]  # which lies below
    image, label = val.volume("case1003")
    hu = image * 400 - 125
    # 89 +- 22 and 80 +- 21 HU by the description of the data, hardly touched by the window
    assert hu[label == 5].mean() == pytest.approx(89, abs=1)
    assert hu[label == 7].mean() == pytest.approx(80, abs=1)
    assert np.unique(label).tolist() == [0, 1, 5, 6, 7, 8]
    assert ((label == 5).sum(), (label == 1).sum()) == (366708, 11723)
    assert np.median(np.nonzero(hu > 200)[1]) > np.nonzero(label == 1)[1].mean()  # the spine is the brightest
    assert val[10]["image"].shape == (1, 224, 224)
    assert 0.5 < (val[10]["mask"] == 5).sum() / (label[10] == 5).sum() * (512 / 224) ** 2 < 1.5
