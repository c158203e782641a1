"""Image files: exact pixels, orientation, grids, and one line for what cannot be read."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest
import torch
from ct_files import AFFINE, scan, write_nifti, write_series
from hypothesis import given
from hypothesis import strategies as st
from image_files import random_rgb
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from PIL import Image

from misure.io import nifti as nifti_module
from misure.io import pictures as pictures_module
from misure.io.images import ImageFileError, InputFormat, find_images, read_images
from misure.io.loaded import Grid
from misure.io.volume import radiological

AXES = ["RAS", "LAS", "LPI", "SRA", "PIR"]
WINDOW = (-125.0, 275.0)


def test_png_pixels_are_exact(tmp_path):
    values = random_rgb()
    Image.fromarray(values).save(tmp_path / "a.png")
    (image,) = read_images(tmp_path / "a.png", channels=3)
    assert image.name == "a"
    assert image.affine is None
    torch.testing.assert_close(image.pixels, torch.from_numpy(values).permute(2, 0, 1) / 255, atol=0, rtol=0)


def test_colours_become_grey_and_grey_is_repeated(tmp_path):
    values = random_rgb()
    Image.fromarray(values).save(tmp_path / "colour.png")
    Image.fromarray(values[..., 0]).save(tmp_path / "grey.png")
    grey = read_images(tmp_path / "colour.png", channels=1)[0].pixels
    expected = (values.astype(float) @ [0.299, 0.587, 0.114])[None] / 255
    np.testing.assert_allclose(grey.numpy(), expected, atol=1e-6)  # float32 sums
    repeated = read_images(tmp_path / "grey.png", channels=3)[0].pixels
    assert torch.equal(repeated, (torch.from_numpy(values[..., 0]) / 255).expand(3, -1, -1))


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "1"])
def test_unusual_modes_are_read(tmp_path, mode):
    Image.fromarray(random_rgb()).convert(mode).save(tmp_path / "a.png")
    pixels = read_images(tmp_path / "a.png", channels=3)[0].pixels
    assert pixels.shape == (3, 6, 9)


def test_a_turned_photograph_is_upright(tmp_path):
    values = np.zeros((16, 32, 3), np.uint8)
    values[:, :16] = 255  # the left half, which a quarter turn clockwise brings to the top
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    pixels = read_images(tmp_path / "a.jpg", channels=3)[0].pixels
    assert pixels.shape == (3, 32, 16)
    assert bool((pixels[:, :16] > 0.95).all())
    assert bool((pixels[:, 16:] < 0.05).all())


def test_sixteen_bits_keep_their_precision(tmp_path):
    values = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000 + 7
    Image.fromarray(values).save(tmp_path / "a.tiff")
    pixels = read_images(tmp_path / "a.tiff", channels=1)[0].pixels
    assert torch.equal(pixels[0], torch.from_numpy(values.astype(np.float32) / 65535))


def test_pages_of_a_tiff_are_slices_of_a_volume(tmp_path):
    pages = [Image.fromarray(random_rgb(seed=k)[..., 0]) for k in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    volume = read_images(tmp_path / "a.tif", channels=1, dimensions=3)[0].pixels
    assert volume.shape == (1, 3, 6, 9)
    page = read_images(tmp_path / "a.tif", channels=1, slice_index=2)[0]
    assert torch.equal(page.pixels, volume[:, 2])
    assert page.slice_index == 2
    with pytest.raises(ImageFileError, match=r"a\.tif has pages 0 to 2 .* slice="):
        read_images(tmp_path / "a.tif", channels=1)
    with pytest.raises(ImageFileError, match="there is no slice=3"):
        read_images(tmp_path / "a.tif", channels=1, slice_index=3)


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


@given(st.permutations(["RL", "AP", "SI"]), st.tuples(*[st.integers(0, 1)] * 3), st.tuples(*[st.integers(2, 5)] * 3))
def test_maps_of_any_orientation_keep_their_place(pairs, flips, shape):
    axes = "".join(pair[flip] for pair, flip in zip(pairs, flips, strict=True))
    stored = AFFINE @ inv_ornt_aff(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes)), shape)
    grid = Grid(AFFINE, stored, "radiological")
    values = np.random.default_rng(0).normal(size=shape)
    back, affine = grid.to_file(grid.from_voxels(values))
    place = np.array([1, 0, 1, 1])
    world = AFFINE @ place
    there = np.rint(np.linalg.inv(affine) @ world).astype(int)[:3]
    assert back[tuple(there)] == values[1, 0, 1]


def test_without_a_window_the_scan_s_own_range_is_taken(tmp_path):
    path = write_nifti(tmp_path / "a.nii", scan())
    pixels = read_images(path, channels=1, dimensions=3)[0].pixels
    assert (float(pixels.min()), float(pixels.max())) == (0.0, 1.0)


def test_a_flat_nifti_is_one_slice(tmp_path):
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    nib.Nifti1Image(values, np.diag([-1.0, -1.0, 1.0, 1.0])).to_filename(tmp_path / "a.nii")
    (image,) = read_images(tmp_path / "a.nii", channels=1, window=(0.0, 19.0))
    # stored to the left and the back, so rows and columns are the stored axes exchanged
    np.testing.assert_allclose(image.pixels[0].numpy(), values.T / 19, rtol=1e-6)


def test_a_dicom_series_is_the_scan(tmp_path):
    voxels = scan()
    folder = write_series(tmp_path / "series", voxels)
    (image,) = read_images(folder, channels=1, slice_index=1, window=WINDOW)
    expected = (np.clip(voxels, *WINDOW).astype(np.float32) - WINDOW[0]) / 400
    np.testing.assert_array_equal(image.pixels[0].numpy(), radiological(expected)[1])
    np.testing.assert_allclose(image.affine, AFFINE)


def test_folders_and_globs_list_their_images(tmp_path):
    for name in ("b.png", "a.JPG", ".hidden.png"):
        Image.fromarray(random_rgb()).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    write_nifti(tmp_path / "c.nii.gz", scan())
    write_series(tmp_path / "series", scan())
    names = [path.name for path in find_images(tmp_path)]
    assert names == ["a.JPG", "b.png", "c.nii.gz"]
    assert [path.name for path in find_images(str(tmp_path / "*"))] == ["a.JPG", "b.png", "c.nii.gz", "series"]
    assert find_images(tmp_path / "series") == [tmp_path / "series"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    path = tmp_path / "a[1].png"
    Image.fromarray(random_rgb()).save(path)
    assert find_images(path) == [path]


def unreadable(folder):
    """A file of each kind that cannot be read, and the words its error must have."""
    Image.fromarray(random_rgb(60, 60)).save(folder / "cut.png")
    content = (folder / "cut.png").read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    Image.fromarray(random_rgb(60, 60)).save(folder / "cut.jpg")
    content = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no image")
    (folder / "notes.txt").write_text("no image")
    path = write_nifti(folder / "cut.nii.gz", scan())
    path.write_bytes(path.read_bytes()[:-9])
    (folder / "text.nii").write_text("no scan")
    nib.Nifti1Image(np.full((2, 2, 2), np.nan, np.float32), AFFINE).to_filename(folder / "nan.nii")
    Image.fromarray(np.full((3, 3), 7.5, np.float32)).save(folder / "float.tiff")
    return {
        "cut.png": "cannot be read",
        "cut.jpg": "cannot be read",
        "empty.png": "is empty",
        "text.png": "holds no PNG, JPEG or TIFF",
        "notes.txt": "is no image",
        "cut.nii.gz": "",
        "text.nii": "is not a complete NIfTI file",
        "nan.nii": "not finite",
        "float.tiff": "do not lie in 0 to 1",
    }


def test_what_cannot_be_read_is_named_in_one_line(tmp_path):
    for name, words in unreadable(tmp_path).items():
        with pytest.raises(ImageFileError) as caught:
            read_images(tmp_path / name, channels=1)
        message = str(caught.value)
        assert name in message
        assert words in message, message
        assert "\n" not in message


def test_missing_images_are_told_with_close_names(tmp_path):
    Image.fromarray(random_rgb()).save(tmp_path / "photo.png")
    with pytest.raises(ImageFileError, match=r"there is no image .*close names: photo\.png"):
        find_images(tmp_path / "foto.png")
    with pytest.raises(ImageFileError, match="there is no folder"):
        find_images(tmp_path / "nowhere" / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageFileError, match="no image there"):
        find_images(tmp_path / "empty")


def test_too_large_pictures_are_refused_before_decoding(tmp_path, monkeypatch):
    Image.fromarray(random_rgb(20, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(pictures_module, "MOST_PIXELS", 399)
    with pytest.raises(ImageFileError, match=r"a\.png has more than"):
        read_images(tmp_path / "a.png")
    monkeypatch.undo()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 399)  # Pillow's own check for bombs
    with pytest.raises(ImageFileError, match=r"a\.png cannot be read .*decompression bomb"):
        read_images(tmp_path / "a.png")
    monkeypatch.undo()
    monkeypatch.setattr(pictures_module, "MOST_BYTES", 10)
    with pytest.raises(ImageFileError, match=r"a\.png has .* MB"):
        read_images(tmp_path / "a.png")


def test_a_scan_that_unpacks_to_more_than_it_says_is_refused(tmp_path, monkeypatch):
    path = write_nifti(tmp_path / "a.nii.gz", scan())
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(1_000_000)))
    monkeypatch.setattr(nifti_module, "_EXTENSIONS", 1024)
    with pytest.raises(ImageFileError, match="more than its header says"):
        read_images(path, channels=1, dimensions=3)
    monkeypatch.setattr(nifti_module, "MOST_VOXELS", 100)
    with pytest.raises(ImageFileError, match="crop it first"):
        read_images(path, channels=1, dimensions=3)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"dimensions": 4}, "neither 2 nor 3"),
        ({"axes": "lps"}, "axes=lps"),
        ({"window": (3.0, 3.0)}, "window"),
        ({"dimensions": 3, "slice_index": 1}, "whole volumes"),
    ],
)
def test_wrong_readings_are_told(wrong, words):
    with pytest.raises(Exception, match=words):
        InputFormat(**wrong)
