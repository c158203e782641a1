"""A load of known length on workers: what is left of it is the overhead."""

from __future__ import annotations

import pandas as pd
import pytest
from pipeline import TINY, run_script, shipped_root


def test_a_load_of_known_length_is_timed_with_all_that_a_run_does(tmp_path):
    load = ["workers.counts=[1]", "workers.units=4", "workers.seconds=0.2", "outputs=outputs"]
    ended = run_script("workers.py", [*TINY, f"data_root={shipped_root(tmp_path / 'data')}", *load], tmp_path)
    assert ended.code == 0, ended.err
    bench = tmp_path / "outputs" / "bench"
    (row,) = pd.read_csv(bench / "workers-local.csv").to_dict("records")
    assert row["s taken"] >= 4 * 0.2
    assert row["efficiency"] == 1
    assert row["overhead, s a unit"] == pytest.approx(row["s taken"] / 4 - 0.2)
    assert ended.out.endswith((bench / "workers-local.md").read_text(encoding="utf-8") + "\n")
    assert {path.name for path in bench.iterdir()} == {"workers-local.csv", "workers-local.md"}
