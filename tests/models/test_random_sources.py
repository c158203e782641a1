"""Sources of random numbers: seeded, compared and given back."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from misure.models.random_sources import RandomSources

CPU = torch.device("cpu")
OWN = [torch.Generator(), np.random.default_rng(), np.random.RandomState(1), random.Random(1)]
DRAWS = {
    "torch": [lambda: torch.rand(1).item(), lambda: torch.rand(1, generator=OWN[0]).item()],
    "NumPy": [lambda: np.random.random(), lambda: OWN[1].random(), lambda: OWN[2].random()],  # noqa: NPY002, PLW0108
    "Python": [lambda: random.random(), lambda: OWN[3].random()],  # noqa: PLW0108
}


@pytest.mark.parametrize(("package", "draw"), [(name, draw) for name in DRAWS for draw in DRAWS[name]])
def test_a_draw_is_seeded_noticed_and_taken_back(package, draw):
    sources = RandomSources(CPU, OWN)
    before = sources.states()
    first = []
    for seed in (3, 3, 4, 2**40 + 3):
        sources.seed(seed)
        seeded = sources.states()
        assert sources.changed(seeded) == []
        first.append(draw())
        assert sources.changed(seeded) == [package]
    assert first[0] == first[1] != first[2]
    sources.restore(before)
    assert sources.changed(before) == []
    expected = draw()
    sources.restore(before)
    assert draw() == expected
