"""An image as a network sees it: slices of scans, and files that are refused."""

from __future__ import annotations

import numpy as np
import pytest
from app_network import write_image

from misure.app.scene import MOST_VOXELS, NOTHING, Cut, look
from misure.errors import MisureError


@pytest.mark.parametrize(("first", "shown"), [("background", {NOTHING, 1}), ("wall", {0, 1})])
def test_a_class_0_that_is_an_object_can_be_clicked_on(shelf, tmp_path, first, shown) -> None:
    network = shelf.take("bright")
    network.model.class_names = (first, "bright", "never")
    assert {*look(network, write_image(tmp_path / "blocks.png"), Cut()).labels.unique().tolist()} == shown


@pytest.mark.parametrize(("index", "taken", "value"), [(3, 3, 1), (None, 2, 0)])
def test_a_slice_of_a_scan(shelf, tmp_path, index, taken, value) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (pip install 'misure[images]')")
    voxels = np.zeros((64, 32, 5), np.int16)
    voxels[:, :, 3] = 100
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "scan.nii.gz")
    scene = look(shelf.take("bright"), tmp_path / "scan.nii.gz", Cut(index, (0.0, 100.0)))
    assert (scene.slice_index, scene.n_slices) == (taken, 5)
    assert scene.pixels.shape == (3, 32, 64)
    assert bool((scene.pixels == value).all())


@pytest.mark.parametrize("shape", [(64, 32, 1), (64, 32, 1, 1), (64, 32, 3, 1)])
def test_scans_of_one_slice_or_with_axes_of_one(shelf, tmp_path, shape) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (pip install 'misure[images]')")
    nibabel.save(nibabel.Nifti1Image(np.full(shape, 100, np.int16), np.eye(4)), tmp_path / "scan.nii.gz")
    scene = look(shelf.take("bright"), tmp_path / "scan.nii.gz", Cut(None, (0.0, 200.0)))
    assert (scene.n_slices, scene.pixels.shape) == (shape[2], (3, 32, 64))
    assert float(scene.pixels.mean()) == pytest.approx(0.5)


def test_a_scan_without_hounsfield_units_is_shown_in_its_own_range(shelf, tmp_path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (pip install 'misure[images]')")
    voxels = np.linspace(0, 900, 64 * 32 * 3, dtype=np.float32).reshape(64, 32, 3)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "mr.nii.gz")
    scene = look(shelf.take("bright"), tmp_path / "mr.nii.gz", Cut(1, (-125.0, 275.0)))
    assert scene.window is None
    assert float(scene.pixels.max()) > 0.95
    nibabel.save(nibabel.Nifti1Image(voxels - 450, np.eye(4)), tmp_path / "ct.nii.gz")
    assert look(shelf.take("bright"), tmp_path / "ct.nii.gz", Cut(1, (-125.0, 275.0))).window == (-125.0, 275.0)


def test_too_large_a_scan_is_refused_by_its_header(shelf, tmp_path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (pip install 'misure[images]')")
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    header = image.header.copy()
    header.set_data_shape((1000, 1000, MOST_VOXELS // 10**6 + 1))
    path = tmp_path / "bomb.nii"
    path.write_bytes(header.binaryblock + bytes(100))
    with pytest.raises(MisureError, match="at most"):
        look(shelf.take("bright"), path, Cut())
