"""Masks are the numbers that a file holds, whatever they look like; what is no mask is named."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from ct_files import AFFINE, scan, write_nifti
from PIL import Image

from misure.io.images import ImageFileError, InputFormat, read_image, read_mask

REGION = np.zeros((12, 16), bool)
REGION[2:7, 3:9] = REGION[8:11, 10:14] = True
PARTS = np.where(REGION, 1, 0)
PARTS[8:11, 10:14] = 2
FORMAT = InputFormat(1)


def drawn(colour, outside, mode):
    """A picture of the region in one colour."""
    return Image.fromarray(np.where(REGION[..., None], np.uint8(colour), np.uint8(outside)), mode)


def palette(colours):
    picture = Image.fromarray(PARTS.astype(np.uint8), "P")
    picture.putpalette(colours)
    return picture


def photograph():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16), np.uint8))


MASKS = {
    "0 and 255": Image.fromarray(REGION.astype(np.uint8) * 255),
    "0 and 1": Image.fromarray(REGION.astype(np.uint8)),
    "one bit": Image.fromarray(REGION),
    "instances of 8 bits": Image.fromarray(PARTS.astype(np.uint8)),
    "instances of 16 bits": Image.fromarray((PARTS * 300).astype(np.uint16)),
    "instances of 32 bits": Image.fromarray((PARTS * 70000).astype(np.int32)),
    "fractions": Image.fromarray(REGION.astype(np.float32)),
    "nearly whole": Image.fromarray(PARTS.astype(np.float32) * np.float32(0.9999999)),
    "a palette whose first class is black": palette([255, 255, 255, 0, 0, 0, 10, 10, 10]),
    "a palette of nearly black": palette([0, 0, 0, 0, 0, 1, 1, 0, 0]),
    "blue on black": drawn((0, 0, 1), (0, 0, 0), "RGB"),
    "alpha under black": drawn((0, 0, 0, 255), (0, 0, 0, 0), "RGBA"),
    "alpha under white": drawn((255, 255, 255, 255), (255, 255, 255, 0), "RGBA"),
    "opaque white": drawn((255, 255, 255, 255), (0, 0, 0, 255), "RGBA"),
    "grey with alpha": drawn((7, 255), (7, 0), "LA"),
}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_whatever_is_not_zero_is_set(tmp_path, kind, ending):
    mode = MASKS[kind].mode
    if (ending == "png" and mode == "F") or (ending == "png" and kind == "instances of 32 bits"):
        pytest.skip("PNG has no such numbers")
    MASKS[kind].save(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(read_mask(tmp_path / f"a.{ending}", FORMAT).numpy(), REGION)


def test_white_is_zero_and_turned_masks(tmp_path):
    wide = Image.fromarray(np.where(REGION, 0, 65535).astype(np.uint16))
    wide.save(tmp_path / "a.tif", tiffinfo={262: 0})
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif", FORMAT).numpy(), REGION)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(REGION.astype(np.uint8)).save(tmp_path / "b.png", exif=exif)
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png", FORMAT).numpy(), np.rot90(REGION, -1))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("axes", ["RAS", "LPI"])
def test_a_mask_of_a_scan_lies_as_the_scan(tmp_path, dtype, axes):
    region = scan() > 0
    write_nifti(tmp_path / "scan.nii.gz", scan())
    write_nifti(tmp_path / "mask.nii.gz", region.astype(dtype) * dtype(3), axes=axes)
    for wanted in (InputFormat(1, slice_index=2), InputFormat(1, 3), InputFormat(1, 3, axes="ras")):
        image = read_image(tmp_path / "scan.nii.gz", wanted)
        found = read_mask(tmp_path / "mask.nii.gz", wanted, image).numpy()
        values = read_image(tmp_path / "scan.nii.gz", InputFormat(**vars(wanted) | {"window": (-1000.0, 1500.0)}))
        np.testing.assert_array_equal(found, values.pixels[0].numpy() > 0.4 + 1e-4)  # 0 becomes 0.4


def test_a_mask_of_one_slice_is_for_the_slice_that_is_taken(tmp_path):
    wanted = InputFormat(1, slice_index=2)
    image = read_image(write_nifti(tmp_path / "scan.nii.gz", scan()), wanted)
    region = scan()[:, :, 2:3] > 0
    place = AFFINE.copy()
    place[:, 3] = AFFINE @ [0, 0, 2, 1]
    single = read_mask(write_nifti(tmp_path / "single.nii.gz", region.astype(np.uint8), place), wanted, image)
    Image.fromarray(single.numpy()).save(tmp_path / "single.png")
    assert torch.equal(read_mask(tmp_path / "single.png", wanted, image), single)
    whole = write_nifti(tmp_path / "whole.nii.gz", (scan() > 0).astype(np.uint8))
    assert torch.equal(read_mask(whole, wanted, image), single)
    elsewhere = write_nifti(tmp_path / "elsewhere.nii.gz", region.astype(np.uint8))
    with pytest.raises(ImageFileError, match="different affines"):
        read_mask(elsewhere, wanted, image)


def soft():
    steps = np.zeros((12, 16), np.uint8)
    steps[2:9, 2:9] = 255
    steps[1, 2:9] = np.arange(30, 170, 20)
    return Image.fromarray(steps)


@pytest.mark.parametrize(
    ("picture", "name", "reason"),
    [
        (MASKS["0 and 255"], "a.jpg", "compressed as JPEG"),
        (MASKS["0 and 255"], "jpeg.tif", "compressed as JPEG"),
        (photograph(), "a.png", "no mask: .* as in a photograph"),
        (Image.merge("RGB", [photograph(), soft(), soft()]), "a.png", "no mask"),
        (soft(), "a.png", "at soft edges: save it with 0 and one other number"),
        (
            Image.fromarray(np.full((3, 3), 0.5, np.float32)),
            "a.tif",
            "unknown label value 0.5 .9 voxels.*whole numbers",
        ),
        (Image.fromarray(np.full((3, 3), np.nan, np.float32)), "a.tif", "unknown label value nan"),
        (Image.fromarray(np.array([[-1, 0, 1]], np.int32)), "a.tif", "its numbers are -1 to 1"),
        (Image.fromarray(np.array([[1, 2, 2]], np.uint8)), "a.png", "its numbers are 1 to 2, and 0 means outside"),
        (drawn((1, 2, 3, 4), (5, 6, 7, 8), "CMYK"), "a.tif", "CMYK colours"),
        (
            Image.fromarray(np.random.default_rng(0).integers(0, 2, (5, 5, 4), np.uint8) * 9),
            "a.png",
            "both colours and",
        ),
    ],
)
def test_what_is_no_mask_is_named(tmp_path, picture, name, reason):
    picture.save(tmp_path / name, **({"compression": "jpeg"} if name == "jpeg.tif" else {}))
    with pytest.raises(ImageFileError, match=rf"{name} ?.*{reason}"):
        read_mask(tmp_path / name, FORMAT)


def test_a_mask_on_another_grid_is_named(tmp_path):
    image = read_image(write_nifti(tmp_path / "scan.nii.gz", scan()), InputFormat(1, 3))
    mask = write_nifti(tmp_path / "mask.nii.gz", (scan() > 0).astype(np.uint8), AFFINE + np.eye(4)[:, [0, 1, 3, 2]])
    with pytest.raises(ImageFileError, match="different affines"):
        read_mask(mask, InputFormat(1, 3), image)
    nib.Nifti1Image(np.ones((7, 6, 4), np.uint8), AFFINE).to_filename(mask)
    with pytest.raises(ImageFileError, match=r"mask\.nii\.gz is 4 x 6 x 7, the image 5 x 6 x 7"):
        read_mask(mask, InputFormat(1, 3), image)
    nib.Nifti1Image(np.zeros((7, 6, 5, 9), np.uint8), AFFINE).to_filename(mask)  # one channel a class
    with pytest.raises(ImageFileError, match="not one 3-D volume"):
        read_mask(mask, InputFormat(1, 3), image)
