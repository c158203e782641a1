"""Numbers measured on maps, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from misure.paper.claims.likeness import correlation, variation


def test_variation_and_correlation_by_hand() -> None:
    step = {"saliency": np.array([[0.0, 2.0], [0.0, 2.0]])}
    assert variation(step) == pytest.approx(2 / 2)
    assert variation({"saliency": 5 + 3 * step["saliency"]}) == variation(step), "neither unit nor zero counts"
    assert math.isnan(variation({"saliency": np.full((2, 2), 0.3)}))
    assert correlation(step, {"saliency": 5 - step["saliency"]}) == pytest.approx(-1)
    assert math.isnan(correlation(step, {"saliency": np.ones((2, 2))}))
