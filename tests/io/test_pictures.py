"""PNG, JPEG and TIFF files: exact pixels, orientation, pages and limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from image_files import random_rgb
from PIL import Image

from misure.io import pictures as pictures_module
from misure.io.images import ImageFileError, read_images


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK"])
def test_pixels_are_exact_in_every_mode(tmp_path, mode):
    """Colours behind transparent pixels are kept; Pillow's remarks on transparent palettes are not heard."""
    stored = Image.fromarray(random_rgb()).convert(mode)
    transparency = {"transparency": bytes(range(200))} if mode == "P" else {}
    stored.save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), **transparency)
    (image,) = read_images(tmp_path, channels=3)
    assert (image.name, image.affine) == ("a", None)
    expected = torch.from_numpy(np.array(stored.convert("RGB"))).permute(2, 0, 1) / 255
    torch.testing.assert_close(image.pixels, expected, atol=0, rtol=0)


def test_colours_become_grey_and_grey_is_repeated(tmp_path):
    values = random_rgb()
    Image.fromarray(values).save(tmp_path / "colour.png")
    Image.fromarray(values[..., 0]).save(tmp_path / "grey.png")
    grey = read_images(tmp_path / "colour.png", channels=1)[0].pixels
    expected = (values.astype(float) @ [0.299, 0.587, 0.114])[None] / 255
    np.testing.assert_allclose(grey.numpy(), expected, atol=1e-6)  # float32 sums
    repeated = read_images(tmp_path / "grey.png", channels=3)[0].pixels
    assert torch.equal(repeated, (torch.from_numpy(values[..., 0]) / 255).expand(3, -1, -1))


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


def test_too_large_pictures_are_refused_before_decoding(tmp_path, monkeypatch):
    Image.fromarray(random_rgb(20, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(pictures_module, "MOST_PIXELS", 399)
    with pytest.raises(ImageFileError, match=r"a\.png has more than"):
        read_images(tmp_path / "a.png")
    monkeypatch.undo()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 399)  # Pillow's own check for bombs
    with pytest.raises(ImageFileError, match=r"a\.png cannot be read .*decompression bomb"):
        read_images(tmp_path / "a.png")
