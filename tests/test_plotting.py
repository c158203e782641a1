"""Drawing on pixels: outlines, sizes, colours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from misure.plotting import brought_to, heat, outline, picture_uri, show_region

REGION = np.zeros((7, 8), bool)
REGION[2:6, 1:6] = True
RED, BLACK = (255, 0, 0), (0, 0, 0)


@pytest.mark.parametrize(("width", "inside"), [(1, (slice(3, 5), slice(2, 5))), (2, (slice(0), slice(0)))])
def test_an_outline_lies_just_inside_and_its_rim_just_outside(width, inside):
    pixels = np.full((7, 8, 3), 200, np.uint8)
    outline(pixels, REGION, RED, width=width, rim=BLACK)
    expected = REGION.copy()
    expected[inside] = False
    assert np.array_equal((pixels == RED).all(2), expected)
    rim = np.zeros_like(REGION)
    rim[[1, 6], 1:6] = rim[2:6, [0, 6]] = True
    assert np.array_equal((pixels == BLACK).all(2), rim)


def test_sizes_are_reached_by_repeating_and_averaging():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 10
    larger = brought_to(pixels, (6, 12))
    assert np.array_equal(larger, pixels.repeat(2, 0).repeat(3, 1))
    assert np.array_equal(brought_to(larger, (3, 4)), pixels)
    assert brought_to(np.array([[0, 100]], np.uint8), (1, 1)) == 50


def test_heat_grows_brighter_and_pictures_are_addresses():
    colours = heat(np.linspace(0, 1, 5)[None])
    assert (np.diff(colours.sum(2)) > 0).all()
    assert picture_uri(colours.astype(np.uint8), photograph=False).startswith("data:image/png;base64,")
    assert picture_uri(colours.astype(np.uint8), photograph=True).startswith("data:image/jpeg;base64,")


def test_outside_of_a_region_stands_what_the_network_sees_there():
    image = torch.stack([torch.full((2, 2), value) for value in (0.2, 0.6, 1.0)])
    image[:, 0, 0] = 0.0
    region = torch.tensor([[True, True], [False, False]])
    axes = Figure().subplots()
    for blank, expected in (((0.0,), 0.0), ((0.5, 0.25, 0.75), (0.5, 0.25, 0.75))):
        show_region(axes, image, region, blank)
        drawn = axes.images[-1].get_array()
        np.testing.assert_allclose(drawn[0, 1], (0.2, 0.6, 1.0), atol=1e-6)
        np.testing.assert_allclose(drawn[1], np.broadcast_to(expected, (2, 3)), atol=1e-6)
