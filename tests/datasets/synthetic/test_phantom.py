"""Generated CT volumes: positions, sizes and Hounsfield units of an abdomen, and files like BTCV's."""

from __future__ import annotations

import errno
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import maximum_filter

from misure.datasets.synapse.btcv import prepare
from misure.datasets.synapse.protocol import LABEL_MAP, TRAIN_SLICES, VAL_CASES
from misure.datasets.synthetic import phantom
from misure.datasets.synthetic.phantom import PhantomSpec, make_phantom, write_phantoms
from misure.datasets.synthetic.phantom_canvas import Canvas, _smooth_field
from misure.errors import MisureError

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
    found = {int(k): np.argwhere(label == k).mean(0) for k in np.unique(label) if k}
    return {k: (affine @ np.append(centre, 1))[:3] for k, centre in found.items()}


# The patient


def test_types_and_affine(patient):
    image, label, affine = patient
    assert image.shape == label.shape == (96, 96, 24) == SMALL.shape
    assert (image.dtype, label.dtype) == (np.int16, np.uint8)
    assert nib.aff2axcodes(affine) == ("R", "A", "S")
    width, depth, height = np.diag(affine)[:3] * image.shape
    assert 360 <= width == depth <= 400
    assert 240 <= height <= 300


def test_every_label_of_btcv_is_there_and_each_organ_only_in_some_slices(patient):
    _, label, _ = patient
    assert {0, *LABEL_MAP} <= set(np.unique(label)) <= set(range(14))
    slices = {name: (label == k).any((0, 1)).sum() for name, k in ORGANS.items()}
    assert slices.pop("aorta") >= 20
    assert all(2 <= n <= 17 for n in slices.values()), slices


def test_all_default_patients_have_all_eight_organs_even_when_coarse():
    spec = PhantomSpec(size=48, slices=20)
    for case in spec.cases:
        assert set(LABEL_MAP) <= set(np.unique(make_phantom(spec, case)[1])), case


def test_organs_lie_where_they_belong(patient):
    image, label, affine = patient
    at = centres(label, affine)
    right = {name: at[k][0] for name, k in ORGANS.items()}
    front = {name: at[k][1] for name, k in ORGANS.items()}
    head = {name: at[k][2] for name, k in ORGANS.items()}
    assert right["liver"] > right["gallbladder"] > right["aorta"] > right["stomach"] > right["spleen"]
    assert right["right kidney"] > at[9][0] > right["aorta"] > right["left kidney"]
    assert front["stomach"] > front["pancreas"] > front["aorta"] > front["left kidney"]
    assert min(front["gallbladder"], front["stomach"]) > max(front["left kidney"], front["right kidney"])
    assert min(head["liver"], head["spleen"], head["stomach"]) > head["pancreas"] > head["right kidney"]
    assert head["liver"] > head["gallbladder"]
    # the spine lies behind the aorta and to its right
    bone = (image > 350) & (np.abs(np.arange(96) - 47.5) < 12)[:, None, None]
    spine = (affine @ np.append(np.argwhere(bone).mean(0), 1))[:3]
    assert spine[1] < front["aorta"] - 15
    assert spine[0] > right["aorta"]


def test_lungs_are_at_the_top_and_bones_everywhere(patient):
    image, _, _ = patient
    centre = image[24:72, 33:63]
    lung = (centre < -700).mean((0, 1))
    assert lung[-1] > 0.2
    assert lung[8:14].max() < 0.3  # bowel gas only
    assert ((image > 350).any((0, 1))).mean() > 0.75  # a thick slice through a disc may have none
    assert (image[:2] < -900).mean() > 0.99  # air beside the patient
    assert (image[-2:] < -900).mean() > 0.99


def test_sizes_reach_from_a_few_pixels_to_thousands():
    _, label, _ = make_phantom(PhantomSpec(size=256, slices=48), 5)
    sizes = {name: (label == k).sum((0, 1)) for name, k in ORGANS.items()}
    positive = {name: size[size > 0] for name, size in sizes.items()}
    assert min(size.min() for size in positive.values()) < 20
    assert 4000 < positive["liver"].max() < 12000
    for name in ("spleen", "left kidney", "right kidney", "stomach", "pancreas"):
        assert positive[name].min() < 0.25 * positive[name].max(), name
        assert 200 < positive[name].max() < 4000, name


