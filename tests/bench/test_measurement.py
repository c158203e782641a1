"""The files of a measurement."""

from __future__ import annotations

import pandas as pd
import pytest

from misure.bench.measurement import Page, document, frame_table
from misure.errors import MisureError

NUMBERS = pd.DataFrame({"method": ["a", "b"], "seconds": [1.23456, float("nan")]})


def test_a_page_is_written_with_its_numbers(tmp_path) -> None:
    text = document("Title", ["one", "two"], frame_table(NUMBERS))
    assert text == "# Title\n\n- one\n- two\n\n| method | seconds |\n| --- | --- |\n| a | 1.235 |\n| b |  |\n"
    assert Page("bench", text, NUMBERS).write(tmp_path / "outputs") == text
    assert (tmp_path / "outputs" / "bench.md").read_text(encoding="utf-8") == text
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "outputs" / "bench.csv"), NUMBERS)


def test_an_unwritable_folder_is_a_clear_error(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(MisureError, match="cannot write"):
        Page("bench", "text", NUMBERS).write(tmp_path / "file")
