"""The page of the benchmark: medians with their range."""

from __future__ import annotations

import pandas as pd
import pytest

from misure.bench.speed import summarise


def test_numbers_of_the_table_are_medians_with_their_range() -> None:
    row = {"method": "msr", "contestant": "literal", "precision": "32", "correlation": 1.0, "scaled_difference": 0.0}
    row |= {"dice_explained": 0.9, "perturbation_ratio": 1.0, "peak_bytes": 5 << 20, "misure_seconds": 0.5}
    row |= {"misure_dice_explained": 0.9, "misure_perturbation_ratio": 0.96, "misure_peak_bytes": 7 << 20}
    measured = zip([1.0, 4.0, 2.0], [2.0, 8.0, 4.0], strict=True)
    bench = pd.DataFrame([{**row, "seconds": seconds, "times_faster": times} for seconds, times in measured])
    (row,) = summarise(bench).to_dict("records")
    assert (row["method"], row["against"], row["precision"], row["images"]) == ("MSR", "literal", "32", 3)
    assert row["its s an image"] == "2 (1 to 4)"
    assert row["misure s an image"] == "0.5 (0.5 to 0.5)"
    assert row["times faster"] == "4 (2 to 8)"
    assert (row["its peak MB"], row["misure peak MB"]) == (5, 7)
    assert (row["lowest correlation"], row["largest scaled difference"]) == (1.0, 0.0)
    assert (row["its Dice explained"], row["its ratio"], row["misure ratio"]) == (0.9, 1.0, pytest.approx(0.96))
