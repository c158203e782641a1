"""PNG, JPEG and TIFF files: exact pixels, orientation, pages and limits."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
import warnings
import zlib

import numpy as np
import pytest
import torch
from image_files import random_rgb
from PIL import Image, ImageOps

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


def tiff(values, order="<", big=False, **tags) -> bytes:
    """An uncompressed TIFF of H x W (x samples), written by hand; tags by name and value, or left out if None."""
    values = values[..., None] if values.ndim == 2 else values
    height, width, samples = values.shape
    data, word = values.astype(values.dtype.newbyteorder(order)).tobytes(), "Q" if big else "I"
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    fields = {"width": (256, width), "height": (257, height), "bits": (258, [8 * values.itemsize] * samples)}
    fields |= {"compression": (259, 1), "photometric": (262, 1 if samples < 3 else 2), "strip": (273, 0)}
    fields |= {
        "samples": (277, samples),
        "rows": (278, height),
        "bytes": (279, len(data)),
        "format": (339, [kind] * samples),
    }
    codes = {"extra": 338, "orientation": 274}
    for name, value in tags.items():
        fields[name] = (fields[name][0] if name in fields else codes[name], value)
    start = 16 if big else 8
    head = b"II" if order == "<" else b"MM"
    head += struct.pack(
        order + ("HHHQ" if big else "HI"), *((43, 8, 0, start + len(data)) if big else (42, start + len(data)))
    )
    entries, more = b"", b""
    rows = sorted((code, value) for code, value in fields.values() if value is not None)
    after = start + len(data) + len(rows) * (20 if big else 12) + (16 if big else 6)
    for code, value in rows:
        numbers = value if isinstance(value, list) else [start if code == 273 else value]
        size = 4 if code in (273, 279) else 2
        packed = struct.pack(f"{order}{len(numbers)}{'I' if size == 4 else 'H'}", *numbers)
        room = 8 if big else 4
        if len(packed) > room:
            packed, more = struct.pack(order + word, after + len(more)), more + packed
        entries += struct.pack(f"{order}HH{word}", code, 4 if size == 4 else 3, len(numbers)) + packed.ljust(
            room, b"\0"
        )
    count = struct.pack(order + ("Q" if big else "H"), len(rows))
    return head + data + count + entries + struct.pack(order + word, 0) + more


def png(values) -> bytes:
    """A PNG of 16 bits, H x W x samples, written by hand."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, samples = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[samples], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def random(dtype, *shape):
    limit = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    return (np.random.default_rng(0).random((3, 4, *shape)) * limit).astype(dtype)


