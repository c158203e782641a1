"""What the READMEs promise: their lines run, and what they show is what the code and the records have."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from paper_records import COCO, SUBSTITUTION, TRIANGLE, photo, run_of, unit
from pipeline import PROJECT, environment, records_of, run_script
from readme_keys import FOLDER, keys, meaning
from readme_parts import DOCUMENTS, PARTS, made, parts_of
from readme_results import findings_of, reference_tables, results_of
from torch import nn

import misure
from misure.app.networks import offers_at_hand
from misure.paper.findings import Cell, KeyFinding
from misure.paper.material import Material
from misure.paper.source import Origin


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the language and the lines of each block of code."""
    text = (PROJECT / page).read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


BLOCKS = blocks("misure/README.md")
FILES = {found[1]: text for _, text in BLOCKS if (found := re.match(r"# ((?:misure|configs)/\S+)\n", text))}


def test_the_first_page_is_short():
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_somewhere(document):
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for place, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
        target = document.parent / place if place else document
        assert target.exists(), f"{place} of {document}"
        if anchor:
            assert anchor in _anchors(target), f"{place}#{anchor} of {document}"


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_what_is_made_from_configurations_and_records_is_what_they_have():
    shown = {}
    for document in DOCUMENTS:
        parts = parts_of(document.read_text(encoding="utf-8"))
        shown |= parts
        stale = [name for name, text in parts.items() if text != made(name)]
        assert not stale, f"{document}: python tests/readme_parts.py writes {stale} anew"
    assert shown.keys() == PARTS.keys()


