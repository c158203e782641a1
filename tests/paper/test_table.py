"""The table object: cells, what is left out, parts, and its renderings read back."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from misure.paper.latex import PACKAGES
from misure.paper.published import DASH
from misure.paper.table import Column, Table, duration, estimate, measured, plain, printed

NASTY = 'a_b 50 % & # $x$ {y} ~ ^ \\ < > | " ` – λ é [1] 漢'  # noqa: RUF001

FRAME = pd.DataFrame(
    {
        "dataset": ["A", "A", "B"],
        "n": [3, 1, 0],
        "paper_dice": [0.9, 0.5, np.nan],
        "dice_mean": [0.91, 0.7, np.nan],
        "dice_low": [0.8, np.nan, np.nan],
        "dice_high": [0.95, np.nan, np.nan],
        "stand_in": [False, False, True],
        "note": ["", NASTY, ""],
        "nothing": ["", "", ""],
        "unseen": [1, 2, 3],
    }
)
COLUMNS = (
    Column("dataset", "Dataset"),
    Column("n", "[n]"),
    Column("paper_dice", "Dice, paper", printed),
    estimate("dice", "Dice, ours", better="higher", unit="%", paper="paper_dice"),
    Column("note", "Note"),
    Column("nothing", "Nothing"),
)


def made(**changes: Any) -> Table:
    return Table(**{"name": "made", "title": "Made & shown", "columns": COLUMNS, "frame": FRAME} | changes)


def read_markdown(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in rows if set(row) != {"---"}]


def test_markdown_has_the_cells_and_leaves_empty_columns_out():
    header, *rows = read_markdown(made().markdown())
    assert header == ["Dataset", "[n]", "Dice, paper", "Dice, ours (%) ↑", "Note"]
    assert rows[0] == ["A", "3", "0.9", "0.910 [0.800, 0.950]", ""]
    assert rows[1] == ["A", "1", "0.5", f"0.700 [{DASH}]", NASTY.replace("|", r"\|")]
    assert rows[2] == ["B", "0", DASH, DASH, ""]


def test_a_document_is_title_head_table_and_notes():
    blocks = made(head="- head", notes="the notes").markdown().split("\n\n")
    assert (blocks[0], blocks[1], blocks[3]) == ("# Made & shown", "- head", "the notes\n")
    assert blocks[2] == made().body()


def test_parts_are_tables_of_their_own():
    body = made(n_parts=1).body(level=3)
    assert re.findall(r"^(#+ .*)$", body, flags=re.MULTILINE) == ["### A", "### B"]
    assert [len(read_markdown(part)) for part in body.split("### ")[1:]] == [3, 2]
    assert "Dataset" not in body


def test_html_has_raw_values_units_directions_and_differences():
    html = made().html()
    read = ET.fromstring(html)
    assert len(read.findall("thead/tr/th")) == 5
    assert [len(row) for row in read.findall("tbody/tr")] == [5] * len(FRAME)
    assert [cell.get("data-value") for cell in read.findall("tbody/tr/td[5]")] == FRAME["note"].tolist()
    assert 'data-value="0.91">0.910 [0.800, 0.950] <span class="diff above1">+0.010</span>' in html
    assert '<span class="diff grey" title="Not coloured: no interval, too few images or volumes">+0.200</span>' in html
    assert 'data-better="higher"' in html
    assert 'data-value="">' in html


def test_latex_environments_and_columns_match():
    document = made().latex()
    opened = []
    for kind, environment in re.findall(r"\\(begin|end)\{(\w+)\}", document):
        if kind == "begin":
            opened.append(environment)
        else:
            assert opened.pop() == environment
    assert opened == []
    alignment = re.search(r"\\begin\{tabular\}\{([lr]+)\}", document)
    assert alignment is not None
    assert alignment[1] == "lrrrl"
    rows = [line for line in document.splitlines() if line.endswith(r" \\")]
    assert [len(re.split(r"(?<!\\)&", row)) for row in rows] == [5] * (1 + len(FRAME))
    assert r"\caption{Made \& shown}" in document


@pytest.mark.parametrize("frame", [FRAME[:0], pd.DataFrame()])
def test_no_rows(frame):
    table = made(frame=frame, n_parts=1)
    assert [len(read_markdown(text)) for text in (table.markdown(), table.body())] == [1, 1]
    assert "tabular" in table.latex()
    assert "<tbody>" in table.html()


@given(st.text())
def test_no_special_character_is_left_bare_in_latex(text):
    document = made(title=text, columns=[Column("text", "Text")], frame=pd.DataFrame({"text": [f"x{text}"]})).latex()
    caption = next(line for line in document.splitlines() if line.startswith(r"\caption{"))
    cell = document.split("\\midrule\n")[1].split(" \\\\\n")[0]
    for written in (caption.removeprefix(r"\caption{").removesuffix("}"), cell):
        rest = re.sub(r"\$\\?[\w-]+\$|\\text\w+ ?|\\space ?|\\[_%&#${}]|^\{\}", "", written)
        assert not set(rest) & set("\\{}$&#^_%~")
        assert "\n" not in written


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles(tmp_path):
    parts = [made().latex(), made(frame=FRAME[:0], name="empty").latex(), made(columns=[], name="none").latex()]
    packages = [f"\\usepackage{package}" for package in PACKAGES]
    lines = [r"\documentclass{article}", *packages, r"\begin{document}", *parts, r"\end{document}"]
    (tmp_path / "all.tex").write_text("\n".join(lines), encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (printed, 27.38, "27.38"),
        (printed, 140.123, "140.123"),
        (printed, None, DASH),
        (measured, 0.12345, "0.123"),
        (measured, 27.3812, "27.38"),
        (measured, 9.9996, "10.00"),
        (measured, 140.123, "140.1"),
        (measured, 99.996, "100.0"),
        (measured, -1234.5678, "-1235"),
        (measured, math.nan, DASH),
        (duration, 0.06712, "0.0671"),
        (duration, 1234.4, "1234"),
        (duration, 3.81e-05, "<0.001"),
        (duration, 0.0, "0"),
        (plain, np.True_, "yes"),
        (plain, "two\nlines", "two lines"),
        (plain, 0.001, "0.001"),
        (plain, None, DASH),
    ],
)
def test_numbers_as_written(write, value, text):
    assert write(value) == text


def test_two_columns_of_one_header_are_refused():
    with pytest.raises(ValueError, match="one header"):
        Table("t", "T", [Column("a", "Same"), Column("b", "Same")], pd.DataFrame({"a": [1], "b": [2]}))


@pytest.mark.parametrize(
    ("value", "written"),
    [("=1+1", "'=1+1"), ("+x", "'+x"), ("-x", "'-x"), ("@x", "'@x"), ("a=b", "a=b"), ("", ""), (-1.5, "-1.5")],
)
def test_no_text_is_a_formula_in_a_spreadsheet(value, written):
    frame = pd.DataFrame({"name": [value, None], "n": [-1, 2], "mixed": pd.Series([1, "=x"], dtype=object)})
    text = Table("toy", "Toy", [Column("name", "Name")], frame).csv()
    first, second = text.splitlines()[1:]
    assert first == f"{written},-1,1" or (written == "" and first == '"",-1,1')
    assert second == ",2,'=x"
