"""Generated CT volumes: positions, sizes and Hounsfield units of an abdomen, and files like BTCV's."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from misure.datasets.synapse.btcv import find_pairs, prepare
from misure.datasets.synapse.protocol import TRAIN_SLICES, VAL_CASES
from misure.datasets.synthetic import phantom
from misure.datasets.synthetic.phantom import PhantomSpec, make_phantom, write_phantoms

ORGANS = {"spleen": 1, "right kidney": 2, "left kidney": 3, "gallbladder": 4, "liver": 6, "stomach": 7, "aorta": 8}
ORGANS["pancreas"] = 11
SMALL = PhantomSpec(size=96, slices=24)
TINY = PhantomSpec(train_volumes=2, val_volumes=1, size=48, slices=10)
CASES = (5, 31, 8)


@pytest.fixture(scope="module")
def patients():
    return {case: make_phantom(SMALL, case) for case in CASES}


@pytest.fixture(params=CASES)
def patient(request, patients):
    return patients[request.param]


def centres(label, affine):
    """Centroid of each label in millimetres: right, front, head."""
    means = {int(k): np.argwhere(label == k).mean(0) for k in np.unique(label) if k}
    return {k: (affine @ np.append(centre, 1))[:3] for k, centre in means.items()}


def test_types_affine_and_labels(patient):
    image, label, affine = patient
    assert image.shape == label.shape == (96, 96, 24) == SMALL.shape
    assert (image.dtype, label.dtype) == (np.int16, np.uint8)
    assert nib.aff2axcodes(affine) == ("R", "A", "S")
    width, depth, height = np.diag(affine)[:3] * image.shape
    assert 376 <= width == depth <= 400
    assert 245 <= height <= 285
    for side in (image[:2], image[-2:]):
        assert (side < -900).mean() > 0.99  # air beside the patient
    assert set(np.unique(label)) == set(range(14))
    slices = {name: (label == k).any((0, 1)).sum() for name, k in ORGANS.items()}
    assert slices.pop("aorta") == 24
    assert all(2 <= n <= 17 for n in slices.values()), slices


def test_organs_lie_where_they_belong(patient):
    _, label, affine = patient
    at = centres(label, affine)
    right, front, head = ({name: at[k][axis] for name, k in ORGANS.items()} for axis in range(3))
    assert right["liver"] > right["gallbladder"] > right["aorta"] > right["stomach"] > right["spleen"]
    assert right["right kidney"] > at[9][0] > right["aorta"] > right["left kidney"]
    assert front["stomach"] > front["pancreas"] > front["aorta"] > front["left kidney"]
    assert min(front["gallbladder"], front["stomach"]) > max(front["left kidney"], front["right kidney"])
    assert min(head["liver"], head["spleen"], head["stomach"]) > head["pancreas"] > head["right kidney"]
    assert head["liver"] > head["gallbladder"]


UNITS = {"spleen": 118, "right kidney": 160, "left kidney": 160, "gallbladder": 10, "liver": 105, "aorta": 170}


def test_hounsfield_units_are_those_of_the_organs_with_a_scanners_noise(patient):
    image, label, _ = patient
    for name, unit in UNITS.items():
        values = image[label == ORGANS[name]]
        assert np.median(values) == pytest.approx(unit, rel=0.4, abs=15), name  # contrast has a deviation of a tenth
    pairs = (label[1:] == ORGANS["liver"]) & (label[:-1] == ORGANS["liver"])
    steps = np.diff(image.astype(float), axis=0)[pairs]
    assert 10 < steps.std() < 30  # sqrt(2) sd sqrt(1 - correlation), sd about 15


def test_a_patient_depends_on_seed_and_case_alone(patients):
    again = make_phantom(PhantomSpec(train_volumes=1, val_volumes=12, size=96, slices=24), 31)
    for first, second in zip(patients[31], again, strict=True):
        assert np.array_equal(first, second)
    made = [make_phantom(PhantomSpec(size=48, slices=10, seed=seed), case) for seed, case in ((0, 5), (1, 5), (0, 6))]
    for first in range(3):
        for second in range(first):
            assert (made[first][1] != made[second][1]).mean() > 0.01
            assert np.abs(made[first][0].astype(int) - made[second][0]).mean() > 20


def test_what_is_drawn_belongs_to_the_version():
    """Whoever changes the drawing raises the version, and with it the names of folders."""
    image, label, _ = make_phantom(TINY, 6)
    assert phantom.VERSION == 1
    counts = [21585, 88, 107, 106, 25, 7, 733, 184, 74, 84, 13, 30, 2, 2]
    assert np.bincount(label.ravel()).tolist() == pytest.approx(counts, abs=2)  # rounding at a surface
    assert image.mean() == pytest.approx(-611.6, abs=0.5)


def test_files_have_the_names_and_form_of_btcv_and_are_prepared(tmp_path):
    write_phantoms(tmp_path, TINY)
    training = tmp_path / "RawData" / "Training"
    names = sorted(str(path.relative_to(training)) for path in tmp_path.rglob("*") if path.is_file())
    assert names == [f"{kind}/{kind}{case}.nii.gz" for kind in ("img", "label") for case in ("0001", "0005", "0006")]
    image, label, affine = make_phantom(TINY, 6)
    stored = nib.load(training / "img" / "img0006.nii.gz")
    truth = nib.load(training / "label" / "label0006.nii.gz")
    assert np.array_equal(np.asanyarray(stored.dataobj), image)
    assert np.array_equal(np.asanyarray(truth.dataobj), label)
    assert (stored.get_data_dtype(), truth.get_data_dtype()) == (np.int16, np.uint8)
    assert np.allclose(stored.affine, affine, atol=1e-4)  # NIfTI keeps float32
    manifest = prepare(find_pairs(tmp_path), tmp_path / "prepared").manifest
    splits = {name: case.split for name, case in manifest.cases.items()}
    assert splits == {"case0001": "val", "case0005": "train", "case0006": "train"}
    assert manifest.slices("train") == 20


def test_cases_are_those_of_the_published_split_and_have_all_organs_even_when_coarse():
    assert PhantomSpec().cases == (5, 6, 7, 9, 10, 1, 2, 3)
    spec = PhantomSpec(18, 12, size=48, slices=20)
    assert spec.cases == (*TRAIN_SLICES, *VAL_CASES)
    for case in spec.cases:
        assert set(ORGANS.values()) <= set(np.unique(make_phantom(spec, case)[1])), case
