"""The example in every method's docstring gives what it says."""

from __future__ import annotations

import doctest
import sys

import pytest
import torch
from torch import nn

import misure


def bright() -> nn.Module:
    """Class 1 where a pixel exceeds 0.5; layer "1" holds one channel for each class."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        network[0].bias.copy_(torch.tensor([-0.2, 0.8]))
        network[2].weight.copy_(4 * torch.eye(2).flip(0).view(2, 2, 1, 1))
    return network


@pytest.mark.parametrize("method", misure.EXPLAINERS)
def test_the_example_of_a_method(method):
    explainer = misure.EXPLAINERS[method]
    if method in {"integrated_gradients", "smooth_grad"}:
        pytest.importorskip("captum", reason="captum is not installed")
    image = torch.zeros(1, 16, 16)
    image[:, 4:10, 5:12] = 1
    names = {**vars(sys.modules[explainer.__module__]), "misure": misure, "network": bright(), "image": image}
    (example,) = doctest.DocTestFinder(recurse=False).find(explainer, explainer.__name__, globs=names)
    assert len(example.examples) >= 2
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert not report, "".join(report)
    if method not in {"prediction", "random_map"}:
        assert "Reference:\n        " in str(explainer.__doc__)
        assert "https://" in str(explainer.__doc__)
