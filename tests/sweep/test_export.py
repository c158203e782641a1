"""Records as Parquet: every value as it was, or as JSON text where a column has several kinds of them."""

from __future__ import annotations

import json
import sys

import pandas as pd
import pytest

from misure.errors import MisureError
from misure.sweep.export import export_records

MIXED = ["a", 0.1 + 0.2, True, None, 7, "b"]
ROWS = [{"unit": f"{n}", "sample": n, "share": n / 3, "param_x": x} for n, x in enumerate(MIXED)]
ROWS += [row | {"flag": True, "none": None, "count": 3, "name": "\N{GREEK SMALL LETTER LAMDA}"} for row in ROWS[:2]]


def test_values_are_read_as_they_were(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install 'misure[parquet]')")
    records = pd.DataFrame(ROWS)
    found = pd.read_parquet(export_records(records, tmp_path / "records.parquet"))
    assert [*tmp_path.iterdir()] == [tmp_path / "records.parquet"]
    texts, mixed = found.pop("param_x"), records.pop("param_x")
    assert [json.loads(text) for text in texts.dropna()] == mixed.dropna().tolist()
    assert texts.isna().tolist() == mixed.isna().tolist()
    frames = [frame.astype(object).where(frame.notna(), None) for frame in (found, records)]
    pd.testing.assert_frame_equal(*frames)
    assert found["share"].tolist() == records["share"].tolist()


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MisureError, match=r"misure\[parquet\]"):
        export_records(pd.DataFrame(ROWS), tmp_path / "records.parquet")
    assert not [*tmp_path.iterdir()]
