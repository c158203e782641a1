"""Tables in LaTeX: escaping, structure, and compiling where a LaTeX is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_records import frame, organ, photo, triangle_records

from misure.paper.published import PAIRS
from misure.paper.query import latest_run
from misure.paper.tables.latex import PACKAGES, escape, latex_document
from misure.paper.tables.rows import by_class_table, lr_lambda_table, table1, table6

NASTY = 'a_b 50 % & # $x$ {y} ~ ^ \\ < > | " ` – λ é [1] 漢'  # noqa: RUF001


def _tables(tmp_path: Path) -> dict[str, pd.DataFrame]:
    records = [triangle_records(tmp_path), frame(organ("msr", 1, "Liver"), photo("msr", 3, "dog"))]
    run = latest_run(pd.concat(records), "quick")
    return {
        "table1": table1(run),
        "table2": lr_lambda_table(run, PAIRS[0]),
        "table6": table6(run),
        "by_class": by_class_table(run, PAIRS[1:2]),
        "other": pd.DataFrame({"name": [NASTY, None], "[odd]": [1, 2], "yes_no": [True, False], "x": [0.5, np.nan]}),
        "empty": pd.DataFrame(columns=["dataset", "value"]),
    }


def _cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)&", line)


@pytest.mark.parametrize("name", ["table1", "table2", "table6", "by_class", "other", "empty"])
def test_environments_and_columns_match(tmp_path, name):
    table = _tables(tmp_path)[name]
    document = latex_document(name, table)
    opened = []
    for kind, environment in re.findall(r"\\(begin|end)\{(\w+)\}", document):
        if kind == "begin":
            opened.append(environment)
        else:
            assert opened.pop() == environment
    assert opened == []
    assert len(re.findall(r"(?<!\\)\{", document)) == len(re.findall(r"(?<!\\)\}", document))
    alignment = re.search(r"\\begin\{tabular\}\{([lr]+)\}", document)
    assert alignment is not None
    rows = [line for line in document.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 1 + len(table)
    assert {len(_cells(row)) for row in rows} == {len(alignment[1])}


def test_paper_ours_interval_n_source_and_profile_are_there(tmp_path):
    document = latex_document("table1", _tables(tmp_path)["table1"])
    header = next(line for line in document.splitlines() if line.startswith("Dataset"))
    for title in ("Dice explained, paper", "Dice explained, ours", "Number of samples", "Source"):
        assert title in [cell.removesuffix(r" \\").strip() for cell in _cells(header)]
    assert r"\item Profile: quick." in document
    (msr,) = [line for line in document.splitlines() if line.startswith("Triangle & U-Net & MSR")]
    assert "0.965" in msr
    assert "0.900 {[}0.900, 0.900{]}" in msr
    assert "shipped Fashion-MNIST subset" in msr
    assert "MobileNetV2 substitution" in document
    assert "stand-in: phantom CT" in document


def test_escaping_by_hand():
    assert escape("50 % & a_b #1 $") == r"50 \% \& a\_b \#1 \$"
    assert escape("{~^\\}") == r"\{\textasciitilde{}\textasciicircum{}\textbackslash{}\}"
    assert escape("1–2 λ é 漢 ń") == r"1--2 ${\lambda}$ é ? n"  # noqa: RUF001
    assert escape("two\nlines") == "two lines"


@given(st.text())
def test_no_bare_special_character_is_left(text):
    written = escape(text)
    known = re.sub(r"\$\{?\\\w+\}?\$|\$-\$|\\text\w+\{\}|\\ldots\{\}|\\[_%&#${}]|\{\[\}|\{\]\}", "", written)
    assert not set(known) & set('\\{}$&#^_%~[]<>|"`')
    assert "\n" not in written


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_every_table_compiles(tmp_path):
    parts = [latex_document(name, table) for name, table in _tables(tmp_path).items()]
    lines = [r"\documentclass{article}", *(f"\\usepackage{{{name}}}" for name in PACKAGES), r"\begin{document}"]
    (tmp_path / "all.tex").write_text("\n".join([*lines, *parts, r"\end{document}"]), encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