def test_the_first_table_is_over_the_objects_that_msr_explained():
    """Methods with more objects are cut to MSR's, and one of fewer than six images is named below."""
    ratios = {"msr": 0.5, "sufficient_region": 2.0}
    units = [
        photo(name, n // 2, ("cat", "dog")[n % 2], perturbation_ratio=r)
        for name, r in ratios.items()
        for n in range(12)
    ]
    units += [photo("sufficient_region", 9, "cat", perturbation_ratio=90.0), photo("rise", 0, "cat"), unit("msr", 0)]
    run = run_of(*units)
    table, below = results_of(Material(run, "quick", Path("nowhere"), pd.DataFrame(), [TRIANGLE, COCO]))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert [row[1] for row in rows] == ["MSR", "SR"]
    assert {row[6] for row in rows} == {"12 on 6 images"}
    assert [row[5].split()[:2] for row in rows] == [["0.500;", "0.500"], ["2.000;", "2.000"]]
    assert all(SUBSTITUTION in row[7] for row in rows)
    assert "RISE (n = 1)" in below
    assert below.count("MSR (n = 1)") == 1


def test_a_dataset_has_one_precision_in_a_table_of_the_reference():
    """Cells choose the records that they show one by one; those that ship must not let two of them differ."""
    checked = 0
    for table in reference_tables().values():
        if {"precision", "dataset"} <= {*table.frame}:
            for dataset, precisions in table.frame.groupby("dataset")["precision"]:
                checked += 1
                assert len({*precisions.dropna()} - {""}) <= 1, (table.name, dataset)
    assert checked > 7  # Tables 1 to 6 at least, of one to three datasets each


def test_findings_that_are_decided_are_told_with_what_is_not_the_papers_and_others_counted():
    number = Cell(0.5, 0.4, 0.6, 9, origin=Origin("photographs", stand_in=False, substitution=SUBSTITUTION))
    outcomes = ["few", "same", "missing", "few", *["higher"] * 5]
    found = [KeyFinding(str(n), "", f"Told {n}.", of, "COCO", number, "", "", ("a",)) for n, of in enumerate(outcomes)]
    *lines, _, last = findings_of(found).splitlines()
    assert [line.split(".")[0] for line in lines] == [f"- Told {n}" for n in (1, 4, 5, 6, 7)]
    assert all(SUBSTITUTION in line and "n = 9" in line for line in lines)
    assert re.findall(r"\d+ for", last) == ["2 for", "1 for", "1 for"]


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("*.yaml")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_key_is_explained(file):
    """All that YAML itself reads of a file is found, and has a meaning of its own or of what it is part of."""
    found = keys(file)
    read = yaml.safe_load(file.read_text(encoding="utf-8"))
    leaves = {path for path in _leaves(read) if path.split(".")[0] not in ("defaults", "hydra", "_target_")}
    shown = {key.path for key in found}
    within = {path for path in leaves if any(path.startswith(f"{key.path}.") for key in found if key.value)}
    inherited = {path for path in leaves if file.parent.name == "profile"}  # by YAML's merge, from another section
    assert leaves - within - inherited <= shown
    if file.parent.name not in ("profile", "sweep"):  # whose tables have lines of their own
        explained = {key.path for key in found if meaning(key, file)}
        assert not [p for p in shown - explained if not any(p.startswith(f"{parent}.") for parent in explained)]


def _leaves(node: dict, prefix: str = "") -> set[str]:
    found = set()
    for name, value in node.items():
        path = f"{prefix}{name}"
        if name != "_target_":
            found |= _leaves(value, f"{path}.") if isinstance(value, dict) and value else {path}
    return found


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """Return the project with the README's files written where they say."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("misure", "configs", "scripts"):
        shutil.copytree(PROJECT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in FILES.items():
        assert not (folder / path).exists()
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**environment(), "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_each_extension_is_one_file_and_one_yaml():
    places = sorted(str(Path(path).parent) for path in FILES)
    groups = {"dataset": "datasets", "model": "models", "explainer": "explainers"}
    assert places == sorted([f"configs/{g}" for g in groups] + [f"misure/{f}" for f in groups.values()])


def test_the_extensions_work_together(copy):
    (line,) = [line for _, text in BLOCKS for line in text.splitlines() if "explainer=gradient_times_input" in line]
    python, *command = shlex.split(line)
    assert python == "python"
    printed = run(copy, *command)
    assert "squares-tiny gradient_times_input" in printed
    records = records_of(copy)
    assert set(records["status"]) == {"done"}
    assert records["unit"].nunique() == 2
    # The square differs from its noisy surroundings in brightness alone, which two convolutions find at once; the
    # gradient times the brightness is then largest on the square, and the mask at 0.2 covers most of it.
    assert (records["dice_explained"] > 0.5).all(), records["dice_explained"]


def test_a_new_dataset_is_reproduced(copy):
    (line,) = [line for _, text in BLOCKS for line in text.splitlines() if "reproduce.py dataset=squares" in line]
    run(copy, *shlex.split(line, comments=True)[1:])
    table = pd.read_csv(copy / "outputs" / "tables" / "table1.csv")
    assert set(table.loc[table["model"] == "tiny", "dataset"]) == {"squares"}
    squares = records_of(copy)
    squares = squares[(squares["dataset"] == "squares") & (squares["status"] == "done")]
    assert {"msr", "rise", "seg_grad_cam", "sufficient_region"} <= set(squares["explainer"])


def test_the_ten_lines_run(tmp_path):
    (lines,) = [text for language, text in blocks("README.md") if language == "python"]
    assert len([line for line in lines.splitlines() if line.strip()]) <= 10
    (tmp_path / "ten.py").write_text(lines, encoding="utf-8")
    printed = subprocess.run(
        [sys.executable, "ten.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    ).stdout
    n_dilations, dice_explained, ratio = printed.split()
    assert int(n_dilations) >= 0
    assert 0 <= float(dice_explained) <= 1
    assert float(ratio) >= 0
    assert {path.name for path in (tmp_path / "explanation").iterdir()} >= {"saliency.npy", "manifest.json"}
    assert (tmp_path / "explanation.png").stat().st_size > 0


def test_the_lines_for_files_run(tmp_path):
    """With an exported program that finds bright pixels, and a scan with a bright block."""
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed (pip install 'misure[images]')")
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network[0].weight[0, 0, 1, 1] = 1
        network[1].weight[1, 0] = 1
    sizes = {0: torch.export.Dim("n"), 2: torch.export.Dim("h", min=4), 3: torch.export.Dim("w", min=4)}
    program = torch.export.export(network, (torch.zeros(2, 1, 24, 24),), dynamic_shapes=({**sizes},))
    torch.export.save(program, tmp_path / "network.pt2")
    voxels = np.full((40, 36, 5), -100, dtype=np.int16)
    voxels[10:20, 8:24] = 200
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 3.0, 1.0])), tmp_path / "scan.nii.gz")
    lines = next(text for language, text in blocks("misure/explaining/README.md") if language == "python")
    (tmp_path / "files.py").write_text(lines, encoding="utf-8")
    printed = subprocess.run(
        [sys.executable, "files.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    ).stdout
    *layers, explained = printed.splitlines()
    assert len(layers) == 2
    class_id, dice, ratio = explained.split()
    assert class_id == "1"
    assert 0 <= float(dice) <= 1
    assert float(ratio) >= 0
    assert (tmp_path / "organ" / "saliency.npy").stat().st_size > 0


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for language, lines in blocks("misure/explaining/tutorial.md"):
        if language == "python":
            exec(compile(lines, "tutorial.md", "exec"), names)
            continue
        for command in map(shlex.split, lines.splitlines()):
            if command[1] == "app":  # whose page is tested elsewhere
                assert offers_at_hand(command[3:], tmp_path, tmp_path)[0].name == "network.pt2"
            else:
                done = run_script(PROJECT / "misure" / "cli" / "console.py", command[1:], tmp_path)
                assert done.code == 0, done.err
    made_by = names["explanations"]
    assert names["plain"].n_dilations == 0 < made_by["msr"].n_dilations
    # A marked square without its mark is a plain one: all or nothing comes back. What MSR keeps outside is on the mark.
    assert made_by["prediction"].dice_explained < 0.1
    assert made_by["msr"].dice_explained > 0.9
    assert made_by["msr"].perturbation_ratio < 2 < made_by["rise"].perturbation_ratio
    assert names["outside"].sum() == (names["outside"] & names["mark"]).sum() > 0
    assert len(list((tmp_path / "outputs" / "explanations").iterdir())) == 3


def test_the_reference_is_built_without_warnings(tmp_path):
    """Warnings are errors there; names that are imported late are shown, formulas too, and links lead somewhere."""
    pytest.importorskip("pdoc", reason="pdoc is not installed (pip install 'misure[docs]')")
    subprocess.run([sys.executable, PROJECT / "tests" / "api_docs.py", tmp_path], check=True, env=environment())
    pages = {path: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")}
    for name in misure.__all__:
        assert f'id="{name}"' in pages[tmp_path / "misure.html"] or name == "__version__"
    assert "<math" in pages[tmp_path / "misure" / "explainers.html"]
    for path in tmp_path.glob("*.html"):
        for link, anchor in re.findall(r'<a [^>]*href="(?!https?:)([^"#$]*)(?:#([^"]*))?"', pages[path]):
            target = (path.parent / link).resolve() if link else path
            assert target.exists(), f"{link} of {path}"
            assert not anchor or target not in pages or f'id="{anchor}"' in pages[target], f"{link}#{anchor} of {path}"
