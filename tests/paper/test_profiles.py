"""Records serve every profile whose setting they fulfil: a run notes which of another profile's it found."""

from __future__ import annotations

import pandas as pd
import pytest
from paper_records import photo

from misure.errors import MisureError
from misure.paper.profiles import in_use, serving
from misure.paper.query import latest_run, select


def frame(*units: list[dict]) -> pd.DataFrame:
    return pd.DataFrame([row for unit in units for row in unit])


def test_a_quick_run_s_records_count_in_the_paper_s_tables():
    """As with real photographs: quick explains three, then the paper profile finds these and adds one."""
    quick = [photo("msr", sample, "dog", profile="quick") for sample in range(3)]
    records = frame(*quick, photo("msr", 3, "dog", profile="paper"))
    found = {unit[0]["unit"] for unit in quick}
    run = latest_run(serving(records, "paper", found), "paper")
    assert sorted(select(run, "msr")["sample"]) == [0, 1, 2, 3]
    assert set(run["profile"]) == {"paper"}
    assert sorted(latest_run(serving(records, "quick", set()), "quick")["sample"]) == [0, 1, 2]


def test_what_no_run_found_does_not_serve():
    records = frame(photo("rise", 0, "dog", {"n_masks": 100}, profile="quick"), photo("msr", 1, "dog", profile="paper"))
    assert set(serving(records, "paper", set())["sample"]) == {1}
    assert serving(records, "smoke", set()).empty


def test_no_records_and_foreign_ones():
    assert serving(pd.DataFrame(), "paper", set()).empty
    with pytest.raises(MisureError, match="lack the columns unit"):
        serving(frame(photo("msr", 0, "dog")).drop(columns="unit"), "paper", set())


def test_records_of_what_the_last_run_took_count_whatever_their_time():
    made = [("a", "x", "2031-01-01T00:00:00Z"), ("b", "x", "2026-01-01T00:00:00Z"), ("b", "y", "2032-01-01T00:00:00Z")]
    units = [photo("msr", 0, "cat", weights=w, dataset_fingerprint=i, created=t, profile="quick") for w, i, t in made]
    found = frame(*units, photo("msr", 0, "cat", model="other", weights="c", profile="quick"))
    pair = ("coco", "deeplabv3_mobilenetv2")
    kept = {taken: in_use(found, {pair: taken}) for taken in (("a", "x"), ("b", "x"), ("b", "y"), ("d", "x"))}
    for taken in list(kept)[:3]:
        assert set(zip(kept[taken]["weights"], kept[taken]["dataset_fingerprint"], strict=True)) - {
            ("c", "f" * 16)
        } == {taken}
        assert set(latest_run(kept[taken], "quick")["weights"]) == {taken[0], "c"}
    assert set(kept["d", "x"]["weights"]) == {"c"}
    assert len(in_use(found, {})) == len(found)
    assert in_use(found.iloc[:0], {pair: ("a", "x")}).empty
