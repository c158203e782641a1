"""How many masks RISE needs, on toys."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from oracles.toys import PerPixel

import misure
from misure.bench.rise_convergence import Convergence, correlation_of, masks_needed, summary, summary_table
from misure.explainers import RISE
from misure.paper.published import DASH


def test_masks_needed_is_where_the_correlation_stays():
    assert masks_needed([(100, 0.995), (200, 0.98), (300, 0.99), (400, 0.999)], 0.99) == 300
    assert masks_needed([(100, 0.995), (200, 0.98)], 0.99) is None


def test_correlation_is_numpy_s():
    one, two = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert correlation_of(one, two) == pytest.approx(np.corrcoef(one.flatten(), two.flatten())[0, 1], abs=1e-12)
    assert correlation_of(one, torch.ones(5, 6)) == 0


def test_coupled_masks_need_fewer_on_a_toy():
    """The object's share of every mask is its score; complements cancel how often a pixel was covered."""
    image = torch.zeros(1, 12, 15, dtype=torch.float64)
    image[0, 2:7, 3:9] = 1
    measured = Convergence(n_reference=3000, n_masks=1000, every=50, correlation=0.95, seeds=(0, 1))
    table = measured.measure(misure.SegmentationModel(PerPixel()), image, 1, RISE(grid=4))
    rows = summary(table).set_index("variant")
    assert list(rows.index) == ["plain", "antithetic", "stratified", "both"]
    assert (rows["runs"] == 2).all()
    means = table.groupby("variant")["correlation"].mean()
    assert means["antithetic"] > means["plain"]
    assert means["both"] > means["plain"]


def test_the_table_has_a_row_for_every_kind_of_masks():
    runs = [("plain", 300, 0.991), ("plain", 500, 0.993), ("both", None, 0.5)]
    table = pd.DataFrame(runs, columns=["variant", "masks", "correlation"]).astype({"masks": "Int64"})
    assert summary_table(table).splitlines()[2:] == [
        "| plain | 2 | 2 | 400 (300 to 500) | 0.9920 |",
        f"| both | 1 | 0 | {DASH} | 0.5000 |",
    ]
