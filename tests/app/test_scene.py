"""An image as a network sees it: slices of scans, and files that are refused."""

from __future__ import annotations

import numpy as np
import pytest

from misure.app.scene import MOST_VOXELS, Cut, look
from misure.errors import MisureError


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


def test_too_large_a_scan_is_refused_by_its_header(shelf, tmp_path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (pip install 'misure[images]')")
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    header = image.header.copy()
    header.set_data_shape((1000, 1000, MOST_VOXELS // 10**6 + 1))
    path = tmp_path / "bomb.nii"
    path.write_bytes(header.binaryblock + bytes(100))
    with pytest.raises(MisureError, match="at most"):
        look(shelf.take("bright"), path, Cut())