MEANS = {
    "spleen": (80, 130),
    "right kidney": (115, 185),
    "left kidney": (115, 185),
    "gallbladder": (-10, 45),
    "liver": (75, 130),
    "aorta": (95, 230),
    "pancreas": (55, 110),
}
"""Contrast of patients with allowance for pixels of 4 mm, of which many lie on a surface."""


def test_hounsfield_units_of_organs(patient):
    image, label, _ = patient
    for name, (low, high) in MEANS.items():
        values = image[label == ORGANS[name]]
        assert low < np.median(values) < high, name
    wall = image[(label == ORGANS["stomach"]) & (image > -150)]
    assert 0 < np.median(wall) < 80
    inside_liver = image[label == ORGANS["liver"]]
    assert 10 < np.percentile(inside_liver, 84) - np.median(inside_liver) < 35  # noise, grain and vessels


def test_surroundings_have_the_same_units_as_the_organ(patient):
    """No threshold finds an organ: within ten pixels of it there is much of the same value."""
    image, label, _ = patient
    for name, k in ORGANS.items():
        organ = label == k
        around = maximum_filter(organ, (21, 21, 1)) & ~organ
        low, high = np.percentile(image[organ], (10, 90))
        alike = ((image > low) & (image < high) & around).sum()
        assert alike > (0.08 if name == "liver" else 0.4) * organ.sum(), name


def test_noise_is_that_of_a_scanner(patients):
    image, label, _ = patients[5]
    same = label[1:-1] == 6
    liver = same & (label[:-2] == 6) & (label[2:] == 6)
    steps = np.diff(image.astype(float), axis=0)[:-1][liver]
    assert 10 < steps.std() < 30  # sqrt(2) sd sqrt(1 - correlation), sd 12 to 18


def test_sampling_does_not_change_the_patient(patients):
    """Volumes in ml and centroids agree between pixels of 4 and of 6 mm; small parts are left to the test above."""
    coarse = make_phantom(PhantomSpec(size=64, slices=24), 5)
    (_, fine_label, fine_affine), (_, label, affine) = patients[5], coarse
    ours, theirs = centres(label, affine), centres(fine_label, fine_affine)
    for k in (1, 2, 3, 6, 7):
        volume = (label == k).sum() * np.linalg.det(affine)
        expected = (fine_label == k).sum() * np.linalg.det(fine_affine)
        assert volume == pytest.approx(expected, rel=0.1)
        assert np.abs(ours[k] - theirs[k]).max() < 3


# Chance


def test_the_same_patient_comes_again_and_alone(patients):
    again = make_phantom(PhantomSpec(train_volumes=1, val_volumes=12, size=96, slices=24), 31)
    for first, second in zip(patients[31], again, strict=True):
        assert np.array_equal(first, second)


def test_seeds_and_cases_are_different_patients():
    made = [make_phantom(PhantomSpec(size=48, slices=10, seed=seed), case) for seed, case in ((0, 5), (1, 5), (0, 6))]
    for first in range(3):
        for second in range(first):
            assert (made[first][1] != made[second][1]).mean() > 0.01
            assert np.abs(made[first][0].astype(int) - made[second][0]).mean() > 20


def test_slabs_only_bound_the_memory(patients, monkeypatch):
    image, label, affine = patients[8]
    monkeypatch.setattr(phantom, "_SLAB_VOXELS", 7 * 96**2)
    pieces = make_phantom(SMALL, 8)
    assert np.array_equal(pieces[2], affine)
    assert (pieces[1] != label).mean() < 1e-4  # rounding where a surface passes through a voxel
    assert np.abs(pieces[0].mean((0, 1)) - image.mean((0, 1))).max() < 2  # other noise, same tissue


# Drawing


@pytest.fixture(scope="module")
def canvas():
    axes = tuple(np.linspace(-180, 180, 40) for _ in range(2))
    return Canvas((*axes, np.linspace(-150, 130, 20)), np.random.default_rng(3))


def test_a_tube_is_the_union_of_balls_along_it(canvas):
    course = np.array([(-60, 10, -40, 12), (0, 40, 0, 20), (50, 0, 60, 9)], float)
    box, depth = canvas.tube(course.tolist())
    found = np.full(canvas.x.shape, -np.inf)
    found[box] = depth
    expected = np.full(canvas.x.shape, -np.inf)
    for x, y, z, radius in PchipInterpolator([0, 1, 2], course)(np.linspace(0, 2, 120)):
        apart = np.sqrt((canvas.x - x) ** 2 + (canvas.y - y) ** 2 + (canvas.z - z) ** 2)
        expected = np.maximum(expected, radius - apart)
    uneven = 0.07 * course[:, 3].mean() * canvas.rough
    sure = np.abs(expected + uneven) > 1  # straight pieces leave the curve by less than 1 mm
    assert np.array_equal((found > 0)[sure], (expected + uneven > 0)[sure])
    assert (found > 0).sum() > 60


