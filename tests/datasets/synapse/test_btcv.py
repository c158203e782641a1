"""Preparation of volumes: exact slices, the published protocol, rejected volumes named, resuming."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pytest
from ct_files import AFFINE, labels, scan, write_case, write_nifti

from misure.datasets.synapse import btcv
from misure.datasets.synapse.btcv import Preparation, find_pairs
from misure.datasets.synapse.prepared import Manifest, PreparedCase
from misure.datasets.synapse.protocol import (
    CLASS_NAMES,
    LABEL_MAP,
    OFFICIAL,
    TRAIN_SLICES,
    VAL_CASES,
    VAL_SLICES,
    compare_with_published,
    split_of,
)
from misure.errors import MisureError
from misure.io.locks import alone
from misure.io.reading import ImageFileError

BTCV_ORGANS = {8: "aorta", 4: "gallbladder", 3: "left kidney", 2: "right kidney", 6: "liver"} | {
    11: "pancreas",
    1: "spleen",
    7: "stomach",
}


def prepare(source: Path, target: Path) -> Preparation:
    return btcv.prepare(find_pairs(source), target)


def outputs(target: Path) -> dict[str, int]:
    """Every prepared file with the time it was written."""
    return {path.name: path.stat().st_mtime_ns for path in target.rglob("*") if path.suffix in {".npz", ".h5"}}


def slow_slices(image, ids):
    """Voxel by voxel: what slices of a volume in patient axes must hold."""
    x, y, z = image.shape
    pictures, classes = np.zeros((z, y, x)), np.zeros((z, y, x), int)
    for i, j, k in np.ndindex(x, y, z):
        hu = min(max(float(image[i, j, k]), -125.0), 275.0)
        pictures[k, y - 1 - j, x - 1 - i] = (hu + 125) / 400
        classes[k, y - 1 - j, x - 1 - i] = LABEL_MAP.get(int(ids[i, j, k]), 0)
    return pictures, classes


def test_the_published_protocol():
    assert sum(TRAIN_SLICES.values()) == 2211
    assert VAL_SLICES == 3779 - 2211
    assert not set(TRAIN_SLICES) & set(VAL_CASES)
    assert set(TRAIN_SLICES) | set(VAL_CASES) == {*range(1, 11), *range(21, 41)}
    assert {label: CLASS_NAMES[number] for label, number in LABEL_MAP.items()} == BTCV_ORGANS


def test_slices_are_exact(tmp_path):
    write_case(tmp_path, 5, (7, 6, 5))
    write_case(tmp_path, 1, (4, 8, 3))
    done = prepare(tmp_path, tmp_path / "out")
    pictures, classes = slow_slices(scan((7, 6, 5), 5), labels((7, 6, 5), 5))
    for number in range(5):
        with np.load(tmp_path / "out" / "train_npz" / f"case0005_slice{number:03d}.npz") as file:
            assert set(file) == {"image", "label"}
            assert (file["image"].dtype, file["label"].dtype) == (np.float32, np.uint8)
            np.testing.assert_allclose(file["image"], pictures[number], atol=1e-7)  # float32
            np.testing.assert_array_equal(file["label"], classes[number])
    pictures, classes = slow_slices(scan((4, 8, 3), 1), labels((4, 8, 3), 1))
    with h5py.File(tmp_path / "out" / "test_vol_h5" / "case0001.npy.h5") as file:
        assert (file["image"].dtype, file["label"].dtype) == (np.float32, np.uint8)
        assert file["image"].chunks == (1, 8, 4)
        np.testing.assert_allclose(file["image"][:], pictures, atol=1e-7)
        np.testing.assert_array_equal(file["label"][:], classes)
    assert (done.manifest.slices("train"), done.manifest.slices("val")) == (5, 3)
    assert outputs(tmp_path / "out").keys() == {f"case0005_slice{n:03d}.npz" for n in range(5)} | {"case0001.npy.h5"}


def test_files_are_found_in_any_folder(tmp_path):
    image, label = write_case(tmp_path / "elsewhere", 5)
    write_case(tmp_path / "source" / "Abdomen", 1)
    (tmp_path / "source" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "source" / "loop").symlink_to(tmp_path / "source")
    (image.parent / "._img0005.nii.gz").write_bytes(b"what macOS leaves behind")
    (image.parent / "img0005 (1).nii.gz").write_bytes(b"a browser's second download")
    (label.parent / "label0006.nii.gz").symlink_to(tmp_path / "nowhere")
    assert [pair.name for pair in find_pairs(tmp_path / "source")] == ["case0001", "case0005", "case0006"]
    assert prepare(tmp_path / "source", tmp_path / "out").manifest.cases.keys() == {"case0001", "case0005"}


FAULTS = {
    "truncated image": (
        lambda image, label: image.write_bytes(image.read_bytes()[:-20]),
        "img0007.nii.gz cannot be read",
    ),
    "no label": (lambda image, label: label.unlink(), "missing partner: there is no label"),
    "affine": (lambda image, label: write_nifti(label, labels(), AFFINE * 1.1), "different affines"),
    "label value": (lambda image, label: write_nifti(label, labels() * 3), "unknown label value 15, 18, 21, 24, 27"),
    "negative": (lambda image, label: write_nifti(label, labels().astype(np.int16) - 1), "unknown label value -1"),
    "fraction": (lambda image, label: write_nifti(label, labels() / np.float32(2)), "unknown label value 0.5, 1.5"),
    "not finite": (lambda image, label: write_nifti(image, scan() / np.float32(0)), "not finite"),
    "a picture": (lambda image, label: write_nifti(image, labels()), "not Hounsfield units"),
    "twice": (lambda image, label: shutil.copy(image, image.parent.parent), "image was found 2 times, keep one"),
}


@pytest.mark.filterwarnings("ignore:divide by zero|invalid value")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_rejected_volume_is_named_and_stops_nothing(tmp_path, fault):
    for case in (5, 9, 1):
        write_case(tmp_path, case)
    change, reason = FAULTS[fault]
    change(*write_case(tmp_path, 7))
    done = prepare(tmp_path, tmp_path / "out")
    assert done.manifest.cases.keys() == {"case0001", "case0005", "case0009"}
    assert done.lost.keys() == done.manifest.rejected.keys() == {"case0007"}
    assert reason in done.manifest.rejected["case0007"].reason
    assert not [name for name in outputs(tmp_path / "out") if "0007" in name]


def test_unlabelled_test_scans_are_named_together(tmp_path):
    write_case(tmp_path, 5)
    for case in (61, 62):
        write_nifti(tmp_path / "RawData" / "Testing" / f"img{case:04d}.nii.gz", scan())
    done = prepare(tmp_path, tmp_path / "out")
    assert "rejected: img0061.nii.gz; img0062.nii.gz: case id is in no published split" in done.summary
    assert not done.lost


def test_nothing_is_made_twice(tmp_path):
    for case in (5, 6, 1):
        write_case(tmp_path, case)
    write_case(tmp_path, 7)[1].unlink()
    first = prepare(tmp_path, tmp_path / "out")
    before = outputs(tmp_path / "out")
    manifest = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    assert first.n_new == 3
    assert prepare(tmp_path, tmp_path / "out").n_new == 0
    assert outputs(tmp_path / "out") == before
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == manifest
    (tmp_path / "out" / "train_npz" / "case0005_slice002.npz").unlink()  # an output is gone
    write_nifti(tmp_path / "RawData" / "Training" / "img" / "img0001.nii.gz", scan(seed=77))  # a source changed
    write_case(tmp_path, 7)  # the partner came
    again = prepare(tmp_path, tmp_path / "out")
    assert again.n_new == 3
    after = outputs(tmp_path / "out")
    assert {name for name in before if before[name] == after[name]} == {f"case0006_slice{n:03d}.npz" for n in range(5)}
    assert not again.manifest.rejected
    assert again.manifest.complete


def test_an_interrupted_preparation_goes_on(tmp_path, monkeypatch):
    for case in (5, 6, 7):
        write_case(tmp_path, case)
    real, calls = btcv.write_slices, []

    def interrupted(folder, case, slices):
        calls.append(case)
        real(folder, case, list(slices)[: 2 if case == "case0006" else None])
        if case == "case0006":
            raise KeyboardInterrupt

    monkeypatch.setattr(btcv, "write_slices", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, tmp_path / "out")
    manifest = Manifest.load(tmp_path / "out")
    assert manifest.cases.keys() == {"case0005"}
    assert not manifest.complete
    monkeypatch.setattr(btcv, "write_slices", lambda *given: (calls.append(given[1]), real(*given)))
    done = prepare(tmp_path, tmp_path / "out")
    assert calls == ["case0005", "case0006", "case0006", "case0007"]
    assert done.manifest.complete
    assert done.manifest.slices("train") == 15


def test_a_full_disk_is_one_line_and_not_a_rejected_volume(tmp_path, monkeypatch):
    write_case(tmp_path, 5)
    real = Path.replace

    def full(self, target):
        if "slice003" in self.name:
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(MisureError, match=r"cannot write .*case0005_slice003\.npz: No space left on device") as caught:
        prepare(tmp_path, tmp_path / "out")
    assert not isinstance(caught.value, ImageFileError)
    assert not list((tmp_path / "out").rglob("*.part"))
    monkeypatch.undo()
    assert prepare(tmp_path, tmp_path / "out").manifest.slices("train") == 5


def test_other_settings_make_all_again(tmp_path):
    write_case(tmp_path, 5)
    prepare(tmp_path, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    content = json.loads(path.read_text())
    assert content["settings"]["hu_window"] == [-125, 275]
    content["settings"]["hu_window"] = [-100, 275]
    path.write_text(json.dumps(content))
    assert prepare(tmp_path, tmp_path / "out").n_new == 1
    path.write_text(path.read_text()[:-20])
    with pytest.raises(MisureError, match=r"manifest.json cannot be read .* delete it"):
        prepare(tmp_path, tmp_path / "out")


def test_another_process_that_prepares_loses_nothing_to_one_that_looks(tmp_path):
    """What was made with other settings was once removed without the lock."""
    write_case(tmp_path / "source", 5)
    write_case(tmp_path / "source", 6)
    prepare(tmp_path / "source", tmp_path / "out")
    path, before = tmp_path / "out" / "manifest.json", outputs(tmp_path / "out")
    path.write_text(path.read_text().replace("-125", "-100"))
    (tmp_path / "source" / "RawData" / "Training" / "img" / "img0006.nii.gz").unlink()
    with alone(tmp_path / ".out.lock", lambda: pytest.fail("nobody has it")):
        thread = threading.Thread(target=prepare, args=(tmp_path / "source", tmp_path / "out"))
        thread.start()
        thread.join(1)
        assert outputs(tmp_path / "out") == before
    thread.join(60)
    assert Manifest.load(tmp_path / "out").cases.keys() == {"case0005"}
    assert {name[:8] for name in outputs(tmp_path / "out")} == {"case0005"}


def test_a_case_of_fewer_files_than_slices_is_made_again(tmp_path):
    write_case(tmp_path, 5)
    prepare(tmp_path, tmp_path / "out")
    lost = tmp_path / "out" / "train_npz" / "case0005_slice002.npz"
    path, content = tmp_path / "out" / "manifest.json", json.loads((tmp_path / "out" / "manifest.json").read_text())
    content["cases"]["case0005"]["output_bytes"] -= lost.stat().st_size  # as whoever counted without it
    path.write_text(json.dumps(content))
    lost.unlink()
    assert prepare(tmp_path, tmp_path / "out").n_new == 1
    assert lost.is_file()


def test_kinds_are_not_mixed(tmp_path):
    write_case(tmp_path / "official", 5)
    write_case(tmp_path / "own", 1001)
    prepare(tmp_path / "official", tmp_path / "out")
    with pytest.raises(MisureError, match="was made from official BTCV volumes, not own CT volumes"):
        prepare(tmp_path / "own", tmp_path / "out")
    with pytest.raises(MisureError, match="keep one kind"):
        prepare(tmp_path, tmp_path / "other")


def published() -> Manifest:
    """A manifest with the published numbers of slices (the validation ones made up)."""
    counts = TRAIN_SLICES | dict.fromkeys(VAL_CASES[:-1], 130) | {VAL_CASES[-1]: VAL_SLICES - 11 * 130}
    cases = {
        f"case{case:04d}": PreparedCase(split_of(case), n, (512, 512), (1.0, 1.0, 1.0), 1, ())
        for case, n in counts.items()
    }
    return Manifest(OFFICIAL, {}, complete=True, cases=cases)


def test_the_comparison_with_the_published_counts():
    whole = published()
    assert compare_with_published(whole) == ("all published slices came out: 2211 training and 1568 validation slices")
    for case, text in (("case0010", "0010 (7, published 148)"), ("case0008", "in validation")):
        other = published()
        other.cases[case] = PreparedCase(**asdict(other.cases[case]) | {"slices": 7, "files": ()})
        assert compare_with_published(other).startswith("NOT the published 2211 training and 1568")
        assert compare_with_published(other).endswith(text)
    del whole.cases["case0008"], whole.cases["case0040"]
    assert compare_with_published(whole).endswith("missing cases: 0008, 0040")


def test_processes_that_prepare_one_folder_take_turns(tmp_path):
    """Each once removed what the other had just written; the images of one process were half as many."""
    for case in (1, 2, 5, 6, 7, 8):
        write_case(tmp_path / "source", case)
    alone = prepare(tmp_path / "source", tmp_path / "alone").manifest
    threads = [threading.Thread(target=prepare, args=(tmp_path / "source", tmp_path / "out")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    manifest = Manifest.load(tmp_path / "out")
    assert manifest.complete
    assert manifest.cases.keys() == alone.cases.keys()
    assert outputs(tmp_path / "out").keys() == outputs(tmp_path / "alone").keys()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".lock"] == []


def test_a_prepared_folder_that_cannot_be_written_is_used_as_it_is(tmp_path, monkeypatch):
    write_case(tmp_path / "source", 5)
    prepare(tmp_path / "source", tmp_path / "out")
    monkeypatch.setattr(btcv, "alone", lambda *_: pytest.fail("a lock would be written"))
    assert prepare(tmp_path / "source", tmp_path / "out").n_new == 0
