"""Files: what is written, read back, and left alone when a disk fails."""

from __future__ import annotations

import errno
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from paper_records import PHANTOM, frame, organ, triangle_records, unit

from misure.errors import MisureError
from misure.explainers import EXPLAINERS
from misure.paper import query as selection
from misure.paper.published import PAIRS
from misure.paper.query import IDENTITY, RESULTS, latest_run
from misure.paper.tables.rows import method_rows
from misure.paper.write import _write_figure, write_all, write_table1
from misure.sweep.records import RecordStore, Unit

TABLES = {
    "table1",
    "table1_coco_by_class",
    "table1_synapse_by_organ",
    "table2",
    "table3",
    "table4",
    "table5",
    "table5_readings",
    "table6",
    "table7",
    "contours",
    "volumes",
}
OF_SYNAPSE = {"table1", "table1_synapse_by_organ", "table3", "table6", "table7", "contours"}
FIGURES = {"figure1", "figure2", "figure3", "figure4", "figure5", "figure6", "figure7"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path, list[Path]]:
    """Triangle and two organs of Synapse's stand-in; records, folder and files."""
    folder = tmp_path_factory.mktemp("outputs")
    triangle = triangle_records(folder / "records" / "maps")
    synapse = frame(*(organ("msr", s, "Aorta", n_dilations=2.0) for s in range(3)), organ("msr", 9, "Liver"))
    records = pd.concat([triangle, synapse], ignore_index=True)
    return records, folder, list(write_all(records, folder, "quick").files)


def test_table_1_and_the_figures_of_maps_can_be_written_first(
    written: tuple[pd.DataFrame, Path, list[Path]], tmp_path: Path
) -> None:
    records, folder, _ = written
    names = [path.relative_to(tmp_path).as_posix() for path in write_table1(records, tmp_path, "quick", {})]
    pictures = [f"figures/figure{number}.{kind}" for number in (1, 2) for kind in ("png", "pdf")]
    attributed = ["figures/figure3_credits.md"]  # of photographs, of which there are none yet
    assert names == [*(f"tables/table1.{kind}" for kind in ("md", "csv", "tex")), *pictures, *attributed]
    for name in ("table1.csv", "table1.md"):
        assert (tmp_path / "tables" / name).read_text() == (folder / "tables" / name).read_text()


def test_everything_is_written_and_reads_back(written: tuple[pd.DataFrame, Path, list[Path]]) -> None:
    records, folder, files = written
    names = [path.relative_to(folder).as_posix() for path in files]
    assert len(names) == len(set(names))
    assert {f"tables/{name}.{kind}" for name in TABLES for kind in ("md", "csv")} <= set(names)
    assert {f"figures/{name}.{kind}" for name in FIGURES for kind in ("png", "pdf")} <= set(names)
    assert {"claims.md", "claims.json", "findings.md", "findings.json"} <= set(names)
    assert "figures/figure3_credits.md" in names
    assert all(path.stat().st_size for path in files)
    assert not list(folder.rglob(".*"))
    expected = method_rows(latest_run(records, "quick"))
    found = pd.read_csv(folder / "tables" / "table1.csv", keep_default_na=True)
    numbers = expected.select_dtypes("number").columns
    # Written with enough digits to read the same float64 back.
    pd.testing.assert_frame_equal(found[numbers], expected[numbers], check_dtype=False, rtol=1e-15)
    for column in ("method", "note", "source", "profile"):
        assert found[column].fillna("").tolist() == expected[column].tolist()
    document = (folder / "tables" / "table1.md").read_text(encoding="utf-8")
    assert sum(line.startswith("| ") for line in document.splitlines()) == len(expected) + 2 * 4  # headers and rules


def test_tables_of_a_stand_in_say_so_in_title_and_rows(written: tuple[pd.DataFrame, Path, list[Path]]) -> None:
    _, folder, _ = written
    for name in sorted(TABLES):
        lines = (folder / "tables" / f"{name}.md").read_text(encoding="utf-8").splitlines()
        assert (f"Synapse data: {PHANTOM}" in lines[0].replace("*", "")) == (name in OF_SYNAPSE)
    rows = (folder / "tables" / "table1_synapse_by_organ.md").read_text(encoding="utf-8").splitlines()
    aorta = next(line for line in rows if line.startswith("| Aorta | MSR"))
    assert "stand-in" in aorta


def test_records_of_the_sweep_are_understood(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    circumstances = {k: v for k, v in unit("msr", 0)[0].items() if k in {*RESULTS, *IDENTITY}}
    for name, cls in EXPLAINERS.items():
        explainer = cls.published()
        identity = Unit("triangle", "f", "unet_vgg16", "w", name, explainer.parameters, 7, 1)
        shared = {k: v for k, v in circumstances.items() if k not in {"threshold", *identity.columns()}}
        shared |= {"n_dilations": None, "created": "2026-11-20T10:00:00.123456+00:00"}
        store.write(identity, [shared | {"threshold": t} for t in explainer.thresholds or (None,)])
    table = method_rows(latest_run(store.load(), "quick"), PAIRS[:1])
    assert table["n_samples"].tolist() == [1] * len(table)


def test_writing_again_in_another_order_gives_the_same_tables_and_pictures(
    written: tuple[pd.DataFrame, Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, folder, _ = written
    monkeypatch.setattr(selection, "PAIRS", PAIRS[:1])  # one pair is enough, and quicker
    again = write_all(records.sample(frac=1, random_state=1), tmp_path, "quick", folder / "records" / "maps").files
    names = [path.relative_to(tmp_path) for path in again if path.stem in {"table2", "figure1", "figure6"}]
    assert len(names) == 7, "a table as Markdown, CSV and LaTeX, two figures as PNG and PDF"
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_full_disk_keeps_the_old_file_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "figure1.png").write_text("old")

    def fill_the_disk(figure: Figure, path: Path, **options: object) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(selection, "PAIRS", PAIRS[:1])
    monkeypatch.setattr(Figure, "savefig", fill_the_disk)
    with pytest.raises(MisureError, match=r"cannot write .*figure1\.png: No space left on device; free space"):
        write_all(triangle_records(tmp_path / "maps"), tmp_path, "quick", tmp_path / "maps")
    assert [(p.name, p.read_text()) for p in (tmp_path / "figures").iterdir()] == [("figure1.png", "old")]
    assert (tmp_path / "tables" / "table6.csv").stat().st_size


def test_a_dollar_in_a_name_is_no_formula(tmp_path):
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    names = ["$\\frac$", "a $\\unknown$", "$X_{SR}$", "$"]
    texts = [axes.set_title(names[0]), axes.set_xlabel(names[1]), axes.set_ylabel(names[2]), figure.supxlabel(names[3])]
    written = _write_figure(tmp_path, "toy", figure)
    assert [path.stat().st_size > 1000 for path in written] == [True, True]
    assert [text.get_parse_math() for text in texts] == [False, False, True, False]
