"""A user's own scans: how they are found, numbered, labelled and prepared again."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from ct_files import AFFINE, labels, own_folder, scan, write_nifti, write_series

from misure.datasets.synapse.btcv import Preparation, prepare
from misure.datasets.synapse.own_ct import LABEL_MAPS, LAST_LABEL_IDS, case_ids, own_pairs
from misure.datasets.synapse.prepared import Manifest
from misure.datasets.synapse.protocol import CLASS_NAMES, LABEL_MAP, split_of
from misure.errors import MisureError
from misure.io.reading import ImageFileError
from misure.io.volume import radiological


def prepared(source: Path, target: Path, numbering: str = "btcv") -> Preparation:
    earlier = Manifest.load(target)
    pairs, _ = own_pairs(source, earlier.numbers if earlier else None)
    return prepare(pairs, target, label_map=LABEL_MAPS[numbering], last_label_id=LAST_LABEL_IDS[numbering])


def classes(folder: Path, case: int) -> np.ndarray:
    """Labels of a prepared validation volume, Z x H x W."""
    with h5py.File(folder / "test_vol_h5" / f"case{case:04d}.npy.h5") as file:
        return file["label"][:]


def test_every_third_own_case_is_for_validation():
    for n in range(1, 12):
        ids = case_ids([f"scan{number:02d}" for number in range(n)], {}).values()
        assert len(set(ids)) == n
        assert [split_of(case) for case in ids].count("val") == max(1, n // 3)
    with pytest.raises(ImageFileError, match="no published split"):
        split_of(61)


@pytest.mark.parametrize(
    ("names", "numbered", "expected"),
    [
        ("ab", {"a": 1001, "b": 1003}, [1001, 1003]),
        ("ac", {"a": 1001, "b": 1003}, [1001, 1006]),  # of new ones the last, where none is left for validation
        ("abd", {"a": 1001, "b": 1002, "c": 1003}, [1001, 1002, 1006]),
        ("abc", {"a": 1001, "c": 1003, "b": 1002}, [1001, 1002, 1003]),  # back again
        ("0ac", {"a": 1001, "c": 1003}, [1004, 1001, 1003]),
    ],
)
def test_a_scan_keeps_its_case(names, numbered, expected):
    assert list(map(case_ids(names, numbered).get, names)) == expected


@pytest.mark.parametrize("axes", ["RAS", "PIL"])
def test_labels_may_have_other_axes_than_a_series(tmp_path, axes):
    write_series(tmp_path / "images" / "a", scan())
    write_nifti(tmp_path / "labels" / "a.nii.gz", labels(), axes=axes)
    done = prepared(tmp_path, tmp_path / "out")
    assert not done.manifest.rejected
    expected = np.vectorize(lambda value: LABEL_MAP.get(int(value), 0))(radiological(labels()))
    np.testing.assert_array_equal(classes(done.folder, 1003), expected)


def test_totalsegmentators_ids(tmp_path):
    organs = {1: "spleen", 2: "right kidney", 3: "left kidney", 4: "gallbladder", 5: "liver", 6: "stomach"}
    organs |= {7: "pancreas", 52: "aorta"}
    assert {given: CLASS_NAMES[number] for given, number in LABEL_MAPS["totalsegmentator"].items()} == organs
    ids = np.random.default_rng(0).integers(0, 118, (7, 6, 5)).astype(np.uint8)
    ids.ravel()[:9] = [*organs, 117]
    write_nifti(tmp_path / "images" / "a.nii", scan())
    write_nifti(tmp_path / "labels" / "a.nii", ids)
    found = classes(prepared(tmp_path, tmp_path / "out", "totalsegmentator").folder, 1003)
    expected = [CLASS_NAMES.index(organs.get(int(value), "background")) for value in radiological(ids).ravel()]
    np.testing.assert_array_equal(found.ravel(), expected)
    assert "unknown label value" in prepared(tmp_path, tmp_path / "btcv").manifest.rejected["case1003"].reason
    write_nifti(tmp_path / "labels" / "a.nii", ids, AFFINE + np.eye(4) * 0.5)
    again = prepared(tmp_path, tmp_path / "out", "totalsegmentator")
    assert "different affines" in again.manifest.rejected["case1003"].reason


def test_a_folder_of_own_scans(tmp_path):
    source = own_folder(tmp_path / "mine", "dbca")
    write_series(source / "images" / "e", scan(seed=9))
    write_nifti(source / "labels" / "e.nii.gz", labels(seed=9))
    (source / "images" / "alone.nii").write_bytes(b"")
    (source / "images" / "b.nii.gz").write_bytes(b"\x1f\x8b")
    pairs, lonely = own_pairs(source)
    assert lonely == {"alone": "missing partner: no label"}
    assert {pair.case: pair.images[0].name for pair in pairs} == {
        1001: "a.nii.gz", 1002: "b.nii.gz", 1003: "c.nii.gz", 1004: "d.nii.gz", 1005: "e"
    }  # fmt: skip
    done = prepared(source, tmp_path / "out")
    splits = {name: case.split for name, case in done.manifest.cases.items()}
    assert splits == {"case1001": "train", "case1003": "val", "case1004": "train", "case1005": "train"}
    assert "b.nii.gz cannot be read" in done.manifest.rejected["case1002"].reason
    assert "published" not in done.summary


def test_own_scans_are_prepared_once(tmp_path):
    source, target = own_folder(tmp_path / "mine", "ab"), tmp_path / "out"
    series = write_series(source / "images" / "c", scan(seed=9))
    write_nifti(source / "labels" / "c.nii.gz", labels(seed=9))
    assert [prepared(source, target).n_new for _ in range(2)] == [3, 0]
    os.utime(source / "labels" / "b.nii", ns=(1, 1))
    assert prepared(source, target).n_new == 1
    os.utime(min(series.iterdir()), ns=(2**62, 2**62))
    assert prepared(source, target).n_new == 1
    away = (source / "images" / "a.nii.gz").rename(tmp_path / "a.nii.gz")
    write_nifti(source / "images" / "0.nii.gz", scan(seed=8))
    write_nifti(source / "labels" / "0.nii.gz", labels(seed=8))
    done = prepared(source, target)  # none that a network was trained on becomes one for validation
    expected = {"case1002": "b.nii.gz", "case1003": "c", "case1004": "0.nii.gz"}
    assert {name: case.files[0].name for name, case in done.manifest.cases.items()} == expected
    assert done.n_new == 1
    done = prepared(source, target, "totalsegmentator")
    assert {name: case.files[0].name for name, case in done.manifest.cases.items()} == expected
    assert done.n_new == 3
    away.rename(source / "images" / "a.nii.gz")
    assert "case1001" in prepared(source, target).manifest.cases


def test_folders_that_are_no_source(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(MisureError, match=r"labels is not a folder: a source has either the official"):
        own_pairs(tmp_path)
    (tmp_path / "labels").mkdir()
    with pytest.raises(MisureError, match="no entry of images/ has a NIfTI file of the same name"):
        own_pairs(tmp_path)
    own_folder(tmp_path, "a")
    (tmp_path / "images" / "a.nii").touch()
    with pytest.raises(MisureError, match=r"has a\.nii and a\.nii\.gz: keep one"):
        own_pairs(tmp_path)


def whole(ids, path):
    nib.Nifti1Image(ids.astype(np.uint8), AFFINE).to_filename(path)


def nearly(ids, path):
    nib.Nifti1Image(ids.astype(np.float32) * np.float32(0.9999999), AFFINE).to_filename(path)


def above(ids, path):
    nib.Nifti1Image(ids * 1.00005, AFFINE).to_filename(path)


def scaled(ids, path):
    """What nibabel does with floating labels in an integer file: a scale factor."""
    image = nib.Nifti1Image(ids.astype(np.float64), AFFINE)
    image.set_data_dtype(np.int16)
    image.to_filename(path)


def sloped(ids, path):
    """A slope that float32 does not hold exactly."""
    content = bytearray(nib.Nifti1Image((ids * 10).astype(np.int16), AFFINE).to_bytes())
    content[112:120] = np.array([0.1, 0], "<f4").tobytes()
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("write", [whole, nearly, above, scaled, sloped])
@pytest.mark.parametrize("numbering", LABEL_MAPS)
def test_every_organ_is_counted_however_its_label_is_stored(tmp_path, write, numbering):
    ids = np.array([0, *LABEL_MAPS[numbering], LAST_LABEL_IDS[numbering]])
    voxels = np.random.default_rng(0).choice(ids, (7, 6, 5))
    write_nifti(tmp_path / "images" / "a.nii.gz", scan(), axes="RAS")
    (tmp_path / "labels").mkdir()
    write(voxels, tmp_path / "labels" / "a.nii")
    found = classes(prepared(tmp_path, tmp_path / "out", numbering).folder, 1003)
    expected = {number: int((voxels == given).sum()) for given, number in LABEL_MAPS[numbering].items()}
    assert dict(enumerate(np.bincount(found.ravel(), minlength=9)[1:].tolist(), start=1)) == expected
    assert min(expected.values()) > 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda ids: ids * np.float32(0.97),
            "unknown label value 0.97, 1.94, 2.91, 3.88, 4.85 (202 voxels): labels are",
        ),
        (lambda ids: np.where(ids == 1, np.nan, ids), "unknown label value nan"),
        (lambda ids: ids + 113, "unknown label value 118, 119, 120, 121, 122"),
        (lambda ids: ids - 1.0, "unknown label value -1 ("),
        (lambda ids: np.stack([ids == n for n in range(14)], axis=-1).astype(np.uint8), "not one 3-D volume"),
        (lambda ids: ids[:-1], "image has 7 x 6 x 5 voxels, label 6 x 6 x 5"),
    ],
)
def test_labels_that_are_none_are_counted_and_never_background(tmp_path, change, reason):
    write_nifti(tmp_path / "images" / "a.nii.gz", scan(), axes="RAS")
    (tmp_path / "labels").mkdir()
    nib.Nifti1Image(change(labels()), AFFINE).to_filename(tmp_path / "labels" / "a.nii")
    done = prepared(tmp_path, tmp_path / "out", "totalsegmentator")
    assert reason in done.manifest.rejected["case1003"].reason
    assert not done.manifest.cases


def test_entries_that_are_no_scans_are_named(tmp_path):
    source = own_folder(tmp_path, "ab")
    for name in ("images/c.nrrd", "labels/c.mha", "images/d.txt"):
        (source / name).write_bytes(b"something")
    (source / "images" / "e.nii.gz").symlink_to("nowhere")
    pairs, lonely = own_pairs(source)
    assert [pair.images[0].name for pair in pairs] == ["a.nii.gz", "b.nii.gz"]
    assert lonely.pop("images/e.nii.gz") == "a link to nothing"
    assert lonely.keys() == {"images/c.nrrd", "labels/c.mha", "images/d.txt"}
    assert set(lonely.values()) == {"neither NIfTI (.nii, .nii.gz) nor the folder of a DICOM series"}
