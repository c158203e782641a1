"""Components and borders, against drawings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles.resizing import bilinear
from scipy.ndimage import binary_dilation, binary_erosion

from misure.errors import MisureError
from misure.regions import as_region, border_of, component_at, point_within, resized


def drawn(picture: str) -> torch.Tensor:
    return torch.tensor([[mark == "#" for mark in row] for row in picture.split()])


OBJECTS = drawn("""
    ##..#
    #..#.
    .....
    ###..
    ###.#
""")


@pytest.mark.parametrize(
    ("point", "component"),
    [
        ((0, 0), "##... #.... ..... ..... ....."),
        ((0, 4), "....# ...#. ..... ..... ....."),  # a corner connects
        ((1, 3), "....# ...#. ..... ..... ....."),
        ((4, 1), "..... ..... ..... ###.. ###.."),
        ((4, 4), "..... ..... ..... ..... ....#"),
    ],
)
def test_the_component_at_a_pixel(point, component):
    assert torch.equal(component_at(OBJECTS, point), drawn(component))


def test_voxels_are_connected_by_corners():
    mask = torch.zeros(3, 3, 3, dtype=torch.bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 0] = mask[0, 2, 2] = True
    assert torch.equal(component_at(mask, (0, 0, 0)), mask)
    mask[1, 1, 1] = False
    assert component_at(mask, (0, 2, 2)).nonzero().tolist() == [[0, 2, 2]]


@pytest.mark.parametrize(
    ("mask", "point", "message"),
    [
        (OBJECTS, (2, 2), r"the point \(2, 2\) is not on the object: choose a point inside"),
        (OBJECTS, (5, 0), r"the point \(5, 0\) lies outside the image of 5 x 5: give \(row, column\)"),
        (OBJECTS, (0, -1), r"lies outside the image"),
        (OBJECTS, (0, 0, 0), r"the point \(0, 0, 0\) is not a \(row, column\) of whole numbers"),
        (OBJECTS, (0.5, 0), "is not a "),
        (OBJECTS, 3, "the point 3 is not a "),
        (OBJECTS[None], (0, 0), r"is not a \(slice, row, column\)"),
        (torch.zeros(5, 5, dtype=torch.bool), (0, 0), "is not on the object"),
    ],
)
def test_points_that_name_no_object(mask, point, message):
    with pytest.raises(MisureError, match=message) as caught:
        component_at(mask, point)
    assert "\n" not in str(caught.value)


SQUARE = drawn("##### ##### ##### ##### #####")
HOUSE = drawn("..... ..#.. .###. .###. .....")


@pytest.mark.parametrize(
    ("mask", "width", "rim"),
    [
        (SQUARE, 1, "##### #...# #...# #...# #####"),  # beyond the image is outside
        (SQUARE, 2, "##### ##### ##.## ##### #####"),
        (SQUARE, 3, "##### ##### ##### ##### #####"),
        (HOUSE, 1, "..... ..#.. .###. .###. ....."),
        (drawn("..... ##### ##### ##### ....."), 1, "..... ##### #...# ##### ....."),
        (drawn("..... ..... ..... ..... ....."), 2, "..... ..... ..... ..... ....."),
    ],
)
def test_the_border_of_a_drawing(mask, width, rim):
    assert torch.equal(border_of(mask, width), drawn(rim))


@pytest.mark.parametrize("width", [0, -1, 1.5, True, "2"])
def test_borders_without_a_width_are_refused(width):
    with pytest.raises(MisureError, match=f"border={width} is not a whole number of at least 1"):
        border_of(SQUARE, width)


@pytest.mark.parametrize("width", [20_000, np.int64(3), torch.tensor(10**18), 10**40, 3.0])
def test_a_border_wider_than_the_image_costs_no_more_than_a_thin_one(width):
    """A kernel of that width takes 1.6 GB and a minute for 32 x 32 pixels."""
    assert torch.equal(border_of(SQUARE, width), SQUARE)


@pytest.mark.parametrize(
    "point", [(1, 2), [1, 2], torch.tensor([1, 2]), np.array([1.0, 2.0]), (torch.tensor(1), np.int32(2)), (1.0, 2.0)]
)
def test_points_of_any_numbers(point):
    found = point_within(point, (3, 4))
    assert found == (1, 2)
    assert [type(i) for i in found] == [int, int]


@pytest.mark.parametrize("point", ["12", (True, 1), (1, None), (1, np.nan), {1, 2}, torch.ones(2, 2), (10**400, 0)])
def test_points_that_are_none(point):
    with pytest.raises(MisureError, match=r"^the point .{,120}(is not a|lies outside)"):
        point_within(point, (3, 4))


RIGHT = [[False, True], [False, True]]


@pytest.mark.parametrize(
    "value",
    [
        RIGHT,
        np.array(RIGHT),
        np.array(RIGHT, np.uint8)[::-1] * np.uint8(255),
        np.array(RIGHT, ">i2"),
        torch.tensor(RIGHT).float(),
        torch.tensor(RIGHT).to(torch.bfloat16),
        torch.tensor(RIGHT).long() * 7,
    ],
)
def test_regions_of_any_numbers(value):
    found = as_region(value)
    assert found.dtype == torch.bool
    assert found.tolist() == RIGHT


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor([0, 0.5]), "values between 0 and 1"),
        (np.array([0, np.nan]), "values between 0 and 1, below 0 or NaN"),
        (torch.tensor([0, -1]), "below 0"),
        (torch.ones(2, dtype=torch.complex64), "values between"),
        ([[1], [1, 2]], "rows of different lengths"),
        ([["a"]], "an array of <U1"),
        ("left", "region is a str"),
    ],
)
def test_regions_that_are_no_masks(value, message):
    with pytest.raises(MisureError, match=message):
        as_region(value)


sizes = st.integers(2, 3).flatmap(lambda rank: st.tuples(*[st.integers(1, 6)] * rank))


@given(mask=sizes.flatmap(lambda size: arrays(bool, size)), width=st.integers(1, 3))
def test_the_border_is_what_erosion_takes(mask, width):
    eroded = binary_erosion(mask, np.ones((2 * width + 1,) * mask.ndim))
    assert np.array_equal(border_of(torch.from_numpy(mask), width).numpy(), mask & ~eroded)


@given(sizes.flatmap(lambda size: arrays(bool, size)))
def test_components_part_the_mask_and_never_touch(mask):
    left = mask.copy()
    while left.any():
        component = component_at(torch.from_numpy(mask), np.argwhere(left)[0].tolist()).numpy()
        assert not (component & ~left).any()
        left &= ~component
        assert not (binary_dilation(component, np.ones((3,) * mask.ndim)) & left).any()


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_resizing_equals_the_hand_written_one_whatever_axes_come_first(leading):
    maps = torch.randn(*leading, 5, 7, dtype=torch.float64)
    expected = [bilinear(plane, 13, 9) for plane in maps.reshape(-1, 5, 7).numpy()]
    np.testing.assert_allclose(resized(maps, (13, 9)).numpy(), np.reshape(expected, (*leading, 13, 9)), atol=1e-12)
    assert resized(maps, (5, 7)) is maps
