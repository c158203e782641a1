"""Normalisation by channel, in two and three dimensions."""

from __future__ import annotations

import pytest
import torch

from misure.errors import MisureError
from misure.models.normalisation import normalised, without_normalisation


@pytest.mark.parametrize("size", [(4, 5), (3, 4, 5)])
def test_each_channel_has_its_own_mean_and_divisor(size):
    pixels = torch.rand(2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean, std = (0.1, 0.2), (0.5, 2.0)
    image = normalised(pixels, mean, std)
    torch.testing.assert_close(image[1], (pixels[1] - 0.2) / 2)
    torch.testing.assert_close(without_normalisation(image, mean, std), pixels)
    torch.testing.assert_close(normalised(pixels, (0.1,), (0.5,))[1], (pixels[1] - 0.1) / 0.5)


def test_another_number_of_channels_is_an_error():
    with pytest.raises(MisureError, match=r"std=\[1, 1, 1\] is for 3 channels, the image has 2"):
        normalised(torch.zeros(2, 4, 4), (0,), (1, 1, 1))
