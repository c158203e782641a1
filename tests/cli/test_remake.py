"""Outputs made of records from elsewhere: hostile names stay inside the folder, damage is named and left out."""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from paper_records import judged_organ, photo, save_map, unit

from misure.cli.remake import write_first, write_outputs
from misure.paper import write
from misure.paper.maps import damaged_units
from misure.sweep.journal import Journal

pytest.importorskip("plotly", reason="the report's libraries are not installed (pip install 'misure[report]')")

SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
NAMES = [
    *("../../../victim", "/victim", "a/../../../victim", "..", "con", "x" * 3000, SCRIPT, "$\\frac$", "a|b\\|c"),
    *("=HYPERLINK(0)", "\\input{victim}", "[a](javascript:alert(1))", "a\\", "%s{0}", "-", "{{ 7 * 7 }}"),
]


def store(outputs: Path, units: list[list[dict[str, Any]]]) -> list[str]:
    """Keep records as a run does, and return the units."""
    names = []
    for number, rows in enumerate(units):
        names.append(hashlib.sha256(f"{number}".encode()).hexdigest()[:20])
        path = outputs / "records" / "elsewhere" / f"{names[-1]}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [{k: v for k, v in row.items() if v == v} | {"unit": names[-1]} for row in rows]  # noqa: PLR0124 - NaN
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return names


def remade(outputs: Path) -> None:
    parquet = find_spec("pyarrow") is not None
    cfg = {"outputs": str(outputs), "plan_only": False, "parquet": parquet, "profile": {"name": "quick"}}
    write_outputs(OmegaConf.create(cfg))
    assert (outputs / "records.parquet").exists() == parquet


def test_without_records_nothing_is_shown_early(tmp_path, capsys):
    write_first(OmegaConf.create({"outputs": str(tmp_path), "profile": {"name": "quick"}}))
    assert not list(tmp_path.rglob("*.md"))
    assert not capsys.readouterr().out


def test_hostile_names_stay_inside_the_folder_and_run_nowhere(tmp_path, capsys):
    outputs = tmp_path / "a" / "b" / "outputs"
    victims = [tmp_path / "victim.json", tmp_path / "a" / "victim.json", tmp_path / "a" / "b" / "victim.json"]
    units = [rows for name in NAMES for rows in judged_organ("Aorta", 2, class_name=name)]
    units += [rows for name in NAMES[:2] for rows in judged_organ("Liver", 12, class_name=name)]
    columns = ("explainer", "group", "dataset_source", "substitution", "network_source", "device")
    columns += ("code_version", "reason", "credit_url", "credit_licence_name")
    cat = photo("msr", 1, "cat")
    units += [[row | {column: name} for row in cat] for column in columns for name in (NAMES[0], SCRIPT)]
    units += [unit("msr", 1, dataset=name, model=name) for name in NAMES[:1]]
    names = store(outputs, units)
    for victim in victims:
        victim.write_text("precious")
    for name in names[:3]:
        save_map(outputs / "records" / "maps", name, np.eye(4))
    remade(outputs)
    assert [victim.read_text() for victim in victims] == ["precious"] * 3
    assert {path for path in tmp_path.rglob("*.*") if outputs not in path.parents} == {*victims}
    assert {path.suffix for path in (outputs / "reliability").rglob("*.*")} <= {".json"}
    page = (outputs / "report.html").read_text(encoding="utf-8")
    assert "alert(1)" in page
    for text in ("<script>alert", "<img src=x", 'href="javascript', "49 </"):
        assert text not in page
    for path in [*(outputs / "tables").glob("*.md"), *outputs.glob("*.md"), *(outputs / "figures").glob("*.md")]:
        assert "<script" not in path.read_text(encoding="utf-8"), path
    for path in (outputs / "tables").glob("*.csv"):
        assert ",=HYPER" not in path.read_text(encoding="utf-8"), path
    for path in (outputs / "tables").glob("*.tex"):
        assert "\\input{victim}" not in path.read_text(encoding="utf-8"), path


def test_what_is_damaged_is_named_in_the_documents_and_the_rest_is_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(write, "_write_figure", lambda *_: [])
    units = [unit(name, sample) for name in ("msr", "rise") for sample in range(3)]
    names = store(tmp_path, [*units, unit("msr", 0, weights="a" * 16, created="2031-01-01T00:00:00Z")])
    for weights in ("a" * 16, "0123456789abcdef"):  # the clock went back between the two
        Journal(tmp_path).use("quick", "triangle", "unet_vgg16", weights, "f" * 16)
    maps = tmp_path / "records" / "maps"
    for name in names:
        save_map(maps, name, np.eye(4))
    (maps / f"{names[0]}.npz").write_bytes(b"PK garbled")
    damaged = tmp_path / "records" / "elsewhere" / f"{names[5]}.jsonl"
    damaged.write_text(damaged.read_text()[:-30])
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes" / "x.json").write_text('{"meta": {}, "scores": [{"dice": 7.0}]}')
    with pytest.warns(UserWarning, match="damaged") as warned:
        remade(tmp_path)
    messages = [str(w.message) for w in warned]
    for name in (names[0], names[5], "x.json"):
        assert sum(name in message for message in messages) == 1
    assert damaged_units(maps) == [names[0]]
    document = (tmp_path / "tables" / "table1.md").read_text(encoding="utf-8")
    assert "`0123456789abcdef`" in document
    assert "a" * 16 not in document
    assert f"- record elsewhere/{names[5]}.jsonl: " in document
    assert f"- maps of {names[0]}: damaged" in document
    assert str(tmp_path) not in document
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"Left out as damaged: maps of {names[0]}" in page
    assert page.count('<article class="card"') == 4  # six, less the damaged record and the damaged map
