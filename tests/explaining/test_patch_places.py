"""Which slice and which point of a case are meant: counted in the file, before nnU-Net transposes and crops it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from misure.errors import MisureError
from misure.explaining.patches import Case, patch_of
from misure.models.wrapper import SegmentationModel

FILE = Path("case.nii.gz")
FIRST = np.array([4, 1, 2])
"""Voxels that were cropped in front, by axis of the case."""


def bright(image):
    return torch.cat([0.5 - image, image - 0.5], 1)


@pytest.fixture
def place(monkeypatch):
    """Take a patch of 6 slices of 10 x 12, cropped from a file of 12; slice n is bright in its voxel [n, n]."""
    steps = ModuleType("nnunetv2.inference.sliding_window_prediction")
    steps.compute_steps_for_sliding_window = lambda shape, patch, _: [
        [*range(0, side - p + 1, 2)] for side, p in zip(shape, patch, strict=True)
    ]
    for name in ("nnunetv2", "nnunetv2.inference"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, steps.__name__, steps)

    def patch(axes=(0, 1, 2), n_slices=12, **options):
        pixels = torch.zeros(1, min(6, n_slices), 10, 12)
        for i in range(pixels.shape[1]):
            pixels[0, i, i, i] = 1
        first = FIRST if n_slices > 1 else FIRST * [0, 1, 1]
        monkeypatch.setattr(Case, "of", lambda *_: Case(pixels, np.ones(3), first, None, axes, n_slices))
        result = SimpleNamespace(patch_size=[4, 4])
        return patch_of(result, FILE, SegmentationModel(bright), 1, **options)

    return patch


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_slices_and_points_are_those_of_the_file(place, axes):
    """Slice 7 of the file is the fourth that is kept, whose bright voxel is [3, 3] there."""
    in_case = np.array([7, 3 + 1, 3 + 2])
    at = [0, 0, 0]
    for axis, value in zip(axes, in_case, strict=True):
        at[axis] = int(value)
    in_slice = [value for axis, value in enumerate(at) if axis != axes[0]]
    for wanted in ({"slice_index": 7}, {"at": at}, {"at": at, "slice_index": 7}, {"at": in_slice, "slice_index": 7}):
        patch = place(axes, **wanted)
        assert patch.slice_index == 7
        assert (patch.pixels[0] == 1).nonzero().tolist() == [[2, 2]]
        assert patch.point in (None, [2, 2])


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"slice_index": 3}, "slice=3 lies outside of what nnU-Net keeps of case.nii.gz, 4 to 9"),
        ({"slice_index": 10}, "slice=10 lies outside of what nnU-Net keeps"),
        ({"slice_index": -1}, "slice=-1 lies outside of what nnU-Net keeps"),
        ({"at": [4, 5]}, r"at=\[4, 5\] can lie in any of 12 slices of case.nii.gz: add slice="),
        ({"at": [8, 4, 5], "slice_index": 7}, r"at=\[8, 4, 5\] does not lie in slice=7"),
        ({"at": [3, 4, 5]}, r"at=\[3, 4, 5\] lies outside of what nnU-Net keeps"),
        ({"at": [4]}, r"at=\[4\] is no voxel"),
    ],
)
def test_what_is_not_kept_or_not_clear_is_one_line(place, wanted, words):
    with pytest.raises(MisureError, match=f"^{words}[^\n]*$"):
        place(**wanted)


def test_a_picture_has_one_slice(place):
    patch = place(n_slices=1, at=[1, 2])
    assert (patch.slice_index, patch.point) == (0, [0, 0])
