"""Images found by name, and one line for what cannot be read."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from ct_files import AFFINE, scan, write_nifti, write_series
from image_files import random_rgb
from PIL import Image

from misure.io.images import ImageFileError, InputFormat, find_images, read_images


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