BITS, WIDE, UNIT = random(np.uint8), random(np.uint16), random(np.float32)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tiff(BITS), BITS / 255),
        (tiff(BITS, photometric=0), 1 - BITS / 255),
        (tiff(WIDE), WIDE / 65535),
        (tiff(WIDE, ">"), WIDE / 65535),
        (tiff(WIDE, big=True), WIDE / 65535),
        (tiff(WIDE, photometric=0), 1 - WIDE / 65535),
        (tiff(UNIT), UNIT),
        (tiff(UNIT, photometric=0), 1 - UNIT),
        (tiff(WIDE, orientation=6), np.rot90(WIDE, -1) / 65535),
        (tiff(BITS, orientation=8), np.rot90(BITS) / 255),
        (tiff(random(np.uint8, 2), extra=2), random(np.uint8, 2)[..., 0] / 255),
        (tiff(random(np.uint8, 3)), random(np.uint8, 3) / 255),
        (tiff(random(np.uint8, 4), extra=2), random(np.uint8, 4)[..., :3] / 255),
        (png(random(np.uint16, 1)), random(np.uint16, 1) / 65535),
        (png(random(np.uint16, 3)), random(np.uint16, 3) / 65535),
        (png(random(np.uint16, 4)), random(np.uint16, 4)[..., :3] / 65535),
    ],
)
def test_numbers_become_fractions_of_the_largest(tmp_path, content, expected):
    path = tmp_path / ("a.tif" if content[1:4] != b"PNG" else "a.png")
    path.write_bytes(content)
    pixels = read_images(path)[0].pixels.numpy()
    planes = expected.reshape(*expected.shape[:2], -1).transpose(2, 0, 1)
    np.testing.assert_allclose(pixels, planes, atol=1e-7, rtol=0)  # float32


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tiff(random(np.int8)), "1 x 8 bits with a sign"),
        (tiff(random(np.int16)), "its largest possible number is not known"),
        (tiff(random(np.int32)), "its largest possible number is not known"),
        (tiff(random(np.uint32)), "its largest possible number is not known"),
        (tiff(random(np.uint64)), "a TIFF of a kind that is not read"),
        (tiff(random(np.float16)), "a TIFF of a kind that is not read"),
        (tiff(WIDE, ">", photometric=0), "a TIFF of a kind that is not read"),
        (png(random(np.uint16, 2)), "16 bits of grey with transparency"),
        (tiff(UNIT * 7), "do not lie in 0 to 1"),
        (tiff(UNIT - 0.5), "do not lie in 0 to 1"),
        (tiff(np.full_like(UNIT, np.nan)), "do not lie in 0 to 1"),
        (tiff(random(np.uint16, 3)), "3 x 16 bits, of which not all are read"),
        (tiff(random(np.uint8, 4), extra=0), "4 channels that are not grey or RGB"),
        (tiff(random(np.uint8, 5), extra=[0, 0]), "5 channels that are not grey or RGB"),
        (tiff(random(np.uint8, 5), photometric=1), "a TIFF of a kind that is not read"),
        (tiff(random(np.uint8, 3), photometric=8), "3 channels that are not grey or RGB"),
    ],
)
def test_numbers_that_are_not_understood_are_refused(tmp_path, content, reason):
    (tmp_path / "a.tif").write_bytes(content)  # whatever the ending
    with pytest.raises(ImageFileError, match=rf"a\.tif .*{reason}"):
        read_images(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_every_orientation(tmp_path, orientation, ending):
    """Pillow's own turning is the oracle."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.kron(random_rgb(2, 3), np.ones((8, 8, 1), np.uint8)))
    picture.save(tmp_path / f"a.{ending}", exif=exif)
    with Image.open(tmp_path / f"a.{ending}") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal((read_images(tmp_path / f"a.{ending}")[0].pixels.numpy() * 255).round(), expected)


def test_pages_of_other_sizes_and_kinds_are_told(tmp_path):
    pages = [Image.fromarray(random_rgb(6, width)) for width in (9, 8)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageFileError, match="pages of different sizes"):
        read_images(tmp_path / "a.tif", dimensions=3)
    assert read_images(tmp_path / "a.tif", slice_index=1)[0].pixels.shape == (3, 6, 8)
    pages = [Image.fromarray(random_rgb()[..., 0]), Image.fromarray(random(np.int32))]
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageFileError, match="largest possible number"):
        read_images(tmp_path / "b.tif", slice_index=1)


def test_pages_are_counted_to_a_bound(tmp_path, monkeypatch):
    page = Image.new("L", (1, 1))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page] * 20)
    monkeypatch.setattr(pictures_module, "MOST_PAGES", 20)
    with pytest.raises(ImageFileError, match="more than 20 pages"):
        read_images(tmp_path / "a.tif", slice_index=0)
    content = tiff(BITS)  # whose next page is itself
    (tmp_path / "b.tif").write_bytes(content[:-4] + content[4:8])
    assert read_images(tmp_path / "b.tif")[0].pixels.shape == (1, 3, 4)


def test_a_large_picture_takes_twice_its_pixels_at_most(tmp_path):
    side, path = 4000, tmp_path / "a.png"
    Image.new("RGB", (side, side), (10, 200, 30)).save(path)
    code = (
        "import resource, sys; from misure.io.images import read_images\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak(); pixels = read_images(sys.argv[1])[0].pixels; print((peak() - before) / pixels.nbytes)"
    )
    printed = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
    assert float(printed) < 2


def test_pictures_are_decoded_side_by_side(tmp_path, monkeypatch):
    """What silences warnings is one for all threads; it is let go before pixels are decoded."""
    path, entered = tmp_path / "a.png", threading.Barrier(2, timeout=30)
    Image.fromarray(random_rgb()).save(path)
    real = pictures_module.fractions
    monkeypatch.setattr(pictures_module, "fractions", lambda image: (entered.wait(), real(image))[1])
    before = list(warnings.filters)
    results = []
    threads = [threading.Thread(target=lambda: results.append(read_images(path)[0].pixels)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(*results)
    assert warnings.filters == before
