"""Files of volume scores: what is written is read back, and damaged files are refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from paper_records import VOLUME_META as META

from misure.errors import MisureError
from misure.sweep.volume_scores import read_volumes, write_volumes

SCORES = pd.DataFrame(
    {
        "case": np.repeat(["case0001", "case0002"], 8),
        "class_id": [*range(1, 9)] * 2,
        "class_name": [*"abcdefgh"] * 2,
        "dice": [math.nan, *np.linspace(0, 1, 15)],
        "hd95": [math.nan, *np.linspace(0, 30, 15)],
        "predicted_voxels": 7,
        "true_voxels": 9,
        "empty_truth_counts": False,
    }
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    exact = SCORES.assign(dice=[math.nan, *np.random.default_rng(1).uniform(size=15)])
    meta = META | {"source": 'a "quoted", strange | source\nof two lines', "profile": "NA"}
    path = write_volumes(tmp_path / "new" / "synapse-transunet.json", exact, meta)
    back = read_volumes(path)
    expected = exact.assign(**meta)
    pd.testing.assert_frame_equal(back[list(expected)], expected, check_exact=True)


def test_numeric_case_names_stay_text(tmp_path: Path) -> None:
    frame = SCORES.assign(case=SCORES["case"].str.removeprefix("case"))
    assert set(read_volumes(write_volumes(tmp_path / "a.json", frame, META))["case"]) == {"0001", "0002"}


def test_missing_meta(tmp_path: Path) -> None:
    with pytest.raises(MisureError, match="lack profile, stand_in"):
        write_volumes(tmp_path / "a.json", SCORES, {k: v for k, v in META.items() if k not in {"profile", "stand_in"}})
    assert list(tmp_path.iterdir()) == []


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MisureError, match=r"no volume scores at .*a\.json: evaluate"):
        read_volumes(tmp_path / "a.json")


def test_truncated_files(tmp_path: Path) -> None:
    path = write_volumes(tmp_path / "a.json", SCORES, META)
    content = path.read_bytes()
    for end in range(0, len(content) - 1, 7):
        path.write_bytes(content[:end])
        with pytest.raises(MisureError, match=r"a\.json"):
            read_volumes(path)


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n\xff", b"a,b\n1,2\n", b'{"meta": {}, "scores": []}', b"[1, 2]\n"]
)
def test_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(MisureError, match=r"a\.json"):
        read_volumes(tmp_path / "a.json")


@pytest.mark.parametrize(("column", "value"), [("dice", 7.0), ("dice", -0.1), ("hd95", -1.0), ("hd95", math.inf)])
def test_impossible_scores_are_damage(tmp_path: Path, column: str, value: float) -> None:
    path = write_volumes(tmp_path / "a.json", SCORES, META)
    content = json.loads(path.read_text())
    content["scores"][0][column] = value
    path.write_text(json.dumps(content))
    with pytest.raises(MisureError, match="a Dice is not from 0 to 1, or an HD95 is negative or not finite"):
        read_volumes(path)
