"""Images found by name, scans as a network sees them and maps back in their file, one line for what cannot be read."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from ct_files import AFFINE, scan, write_nifti, write_series
from image_files import random_rgb
from PIL import Image

from misure.errors import MisureError
from misure.io import images
from misure.io.images import ImageFileError, InputFormat, find_images, read_images
from misure.io.volume import radiological

AXES = ["RAS", "LAS", "LPI", "SRA", "PIR"]
WINDOW = (-125.0, 275.0)


def test_files_folders_and_globs_list_their_images(tmp_path):
    for name in ("b.png", "a.JPG", ".hidden.png"):
        Image.fromarray(random_rgb()).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    write_nifti(tmp_path / "c.nii.gz", scan())
    write_series(tmp_path / "series", scan())
    with pytest.warns(UserWarning, match=r"2 left out, as they are no images: notes\.txt; series$"):
        assert [path.name for path in find_images(tmp_path)] == ["a.JPG", "b.png", "c.nii.gz"]
    with pytest.warns(UserWarning, match=r"1 left out, as they are no images: notes\.txt$"):
        assert [path.name for path in find_images(str(tmp_path / "*"))] == ["a.JPG", "b.png", "c.nii.gz", "series"]
    assert find_images(tmp_path / "series") == [tmp_path / "series"]
    pattern = tmp_path / "a[1].png"  # a file all the same
    Image.fromarray(random_rgb()).save(pattern)
    assert find_images(pattern) == [pattern]


def test_missing_images_are_told_with_close_names(tmp_path):
    Image.fromarray(random_rgb()).save(tmp_path / "photo.png")
    (tmp_path / "empty").mkdir()
    for name, words in {
        "foto.png": r"there is no image .*close names: photo\.png",
        "nowhere/a.png": "there is no folder",
        "empty": "no image there",
    }.items():
        with pytest.raises(ImageFileError, match=words):
            find_images(tmp_path / name)


def save(path, content):
    """Write bytes, or an array as an image, a scan if its name says so; return the file."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.name.endswith((".nii", ".nii.gz")):
        nib.Nifti1Image(content, AFFINE).to_filename(path)
    else:
        Image.fromarray(content).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "content", "kept", "words"),
    [
        ("cut.png", random_rgb(60, 60), 0.5, "cannot be read"),
        ("cut.jpg", random_rgb(60, 60), 0.5, "cannot be read"),
        ("text.png", b"no image", 1, "holds no PNG, JPEG or TIFF"),
        ("notes.txt", b"no image", 1, "is no image"),
        ("nan.nii", np.full((2, 2, 2), np.nan, np.float32), 1, "not finite"),
        ("float.tiff", np.full((3, 3), 7.5, np.float32), 1, "do not lie in 0 to 1"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(tmp_path, name, content, kept, words):
    path = save(tmp_path / name, content)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ImageFileError, match=rf"^.*{name} .*{words}.*$"):
        read_images(path, channels=1)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"dimensions": 4}, "neither 2 nor 3"),
        ({"axes": "lps"}, "axes=lps"),
        ({"window": (3.0, 3.0)}, "window"),
        ({"window": (-np.inf, np.inf)}, "window=(-inf|nan|inf) is not a finite number"),
        ({"window": (np.nan, 1.0)}, "window=(-inf|nan|inf) is not a finite number"),
        ({"window": (0.0, np.inf)}, "window=(-inf|nan|inf) is not a finite number"),
        ({"dimensions": 3, "slice_index": 1}, "whole volumes"),
    ],
)
def test_wrong_formats_are_refused(wrong, words):
    with pytest.raises(MisureError, match=words):
        InputFormat(**wrong)


