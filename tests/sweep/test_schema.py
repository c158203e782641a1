"""The schema of records: what is no record is named with what is wrong, and counts as absent."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest

from misure.sweep.records import RecordStore, Unit

UNIT = Unit("triangle", "f" * 16, "unet", "1234567890123456", "rise", {"seed": 0, "thresholds": [0.2, 0.4]}, 7, 1)
ROW = {
    "dice_explained": 0.5,
    "perturbation_ratio": 2.0,
    "status": "done",
    "reason": None,
    "created": "2026-11-28T10:12:19.732151+00:00",
    "profile": "quick",
    "dataset_source": "toy",
    "stand_in": False,
}


def stored(folder, lines: list[str]) -> RecordStore:
    """Keep one whole record, and other lines in the file of another."""
    store = RecordStore(folder)
    for unit in (UNIT, replace(UNIT, sample=8)):
        store.write(unit, [ROW | {"threshold": t} for t in (0.2, 0.4)])
    store.path(UNIT).write_text("\n".join(lines), encoding="utf-8")
    return store


def lines(*, only: int = 2, **changed: object) -> list[str]:
    """Write the record with other values; None leaves a column out."""
    row = UNIT.columns() | ROW | changed
    kept = {name: value for name, value in row.items() if value is not None}
    rows = [kept | {"threshold": changed.get("threshold", t)} for t in (0.2, 0.4)]
    return [json.dumps(each) for each in rows[:only]]


WRONG = {
    "dice_explained": [7.0, -0.1, float("nan"), float("inf"), "0.5", True, [0.5], {"a": 1}, None],
    "truth_dice": [1.1, -1],
    "perturbation_ratio": [-1.0, float("inf"), "much", 10**400, None],
    "region_ratio": [-0.5],
    "seconds": [-3],
    "prediction_size": [-1, 0.5, "many"],
    "n_dilations": [-1, 2.5],
    "batch_size": [0],
    "sample": [-1, 1.5, "7", None],
    "class_id": [-1, 2**60, None],
    "threshold": [-0.2, 2, "0.2"],
    "status": ["over", "", 5, ["done"], None],
    "created": ["yesterday", "2026-W48-6", "0001-01-01T00:00:00", "2026-02-30T00:00:00", 1764324739, None],
    "stand_in": ["False", 0, None],
    "dataset": ["", " ", "a\nb", "a\0b", "\ud800", "x" * 5000, 3, None],
    "class_name": ["", "a\x1b[31mb"],
    "group": ["a\nb", 7],
    "weights": [None, 7],
    "unit": ["../../x", "0" * 20, "", None],
    "precision": ["16", 32],
    "param_seed": ["0", 0.5],
    "param_n_masks": [0, "many"],
    "param_thresholds": ["[0.2]", "abc", "5", '["a"]', "[" * 2000, [0.2, 0.4]],
    "intervention": ["randomised", "randomised_2", "randomised_0", "weights", 0.5],
    "further": [[1], {"a": 1}, "a\0b", float("nan")],
}


@pytest.mark.parametrize(("column", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_record_with_a_wrong_value_is_named_left_out_and_made_anew(tmp_path, column, value):
    store = stored(tmp_path, lines(**{column: value}))
    with pytest.warns(UserWarning, match=UNIT.id) as warned:
        found, left_out = store.load_and_tell()
    assert set(found["sample"]) == {8}
    assert list(left_out) == [f"record triangle-unet/rise/{UNIT.id}.jsonl"]
    assert len(warned) == 1
    assert len(str(warned[0].message)) < 600
    assert not store.outcome(UNIT).complete
    folder, compacted = store.path(UNIT).parent, RecordStore(tmp_path / "compacted")
    compacted.folder.mkdir()
    packed = [gzip.compress(path.read_bytes()) for path in folder.iterdir()]
    (compacted.folder / "rise.jsonl.gz").write_bytes(b"".join(packed))
    if column != "unit":
        with pytest.warns(UserWarning, match=r"rise\.jsonl\.gz"):
            assert set(compacted.load()["sample"]) == {8}
    store.write(UNIT, [ROW | {"threshold": t} for t in (0.2, 0.4)])
    assert set(RecordStore(store.folder / "triangle-unet").load()["sample"]) == {7, 8}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "it is empty"),
        (["5"], "line 1 is no object"),
        ([*lines(only=1), "[]"], "line 2 is no object"),
        (["[" * 100_000], "recursion|nested|Expecting"),
        (['{"a": ' * 100_000], "recursion|nested|Expecting"),
        (lines(only=1), "not those of the thresholds"),
        ([*lines(), lines()[0]], "not those of the thresholds"),
        ([lines()[0], lines(status="failed")[1]], "differ in their status"),
        ([lines()[0], lines()[1][:-9]], "delimiter|Unterminated|Expecting"),
        ([line.replace("0.5", "NaN") for line in lines()], "NaN is no number"),
        ([line.replace("0.5", "1e999") for line in lines()], "dice_explained=Infinity is not a number from 0 to 1"),
        (lines(**{f"c{i}": i for i in range(400)}), "columns"),
        (lines(stand_in="False"), 'stand_in="False" is not true or false'),
        (lines(status=None, created=None), "it has no status, created"),
    ],
)
def test_a_damaged_record_says_what_is_wrong_with_it(tmp_path, content, message):
    store = stored(tmp_path, content)
    with pytest.warns(UserWarning, match=message):
        assert set(store.load()["sample"]) == {8}
    assert not store.outcome(UNIT).complete


def test_values_at_the_limits_are_read(tmp_path):
    given = {"dice_explained": 1.0000001, "perturbation_ratio": 0, "prediction_size": 0.0, "n_dilations": 3.0}
    given |= {
        "class_name": "a\N{ZERO WIDTH NON-JOINER}b <b>",
        "created": "2026-11-20T10:00:00Z",
        "further": -1.5e300,
    }
    store = stored(tmp_path, lines(**given))
    found = store.load()
    assert found[found["sample"] == 7].iloc[0][[*given]].to_dict() == given
    assert store.outcome(UNIT).complete


def test_a_record_that_would_not_be_read_is_not_written(tmp_path):
    store = RecordStore(tmp_path)
    with pytest.raises(ValueError, match=r"dice_explained=1\.5 is not a number from 0 to 1"):
        store.write(UNIT, [ROW | {"threshold": 0.2, "dice_explained": 1.5}])
    assert not list(tmp_path.iterdir())
