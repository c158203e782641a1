"""Patches for nnU-Net: around the object, prepared as the plans say, and where they are said to be."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from misure import explaining
from misure.cli import console as cli
from misure.errors import MisureError
from misure.models.nnunet import Result
from misure.models.normalisation import normalised
from misure.models.wrapper import SegmentationModel

pytest.importorskip("nnunetv2", reason="needs nnunetv2")
from nnunet_results import PATCH, plans, write_result

from misure.explaining.patches import patch_of

OBLIQUE = np.array([[-1.0, 0, 0, 40], [0, 0.8, 0, -30], [0, 0, 4, 10], [0, 0, 0, 1]])
"""Of the file: 1 x 0.8 x 4 mm, where the plans want 1 x 1 x 2; its first axis goes to the left."""

CUBE = (slice(18, 24), slice(20, 26), slice(6, 9))
"""X, Y, Z, with its middle at (20.5, 22.5, 7)."""


def bright(image):
    """Class 1 where a value is above the mean of the plans' foreground."""
    return torch.cat([-image[:, :1], image[:, :1]], 1)


@pytest.fixture
def file(tmp_path):
    voxels = np.full((32, 36, 12), -50, np.int16)
    voxels[CUBE] = 250
    path = tmp_path / "case_0000.nii.gz"
    nib.save(nib.Nifti1Image(voxels, OBLIQUE), path)
    return path


def middle_in_mm() -> np.ndarray:
    return (OBLIQUE @ [20.5, 22.5, 7, 1])[:3]


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (0, 2, 1)])
@pytest.mark.parametrize("wanted", [{"target": 1}, {}, {"at": [7, 22, 20]}])
def test_a_patch_lies_around_the_object_and_says_where(file, tmp_path, dimensions, transpose, wanted):
    result = Result(write_result(tmp_path, dimensions, plan=plans(dimensions, transpose=transpose))[0])
    model = SegmentationModel(bright, **result.normalisation)
    patch = patch_of(result, file, model, **wanted)
    assert patch.pixels.shape == (1, *PATCH[dimensions])
    pixels = normalised(patch.pixels, model.mean, model.std)
    assert float(pixels.max()) == pytest.approx((250 - 80) / 50, abs=1e-4)  # as the plans say
    assert patch.pixels.min() >= 0
    inside = (patch.pixels[0] > 0.6).nonzero().double().mean(0).tolist()
    place = patch.affine @ [*[0] * (3 - len(inside)), *inside, 1]
    apart = np.abs(place[:3] - middle_in_mm())
    assert apart[:2].max() < 0.6  # half a voxel of 1 mm, and rounding
    assert apart[2] <= (4 if dimensions == 2 else 0.01)  # a slice beside the middle one; of two for each it is exact
    if "at" in wanted:
        assert patch.pixels[(0, *patch.point)] > 0.6
    assert all(3 <= middle <= side - 3 for middle, side in zip(inside, PATCH[dimensions], strict=True))


def test_of_a_network_of_slices_one_slice_can_be_meant(file, tmp_path):
    result = Result(write_result(tmp_path, 2)[0])
    assert patch_of(result, file, SegmentationModel(bright), 1, slice_index=6).slice_index == 6
    with pytest.raises(MisureError, match="no class_1 is predicted in any patch"):
        patch_of(result, file, SegmentationModel(bright), 1, slice_index=2)


@pytest.mark.parametrize(("transpose", "middle", "point"), [((0, 1, 2), 7, [22, 20]), ((1, 0, 2), 22, [7, 20])])
def test_of_a_cropped_case_slices_are_counted_in_the_file(tmp_path, transpose, middle, point):
    voxels = np.zeros((32, 36, 12), np.int16)
    voxels[10:, 10:, 3:] = -50
    voxels[CUBE] = 250
    nib.save(nib.Nifti1Image(voxels, OBLIQUE), tmp_path / "case.nii.gz")
    result = Result(write_result(tmp_path, 2, plan=plans(2, transpose=transpose))[0])

    def patch(**wanted):
        return patch_of(
            result, tmp_path / "case.nii.gz", SegmentationModel(bright, **result.normalisation), 1, **wanted
        )

    for found in (patch(slice_index=middle), patch(slice_index=middle, at=point)):
        assert found.slice_index == middle
        assert found.pixels.max() > 0.6
    with pytest.raises(MisureError, match="slice=2 lies outside of what nnU-Net keeps of"):
        patch(slice_index=2)
    with pytest.raises(MisureError, match=r"can lie in any of (12|36) slices"):
        patch(at=point)


