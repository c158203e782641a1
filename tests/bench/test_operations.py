"""The table of operations: a convolution's share on a toy network."""

import pandas as pd
import pytest
import torch
from torch import nn

from misure.bench.operations import most_expensive, operations
from misure.explainers import RISE
from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel, frozen
from misure.target import make_targets


def test_every_pass_s_convolution_is_counted():
    torch.manual_seed(0)
    model = SegmentationModel(nn.Conv2d(3, 2, 5, padding=2))
    images = torch.rand(2, 3, 16, 16)
    compute = Compute("32", batch_size=4)
    with frozen(model, compute, images.device) as network:
        class_id = int(network.predict(images).min())
        targets = make_targets(network, images, class_id)
    table = operations(model, images, targets, RISE(n_masks=8, thresholds=(0.5,)), compute)
    # eight masks in batches of four, and one evaluation at one threshold
    assert table.loc["aten::convolution", "calls"] == 3
    assert table["share"].sum() == pytest.approx(1)
    assert table["seconds"].is_monotonic_decreasing


def test_small_shares_are_added_up():
    table = pd.DataFrame({"seconds": [6.0, 3.9, 0.06, 0.04], "calls": [1, 2, 3, 4], "share": [0.6, 0.39, 0.006, 0.004]})
    table.index = list("abcd")
    shown = most_expensive(table)
    assert list(shown.index) == ["a", "b", "everything else"]
    assert shown.loc["everything else"].tolist() == pytest.approx([0.1, 7, 0.01])
