"""Provenance: what it says, and what it must not say."""

from __future__ import annotations

import getpass
import hashlib
import json
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import torch
from paper_records import frame, photo, unit

from misure.errors import MisureError
from misure.models.checkpoint import CheckpointInfo, save_checkpoint
from misure.paper.query import latest_run
from misure.sweep import provenance as module
from misure.sweep.provenance import provenance, write_provenance

STAGES = [
    {"stage": "training", "subject": "triangle-unet_vgg16", "seconds": 2.5, "started": "t", "profile": "quick"},
    {"stage": "training", "subject": "coco-x", "seconds": 1.25, "started": "t", "profile": "quick"},
    {"stage": "training", "subject": "coco-x", "seconds": 100.0, "started": "t", "profile": "paper"},
    {"stage": "tables", "subject": "", "seconds": 0.5, "started": "t", "profile": "quick"},
]


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    source = f"{tmp_path}/own/data.npz read by {Path.home()}/tool"
    info = CheckpointInfo(
        "toy", {}, None, ("background", "x"), 1, {"dataset": "triangle", "source": source}, {"val_dice": 0.75}, {}, {}
    )
    save_checkpoint(tmp_path / "checkpoints" / "toy.safetensors", torch.nn.Linear(2, 2), info)
    return tmp_path


def _digest(outputs: Path) -> str:
    return hashlib.sha256((outputs / "checkpoints" / "toy.safetensors").read_bytes()).hexdigest()


def _run(outputs: Path) -> pd.DataFrame:
    weights = _digest(outputs)[:16]
    skipped = unit("rise", 1, status="skipped", reason="nothing", weights=weights)
    return latest_run(frame(unit("rise", 0, weights=weights), skipped, photo("msr", 3, "dog")), "quick")


def test_what_it_says(outputs):
    found = provenance(outputs, _run(outputs), STAGES)
    assert found["profile"] == "quick"
    assert found["records"] == {"done": 2, "skipped": 1}
    assert found["seeds"] == [0]
    assert found["seconds_by_stage"] == {"training": 3.75, "tables": 0.5}
    assert [stage["seconds"] for stage in found["stages"]] == [2.5, 1.25, 0.5]
    assert found["packages"]["torch"] == version("torch")
    assert found["python"] == platform.python_version()
    assert [(d["dataset"], d["fingerprint"], d["stand_in"]) for d in found["data"]] == [
        ("coco", "f" * 16, False),
        ("triangle", "f" * 16, False),
    ]
    (checkpoint,) = found["checkpoints"]
    assert checkpoint["sha256"] == _digest(outputs)
    assert checkpoint["validation_dice"] == 0.75
    assert checkpoint["as_described"]
    assert checkpoint["in_these_records"]


def test_no_path_no_user_no_host(outputs):
    path = write_provenance(outputs, _run(outputs), STAGES)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == json.loads(json.dumps(provenance(outputs, _run(outputs), STAGES)))
    assert str(outputs) not in text
    assert str(Path.home()) + "/" not in text
    for private in (platform.node(), getpass.getuser()):
        assert not re.search(rf"\b{re.escape(private)}\b", text)
    assert "data.npz read by tool" in text


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("read /home/me/my-data/x.npz", "read x.npz"),
        (r"C:\Users\me\x.npz", "x.npz"),
        ("https://example.org/a/b.zip", "https://example.org/a/b.zip"),
        ("Dice and/or ratio, 1/255", "Dice and/or ratio, 1/255"),
        ("in ~/data/coco", "in coco"),
    ],
)
def test_folders_are_left_out(text, public):
    assert module._without_folders({"a": [text]}) == {"a": [public]}


@pytest.mark.parametrize("damage", ["truncated", "missing", "json"])
def test_a_damaged_checkpoint_is_said(outputs, damage):
    weights = outputs / "checkpoints" / "toy.safetensors"
    if damage == "json":
        weights.with_suffix(".json").write_text("{", encoding="utf-8")
    elif damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:-4])
    (found,) = provenance(outputs, latest_run(frame(unit("rise", 0)), "quick"), [])["checkpoints"]
    assert found["as_described"] is False if damage == "truncated" else "error" in found
    assert str(outputs) not in json.dumps(found)


def test_without_checkpoints_and_processor_names(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CPU_INFO", tmp_path / "absent")
    found = provenance(tmp_path, latest_run(frame(unit("rise", 0)), "quick"), [])
    assert found["checkpoints"] == []
    assert found["hardware"]["cpu"]
    assert found["hardware"]["instruction_sets"] == []


def test_a_place_that_cannot_be_written(outputs):
    (outputs / "provenance.json").mkdir()
    with pytest.raises(MisureError, match="provenance"):
        write_provenance(outputs, _run(outputs), STAGES)


def test_the_version_is_not_of_the_repository_that_it_is_installed_in(tmp_path, monkeypatch):
    """As in an environment within a user's own project, whose tags and commits are nobody's business."""
    installed = tmp_path / "patients" / ".venv" / "site-packages" / "misure" / "sweep" / "provenance.py"
    installed.parent.mkdir(parents=True)
    git = ["git", "-C", str(tmp_path / "patients"), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (
        ["init", "--quiet"],
        ["commit", "--quiet", "--allow-empty", "-m", "x"],
        ["tag", "study-of-patients"],
    ):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(module, "__file__", str(installed))
    assert module.code_version.__wrapped__() == module.package_version()
    monkeypatch.setattr(module, "__file__", str(tmp_path / "patients" / "misure" / "sweep" / "provenance.py"))
    assert module.code_version.__wrapped__().startswith(f"{module.package_version()}+")