@pytest.mark.parametrize("turn", [(0, 0, 0), (20, -15, 40)])
def test_an_ellipsoid_is_not_cut_by_its_box(canvas, turn):
    centre, radii = (40, -20, 10), (60, 25, 40)
    box, depth = canvas.ellipsoid(centre, radii, turn)
    _, everywhere = canvas.ellipsoid(centre, radii, turn, box=canvas.everywhere)
    found = np.zeros(canvas.x.shape, bool)
    found[box] = depth > 0
    assert np.array_equal(found, everywhere > 0)
    step = 360 / 39 * 360 / 39 * 280 / 19
    # scale, warp and unevenness change the volume a little
    assert found.sum() * step == pytest.approx(4 / 3 * np.pi * 60 * 25 * 40, rel=0.25)


def test_a_union_has_the_larger_depth(canvas):
    first, second = canvas.ellipsoid((40, 0, 0), (30, 30, 30)), canvas.tube(((-60, 0, 0, 20), (20, 0, 0, 12)))
    box, depth = canvas.union(first, second)
    expected = np.full(canvas.x.shape, -np.inf, np.float32)
    for part, values in (first, second):
        expected[part] = np.maximum(expected[part], values)
    assert np.array_equal(expected[box], depth)
    assert np.isfinite(expected).sum() == np.isfinite(depth).sum() > 0


def test_smooth_fields_have_unit_variance_and_their_scale():
    axis = np.arange(-200.0, 200.0, 2.0)
    field = _smooth_field(np.random.default_rng(0), (axis, axis, axis[:50]), 10)
    assert field.mean() == pytest.approx(0, abs=0.1)
    assert field.std() == pytest.approx(1, abs=0.05)
    far = np.corrcoef(field[:-20].ravel(), field[20:].ravel())[0, 1]
    near = np.corrcoef(field[:-1].ravel(), field[1:].ravel())[0, 1]
    assert near > 0.95
    assert abs(far) < 0.05  # four knots apart, no coefficient is shared


# Files


def test_files_have_the_names_and_form_of_btcv(tmp_path):
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
    assert np.array_equal(stored.affine, truth.affine)


def test_files_are_prepared_like_real_ones(tmp_path):
    write_phantoms(tmp_path / "volumes", TINY)
    manifest = prepare(tmp_path / "volumes", tmp_path / "prepared").manifest
    assert {name: case.split for name, case in manifest.cases.items()} == {
        "case0001": "val", "case0005": "train", "case0006": "train"
    }  # fmt: skip
    assert manifest.slices("train") == 20
    assert not manifest.rejected


def test_cases_are_those_of_the_published_split():
    assert PhantomSpec().cases == (5, 6, 7, 9, 10, 1, 2, 3)
    assert PhantomSpec(18, 12).cases == (*TRAIN_SLICES, *VAL_CASES)


def test_a_full_disk_is_one_line_and_leaves_no_part(tmp_path, monkeypatch):
    def full(self, content):
        Path.touch(self)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MisureError, match=r"^cannot write .*img0005\.nii\.gz: No space left on device; free .*$"):
        write_phantoms(tmp_path, TINY)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "taken").write_text("not a folder")
    with pytest.raises(MisureError, match=r"^cannot write .*img0005\.nii\.gz: (File exists|Not a directory); .*$"):
        write_phantoms(tmp_path / "taken", TINY)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train_volumes": 19}, "phantom.train_volumes=19 is not a number from 1 to 18"),
        ({"val_volumes": 0}, "phantom.val_volumes=0 is not a number from 1 to 12"),
        ({"size": 47}, "phantom.size=47 is not a number from 48 to 1024"),
        ({"slices": 9}, "phantom.slices=9 is not a number from 10 to 500"),
        ({"seed": -1}, "phantom.seed=-1 is not"),
    ],
)
def test_impossible_specifications_are_one_line(wrong, message):
    with pytest.raises(MisureError, match=message):
        PhantomSpec(**wrong)