def test_a_small_case_is_padded_to_a_patch(tmp_path):
    result = Result(write_result(tmp_path, 3)[0])
    nib.save(nib.Nifti1Image(np.full((6, 6, 3), 200, np.int16), np.diag([1.0, 1, 2, 1])), tmp_path / "small.nii.gz")
    patch = patch_of(result, tmp_path / "small.nii.gz", SegmentationModel(bright), 1, at=[1, 3, 2])
    assert patch.pixels.shape == (1, *PATCH[3])
    assert patch.point == [2 + 1, 5 + 3, 5 + 2]  # in the middle of the padding
    np.testing.assert_allclose((patch.affine @ [*patch.point, 1])[:3], [2, 3, 2])  # X, Y, Z


def test_channels_lie_beside_the_first(tmp_path):
    names = {"0": "CT", "1": "PET"}
    result = Result(write_result(tmp_path, 3, plan=plans(3, channels=2), channel_names=names)[0])
    for channel in range(2):
        voxels = np.random.default_rng(channel).integers(0, 200, (16, 16, 8)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1, 2, 1])), tmp_path / f"a_{channel:04d}.nii.gz")
    model = SegmentationModel(bright, **result.normalisation)
    pixels = normalised(patch_of(result, tmp_path / "a_0000.nii.gz", model).pixels, model.mean, model.std)
    assert pixels.shape == (2, *PATCH[3])
    assert float(pixels[1].mean()) == pytest.approx(0, abs=1e-4)  # normalised by its own mean
    with pytest.raises(MisureError, match=r"has 1 channels, the network takes 2"):
        patch_of(result, tmp_path / "a_0001.nii.gz", model)
    with pytest.raises(MisureError, match=r"is no \.nii\.gz file"):
        patch_of(result, tmp_path / "a.png", model)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_command_explains_a_patch(file, tmp_path, monkeypatch, dimensions):
    folder, _ = write_result(tmp_path, dimensions)
    monkeypatch.chdir(tmp_path)
    options = ["--method", "rise", "--n-masks", "4", "precision=32", "--at", "[7,22,20]"]
    cli.main(["explain", str(file), "--model", str(folder), *options])
    (written,) = Path("outputs/explanations").iterdir()
    manifest = json.loads((written / "manifest.json").read_text())
    assert manifest["shape"] == [1, *PATCH[dimensions]]
    saliency = nib.load(written / "saliency.nii.gz")
    assert saliency.shape == (*[1] * (3 - dimensions), *PATCH[dimensions])
    point = np.linalg.inv(saliency.affine) @ (OBLIQUE @ [20, 22, 7, 1])
    assert all(0 <= i < side for i, side in zip(point[:3].round(), saliency.shape, strict=True))


def test_the_pages_lines_run(file, tmp_path, monkeypatch):
    write_result(tmp_path / "Dataset001", 3)
    monkeypatch.chdir(tmp_path)
    page = Path(explaining.__file__).with_name("README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"(?ms)^```python\n((?:(?!^```).)*patch_of.*?)^```", page)
    exec(compile(lines.replace('"msr"', '"prediction"'), "README.md", "exec"), {})  # in a second
    assert np.load("liver/saliency.npy").shape == tuple(PATCH[3])


@pytest.mark.parametrize("option", ["region=mask.png", "size=64"])
def test_what_a_patch_cannot_have_is_one_line(file, tmp_path, monkeypatch, option):
    folder, _ = write_result(tmp_path, 3)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(["explain", str(file), "--model", str(folder), option])
    assert f"{option.partition('=')[0]}=" in str(ended.value.code)


@pytest.mark.parametrize("target", [7, -1])
def test_a_class_that_the_network_does_not_have_is_predicted_nowhere(file, tmp_path, target):
    result = Result(write_result(tmp_path, 3)[0])
    with pytest.raises(MisureError, match="is predicted in any patch"):
        patch_of(result, file, SegmentationModel(bright), target)
