"""Photographs come out as RGB whatever they are stored as; damage is named; label maps equal a slow oracle."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from coco_files import CocoFolder, box, picture, run_lengths
from hypothesis import given
from hypothesis import strategies as st
from oracles import coco as oracle
from PIL import Image, ImageFile

from misure.datasets.coco import images as coco_images
from misure.datasets.coco.images import check_image, fitted, label_map, read_rgb
from misure.datasets.coco.protocol import read_annotations
from misure.datasets.coco.shapes import drawn, sound
from misure.io.reading import ImageFileError

SIZE = (24, 18)
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
    8: np.rot90,
}
"""What EXIF's orientations ask for."""


def save(folder, pixels, name="a.png", **saving):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(folder / name, **saving)
    return folder / name


def rgb(path, size=SIZE):
    """Pixels as H x W x 3 in 0 to 255."""
    check_image(path, size)
    image = read_rgb(path, size)
    assert (image.dtype, tuple(image.shape)) == (torch.float32, (3, *size[::-1]))
    return image.permute(1, 2, 0).double().numpy() * 255


def assert_pixels(image, expected):
    np.testing.assert_allclose(image, expected, rtol=0, atol=2e-5)  # float32 fractions, times 255


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_turned_camera(tmp_path, orientation):
    path = save(tmp_path, picture(), exif=oriented(orientation))
    assert_pixels(rgb(path), picture())  # the annotations fit the stored pixels
    square = picture(20, 20)
    assert_pixels(rgb(save(tmp_path, square, exif=oriented(orientation)), (20, 20)), square)
    path = save(tmp_path, picture(), exif=oriented(orientation))
    upright = UPRIGHT[orientation](picture())
    if orientation > 4:
        assert_pixels(rgb(path, SIZE[::-1]), upright)
    else:
        with pytest.raises(ImageFileError, match="is 24 x 18, its annotations are for 18 x 24"):
            read_rgb(path, SIZE[::-1])


def damaged(tmp_path, content, name="a.jpg"):
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


@pytest.mark.parametrize("read", [read_rgb, check_image])
@pytest.mark.parametrize(
    ("name", "kept", "size", "reason"),
    [
        ("a.jpg", 1, (241, 180), "is 240 x 180, its annotations are for 241 x 180"),
        ("a.jpg", 2 / 3, (240, 180), "cannot be read"),
        ("a.png", 2 / 3, (240, 180), "cannot be read"),
        ("a.jpg", 0, (240, 180), "is empty"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, read, name, kept, size, reason):  # noqa: PLR0917
    path = save(tmp_path, picture(240, 180), name)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ImageFileError, match=rf"^{path} {reason}.*$"):
        read(path, size)


def test_sizes_are_compared_before_decoding(tmp_path, monkeypatch):
    path = save(tmp_path, picture())
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageFileError, match="its annotations are for"):
        read_rgb(path, (25, 18))
    monkeypatch.setattr(coco_images, "MOST_PIXELS", 24 * 18 - 1)
    with pytest.raises(ImageFileError, match="has more than"):
        read_rgb(path, SIZE)


def test_a_check_decodes_an_eighth_of_a_jpeg(tmp_path, monkeypatch):
    sizes = []
    fractions = coco_images.fractions
    monkeypatch.setattr(
        coco_images, "fractions", lambda image, **how: sizes.append(image.size) or fractions(image, **how)
    )
    path = save(tmp_path, picture(240, 160), "a.jpg")
    check_image(path, (240, 160))
    read_rgb(path, (240, 160))
    assert sizes == [(30, 20), (240, 160)]


@given(ending=st.sampled_from(["jpeg", "png", "tiff"]), data=st.data())
def test_flipped_bytes_never_crash(tmp_path_factory, ending, data):
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, ending, exif=oriented(6))
    content = bytearray(stream.getvalue())
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=20)):
        content[place] = value
    path = damaged(tmp_path_factory.mktemp("flipped"), content[: data.draw(places) + 1])
    try:
        check_image(path, SIZE)
    except ImageFileError:
        return
    assert read_rgb(path, SIZE).shape == (3, 18, 24)  # a check promises that reading works


def test_squashing_and_growing_equal_explicit_matrices():
    pixels = picture() / 255
    image = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)
    for height, width in ((12, 12), (9, 30), (18, 24), (40, 50)):
        rows, columns = oracle.antialiased_matrix(height, 18), oracle.antialiased_matrix(width, 24)
        expected = np.einsum("yi,xj,ijc->cyx", rows, columns, pixels)
        np.testing.assert_allclose(
            fitted(image, (height, width)).numpy(), expected, atol=1e-6
        )  # float32 sums of up to 20 products


CATEGORIES = st.sampled_from([1, 3, 4, 7, 27])


@st.composite
def shapes(draw):
    """A rectangle, two rectangles or any mask, in 9 x 7 pixels."""
    if draw(st.booleans()):
        mask = np.array(draw(st.lists(st.booleans(), min_size=63, max_size=63))).reshape(7, 9)
        mask[3, 4] = True
        return run_lengths(mask)
    corners = st.tuples(st.integers(0, 8), st.integers(0, 6), st.integers(1, 9), st.integers(1, 7))
    boxes = [box(x, y, min(x + w, 9), min(y + h, 7)) for x, y, w, h in draw(st.lists(corners, min_size=1, max_size=2))]
    return [polygon for polygons in boxes for polygon in polygons]


@given(objects=st.lists(st.tuples(CATEGORIES, shapes()), max_size=5), crowds=st.lists(st.tuples(CATEGORIES, shapes())))
def test_label_maps_equal_the_oracle(tmp_path_factory, objects, crowds):
    folder = CocoFolder(tmp_path_factory.mktemp("labels"))
    folder.add([*objects, (27, box(0, 0, 9, 7))], crowds, picture(9, 7))
    annotations = folder.content["annotations"]
    folder.write()
    coco, _ = read_annotations(folder.annotations)
    np.testing.assert_array_equal(label_map(coco, 1), oracle.label_map(7, 9, annotations))


@given(st.lists(st.floats(-3, 15), min_size=6, max_size=6))
def test_slanted_edges_are_right_within_a_pixel(triangle):
    try:
        mask = drawn(sound([triangle], 10, 12), 10, 12)
    except ValueError:
        mask = np.zeros((10, 12), bool)  # it lies outside, or is a line
    for y in range(10):
        for x in range(12):
            if _distance_from_edges(triangle, x + 0.5, y + 0.5) > 1:
                assert mask[y, x] == oracle.inside(triangle, x + 0.5, y + 0.5)


def _distance_from_edges(polygon, x, y):
    starts = np.array(polygon).reshape(-1, 2)
    along = np.roll(starts, -1, 0) - starts
    lengths = np.maximum((along**2).sum(1), 1e-12)
    share = (((np.array([x, y]) - starts) * along).sum(1) / lengths).clip(0, 1)
    return np.linalg.norm(starts + share[:, None] * along - [x, y], axis=1).min()