@pytest.mark.parametrize("axes", AXES)
def test_a_scan_is_seen_as_radiologists_see_it_whatever_its_axes(tmp_path, axes):
    voxels = scan()
    path = write_nifti(tmp_path / "a.nii.gz", voxels, axes=axes)
    expected = (np.clip(voxels, *WINDOW).astype(np.float32) - WINDOW[0]) / 400
    (volume,) = read_images(path, channels=1, dimensions=3, window=WINDOW)
    np.testing.assert_array_equal(volume.pixels[0].numpy(), radiological(expected))
    (single,) = read_images(path, channels=3, slice_index=2, window=WINDOW)
    np.testing.assert_array_equal(single.pixels.numpy(), np.stack([radiological(expected)[2]] * 3))
    np.testing.assert_array_equal(single.affine, nib.load(path).affine)
    (ras,) = read_images(path, channels=1, slice_index=2, window=WINDOW, axes="ras")
    np.testing.assert_array_equal(ras.pixels[0].numpy(), expected[:, :, 2])


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("layout", ["radiological", "ras"])
def test_a_map_goes_back_to_the_voxels_it_came_from(tmp_path, axes, layout):
    """The file itself is the oracle: a map equal to the scan must be written as the scan was."""
    voxels = scan().astype(np.float32)
    path = write_nifti(tmp_path / "a.nii.gz", voxels, axes=axes)
    stored = nib.load(path)
    (volume,) = read_images(path, channels=1, dimensions=3, axes=layout, window=(0.0, 1.0))
    grid = volume.grid
    back, affine = grid.to_file(np.ascontiguousarray(grid.from_voxels(voxels)))
    np.testing.assert_array_equal(back, stored.get_fdata(dtype=np.float32))
    np.testing.assert_allclose(affine, stored.affine, atol=1e-9)

    (single,) = read_images(path, channels=1, slice_index=3, axes=layout)
    back, affine = single.grid.to_file(np.ascontiguousarray(single.grid.from_voxels(voxels[:, :, 3:4])))
    axis = axes.index("S") if "S" in axes else axes.index("I")
    place = 3 if "S" in axes else stored.shape[axis] - 1 - 3
    np.testing.assert_array_equal(back, np.take(stored.get_fdata(dtype=np.float32), [place], axis))
    origin = np.array([0, 0, 0, 1])
    origin[axis] = place
    np.testing.assert_allclose(affine @ [0, 0, 0, 1], stored.affine @ origin, atol=1e-9)


def test_a_flat_nifti_is_one_slice(tmp_path):
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    nib.Nifti1Image(values, np.diag([-1.0, -1.0, 1.0, 1.0])).to_filename(tmp_path / "a.nii")
    (image,) = read_images(tmp_path / "a.nii", channels=1, window=(0.0, 19.0))
    # stored to the left and the back, so rows and columns are the stored axes exchanged
    np.testing.assert_allclose(image.pixels[0].numpy(), values.T / 19, rtol=1e-6)


def test_a_dicom_series_is_the_scan(tmp_path):
    """Without a window the range is that of the scan, not of the slice."""
    (image,) = read_images(write_series(tmp_path / "series", scan()), channels=1, slice_index=1)
    values = scan().astype(np.float32)
    expected = (values - values.min()) / np.ptp(values)
    np.testing.assert_array_equal(image.pixels[0].numpy(), radiological(expected)[1])
    np.testing.assert_allclose(image.affine, AFFINE)


@pytest.mark.parametrize("values", [scan() % 256, scan() % 2, np.abs(scan()) * np.float32(1e-4), scan() + 2000])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_window_of_hounsfield_units_is_for_ct(tmp_path, values):
    """A photograph, an MR image or fractions would all be grey."""
    path = write_nifti(tmp_path / "a.nii.gz", values)
    with pytest.raises(ImageFileError, match=r"no value below 0 .*window=\[-125\.0, 275\.0\] .*window=null takes"):
        read_images(path, dimensions=3, window=WINDOW)
    least, most = float(values.min()), float(values.max())
    own = read_images(path, dimensions=3)[0].pixels
    given = read_images(path, dimensions=3, window=(least, most))[0].pixels
    assert torch.equal(own, given)
    np.testing.assert_allclose(own[0].numpy(), radiological((values - least) / (most - least)), atol=1e-6)
    Image.fromarray(random_rgb()).save(tmp_path / "photo.png")
    assert torch.equal(
        read_images(tmp_path / "photo.png", window=WINDOW)[0].pixels, read_images(tmp_path / "photo.png")[0].pixels
    )


def test_a_series_says_itself_that_it_is_ct(tmp_path):
    folder = write_series(tmp_path / "series", scan() + 2000)
    pixels = read_images(folder, dimensions=3, window=(-125.0, 2000.0))[0].pixels
    expected = (np.clip(scan() + 2000, -125, 2000).astype(np.float32) + 125) / 2125
    np.testing.assert_array_equal(pixels[0].numpy(), radiological(expected))
    with pytest.raises(ImageFileError, match="Modality is MR"):
        read_images(write_series(tmp_path / "mr", scan(), Modality="MR"), dimensions=3, window=WINDOW)


@pytest.mark.parametrize("raised", [RuntimeError("ITK"), KeyError("tag"), MemoryError(), ZeroDivisionError()])
@pytest.mark.parametrize("reader", ["read_series", "read_pages"])
def test_foreign_errors_are_one_line_for_the_image(tmp_path, monkeypatch, raised, reader):
    def failing(*_):
        raise raised

    monkeypatch.setattr(images, reader, failing)
    path = tmp_path / ("a" if reader == "read_series" else "a.png")
    path.mkdir()
    if reader == "read_pages":
        path.rmdir()
    with pytest.raises(ImageFileError, match=rf"{path.name} cannot be read \(") as caught:
        images.read_image(path, InputFormat())
    assert caught.value.__cause__ is raised
