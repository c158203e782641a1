"""Logits found in any output, upsampled, and sigmoid heads as two classes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracles.resizing import bilinear

from misure.errors import MisureError
from misure.models.logits import to_logits

IMAGES = torch.zeros(2, 1, 8, 12)
LOGITS = torch.arange(2 * 3 * 8 * 12).view(2, 3, 8, 12).float()


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        {"out": LOGITS, "aux": None},
        {"logits": LOGITS},
        SimpleNamespace(logits=LOGITS),
        (LOGITS, "features"),
        [LOGITS],
        {"out": SimpleNamespace(logits=(LOGITS,))},
    ],
)
def test_logits_are_found_in_every_kind_of_output(output):
    assert to_logits(output, IMAGES) is LOGITS


@pytest.mark.parametrize("drop_channel", [False, True])
def test_one_channel_becomes_two_logits_whose_softmax_is_the_sigmoid(drop_channel):
    z = torch.linspace(-3, 3, 2 * 8 * 12, dtype=torch.float64).view(2, 1, 8, 12)
    logits = to_logits(z[:, 0] if drop_channel else z, IMAGES)
    assert logits.shape == (2, 2, 8, 12)
    torch.testing.assert_close(logits.softmax(1)[:, 1], z[:, 0].sigmoid(), rtol=0, atol=1e-15)  # float64 rounding


def test_small_logits_are_upsampled_bilinearly():
    small = torch.randn(2, 3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = to_logits(small, IMAGES)
    expected = bilinear(small[1, 2].numpy(), 8, 12)
    np.testing.assert_allclose(got[1, 2].numpy(), expected, rtol=0, atol=1e-14)  # float64 rounding


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"mask": LOGITS}, r"returned dict with keys \['mask'\]"),
        ("logits", "returned str; expected logits"),
        ([], "returned list"),
        (None, "returned NoneType"),
        (LOGITS[:1], r"shape \(1, 3, 8, 12\) for images \(2, 1, 8, 12\)"),
        (LOGITS[0, 0, 0], "expected N x classes x H x W"),
    ],
)
def test_other_outputs_are_refused_in_one_line(output, message):
    with pytest.raises(MisureError, match=message) as caught:
        to_logits(output, IMAGES)
    assert "\n" not in str(caught.value)
