"""The command line: one line for a user's error, resuming after a kill, sweeps that go on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline import PROJECT, TINY, Finished, environment, run_script, shipped_root

from misure.sweep.journal import Journal
from misure.sweep.records import RecordStore

BASE = [*TINY, "data_root=data", "outputs=out"]
RECORDS = ["profile=smoke", "outputs=out"]
"""All that remaking tables reads."""
CHECKPOINT = "triangle-unet_vgg16-smoke"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Finished]:
    """A folder in which a first run trained a network and explained two samples; a real process, no fork."""
    folder = tmp_path_factory.mktemp("cli")
    shipped_root(folder / "data")
    command = [sys.executable, str(PROJECT / "scripts" / "run.py"), *BASE, "explainer=prediction"]
    ended = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return folder, Finished(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    """A folder of its own with that network and those records."""
    for name in ("data", "out"):
        shutil.copytree(trained[0] / name, tmp_path / name, symlinks=True)
    return tmp_path


def run(folder: Path, *arguments: str, script: str = "run.py", **extra: str) -> Finished:
    flags = [argument for argument in arguments if argument.startswith("-")]
    return run_script(script, [*flags, *BASE, *arguments[len(flags) :]], folder, **extra)


def records(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = (folder / "out" / "records").rglob("*.jsonl")
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def assert_one_line(ended: Finished, *words: str) -> None:
    assert ended.code != 0
    assert "Traceback" not in ended.err
    assert ended.message.startswith("misure: "), ended.err
    assert len(ended.message.splitlines()) == 1, ended.err
    for word in words:
        assert word in ended.message


def test_a_run_prints_plan_source_and_means(trained):
    folder, ended = trained
    assert "Traceback" not in ended.err
    assert "to train" in ended.out
    assert "images from data root (fashion-mnist)" in ended.out
    assert "plan: profile smoke, 1 experiments, 2 explanations at most" in ended.out
    assert "Dice explained" in ended.out
    assert "n = 2" in ended.out
    found = RecordStore(folder / "out" / "records").load()
    assert found["status"].tolist() == ["done", "done"]
    assert sorted(p.name for p in (folder / "out" / "checkpoints").iterdir()) == [
        f"{CHECKPOINT}.json",
        f"{CHECKPOINT}.safetensors",
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["data", "out"]


def test_a_second_run_computes_nothing(folder):
    before = records(folder)
    ended = run(folder, "explainer=prediction")
    assert ended.code == 0, ended.err
    assert "ready" in ended.out
    assert "n = 2" in ended.out
    assert records(folder) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lambda=abc"], ["lambda=abc"]),
        (["explainer=mrs"], ["explainer/mrs", "msr"]),
        (["lambda=[1"], ["'[1'"]),
        (["outputs=data/file/below"], ["outputs=data/file/below", "folder to write into"]),
        (["model.network.encoder=mobilenet_v9"], ["mobilenet_v9", "mobilenet_v2"]),
        (["dataset.layout.canvas=40"], ["40 px canvas"]),
        (["dataset.layout.classes=[7]", "explainer=prediction"], ["classes [7]"]),
        (["model.network.classes=3", "explainer=prediction"], ["classes", "train"]),
    ],
)
def test_a_users_error_is_one_line(folder, arguments, words):
    (folder / "data" / "file").write_text("")
    before = records(folder)
    assert_one_line(run(folder, *arguments), *words)
    assert records(folder) == before


def test_a_damaged_checkpoint_is_one_line(folder):
    path = folder / "out" / "checkpoints" / f"{CHECKPOINT}.json"
    path.write_bytes(path.read_bytes()[:-20])
    assert_one_line(run(folder, "explainer=prediction"), CHECKPOINT, "train")


def test_the_traceback_comes_when_asked_for(folder):
    ended = run(folder, "lambda=abc", HYDRA_FULL_ERROR="1")
    assert ended.code != 0
    assert "Traceback" in ended.err
    assert "lambda=abc is not a number" in ended.err


def test_tables_without_records_say_what_to_do(folder):
    shutil.rmtree(folder / "out" / "records")
    assert_one_line(run_script("tables.py", RECORDS, folder), "no records of profile smoke", "misure reproduce")


def test_a_failing_experiment_is_recorded_and_says_why(folder):
    before = records(folder)
    ended = run(folder, "explainer=seg_grad_cam", "explainer.layer=encodr.features.0")
    assert_one_line(ended, "2 explanations failed", "encodr", "close names: encoder.features.0", "same command")
    assert {name: found for name, found in records(folder).items() if name in before} == before
    found = RecordStore(folder / "out" / "records").load()
    assert found.loc[found["explainer"] == "seg_grad_cam", "status"].tolist() == ["failed", "failed"]
    ended = run(folder, "explainer=seg_grad_cam", "explainer.layer=encodr.features.0")
    assert "2 of those to do failed before" in ended.out


FAULTY = f"""
import runpy, sys
import torch
from misure.explainers.baselines import RandomMap

given = RandomMap.saliency_maps

def faulty(self, network, images, targets):
    faulty.calls += 1
    if faulty.calls == 1:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return given(self, network, images, targets)

faulty.calls = 0
RandomMap.saliency_maps = faulty
sys.argv[0] = {str(PROJECT / "scripts" / "reproduce.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_reproduce_goes_on_after_failures_and_tries_them_again(folder):
    script = folder / "faulty.py"
    script.write_text(FAULTY)
    given = ["stand_in=false", "only=table6", "dataset=triangle", "explainer=random_map"]
    ended = run_script(script, [*BASE, *given], folder)
    assert_one_line(ended, "1 explanations failed (OutOfMemoryError", "same command")
    assert (folder / "out" / "tables" / "table1.csv").exists()
    ended = run(folder, *given, script="reproduce.py")
    assert ended.code == 0, ended.err
    assert "1 to do, 1 of those to do failed before" in ended.out
    assert "1 explanations made" in ended.out


def test_reproduce_keeps_why_a_network_failed(folder):
    path = folder / "out" / "checkpoints" / f"{CHECKPOINT}.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    ended = run(folder, "only=table6", "dataset=triangle", "explainer=random_map", script="reproduce.py")
    assert_one_line(ended, "nothing could be explained: triangle-unet_vgg16", "truncated")
    assert set(Journal(folder / "out").failures("smoke")) == {"triangle-unet_vgg16"}


KILLED = f"""
import os, runpy, signal, sys

done = 0
fsync = os.fsync

def fsync_or_die(descriptor):
    global done
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    done += "/records/" in os.readlink(f"/proc/self/fd/{{descriptor}}")
    fsync(descriptor)

os.fsync = fsync_or_die
sys.argv[0] = {str(PROJECT / "scripts" / "run.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_killed_run_goes_on_where_it_was(folder):
    script = folder / "killed.py"
    script.write_text(KILLED)
    wanted = ["explainer=random_map", "n_samples=6", "profile.triangle.saved_maps=0"]
    given = records(folder)
    ended = run_script(script, [*BASE, *wanted], folder)
    assert ended.code == -9, ended.err
    partly = records(folder)
    assert len(given) < len(partly) < len(given) + 6
    ended = run(folder, *wanted)
    assert ended.code == 0, ended.err
    finished = records(folder)
    assert len(finished) == len(given) + 6
    assert {name: finished[name] for name in partly} == partly
    assert "n = 6" in ended.out


def test_a_multirun_goes_on_after_a_failure_and_says_so(folder):
    ended = run(folder, "-m", "explainer=random_map", "model.network.classes=3,${dataset.n_classes}")
    assert ended.code != 0
    assert "Traceback" not in ended.err
    assert "classes" in ended.err.splitlines()[-1]
    assert ended.out.count("records: out") == 1
    found = RecordStore(folder / "out" / "records").load()
    assert found.groupby("explainer")["unit"].nunique().to_dict() == {"prediction": 2, "random_map": 2}


LAUNCHERS = {
    "submitit_local": ("submitit", "slurm", []),
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_multirun_is_launched_elsewhere(folder, launcher):
    package, extra, keys = LAUNCHERS[launcher]
    pytest.importorskip(f"hydra_plugins.hydra_{package}_launcher", reason=f"pip install 'misure[{extra}]'")
    given = [f"{'+' * key.startswith('+')}hydra.launcher.ray.init.{key.lstrip('+')}" for key in keys]
    ended = run(folder, "-m", f"hydra/launcher={launcher}", *given, "explainer=random_map")
    assert ended.code == 0, ended.err
    found = RecordStore(folder / "out" / "records").load()
    assert found.groupby("explainer")["unit"].nunique().to_dict() == {"prediction": 2, "random_map": 2}


INSTALLED = f"""
import json, sys
from misure.cli.console import main

sys.path.append({str(PROJECT / "tests")!r})
from pipeline import leave_figures_undrawn

leave_figures_undrawn()
tables, plan = json.loads(sys.argv[1])
main(tables)
heavy = ("misure.models.unet", "misure.sweep.setup", "segmentation_models_pytorch", "pytorch_lightning")
print("loaded:", [name for name in heavy if name in sys.modules], sys.modules["misure"].__file__)
main(plan)
"""


def test_a_wheel_of_the_source_archive_makes_tables_without_any_network_and_plans(folder):
    """Nothing of the clone is needed, its shipped images neither."""
    pytest.importorskip("hatchling", reason="pip install 'misure[dev]'")
    shutil.rmtree(folder / "out" / "checkpoints")
    archive = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder / "sdist")]
    subprocess.run(archive, cwd=PROJECT, check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "wheels"]
    subprocess.run([*build, *(folder / "sdist").iterdir()], cwd=folder, check=True)
    (wheel,) = (folder / "wheels").iterdir()
    subprocess.run([*pip, "install", "--no-deps", "--target", "installed", str(wheel)], cwd=folder, check=True)
    assert (folder / "installed" / "misure" / "_data" / "reference" / "records.jsonl.gz").exists()
    plan = ["plan", *BASE, "data_root=nowhere", "only=table6", "dataset=triangle", "explainer=random_map"]
    commands = [["tables", *RECORDS], plan]
    command = [sys.executable, "-c", INSTALLED, json.dumps(commands)]
    places = {**environment(), "PYTHONPATH": str(folder / "installed")}
    ended = subprocess.run(command, cwd=folder, env=places, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert f"loaded: [] {folder / 'installed' / 'misure' / '__init__.py'}" in ended.stdout.splitlines()
    assert "subset shipped with the project" in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("this was the plan alone")
    assert (folder / "out" / "tables" / "table7.md").exists()


def test_training_says_where_its_weights_are(folder):
    shutil.rmtree(folder / "out" / "checkpoints")
    ended = run(folder, script="train.py")
    assert ended.code == 0, ended.err
    assert f"checkpoint: out/checkpoints/{CHECKPOINT}.safetensors" in ended.out
    description = json.loads((folder / "out" / "checkpoints" / f"{CHECKPOINT}.json").read_text())
    assert f"validation Dice {description['metrics']['val_dice']:.4f} on 4 images" in ended.out
    assert description["data"]["source"] == "data root (fashion-mnist)"
    assert description["training"]["samples_per_epoch"] == 8


NETWORK = "bench.networks=[{dataset: triangle, model: unet_vgg16}]"


@pytest.mark.parametrize(
    ("script", "given", "to_do"),
    [
        ("run.py", ["explainer=prediction", "n_samples=3"], 3),
        ("train.py", [], 0),
        ("reproduce.py", ["only=table6", "dataset=triangle"], 3),
        ("bench.py", [NETWORK], 0),
        ("scaling.py", [], 0),
        ("methods.py", ["methods.names=[msr,rise]"], 0),
        ("operations.py", ["explainer=msr"], 0),
        ("rise_masks.py", [], 0),
    ],
)
def test_a_plan_says_what_is_needed_and_does_nothing(tmp_path, script, given, to_do):
    shipped_root(tmp_path / "data")
    ended = run_script(script, [*BASE, *given, "plan_only=true"], tmp_path)
    assert ended.code == 0, ended.err
    (line,) = [line.split() for line in ended.out.splitlines() if line.startswith("triangle-unet_vgg16 ")]
    assert line[1:4] == ["real", "to", "train"]
    assert (int(line[4]), int(line[5])) == (to_do, 0)
    assert float(line[7]) > 0.001  # the checkpoint alone: MobileNetV2's U-Net has 6.6 million numbers of 4 bytes
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_plan_counts_what_is_there(folder):
    before = sorted(path for path in folder.rglob("*") if path.is_file())
    ended = run(folder, "explainer=prediction", "n_samples=3", "plan_only=true")
    assert ended.code == 0, ended.err
    (line,) = [line.split() for line in ended.out.splitlines() if line.startswith("triangle-unet_vgg16 ")]
    assert line[1:5] == ["real", "ready", "1", "2"]
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == before


def test_plans_of_what_takes_seconds_are_one_line(folder):
    (folder / "photo.png").write_bytes(b"")
    for script, given in (
        ("tables.py", RECORDS),
        ("explain.py", ["image=photo.png", "model=deeplabv3_mobilenetv2"]),
        ("prepare_data.py", ["dataset=synapse", "data_root=nowhere"]),
    ):
        ended = run_script(script, [*given, "plan_only=true"], folder)
        assert ended.code == 0, ended.err
        assert ended.out.startswith("plan: ")


def test_absent_data_is_left_out_of_a_plan_where_nothing_may_replace_it(tmp_path):
    given = ["profile=paper", "only=[table3,table5]", "data_root=nowhere", "plan_only=true", "outputs=out"]
    ended = run_script("reproduce.py", given, tmp_path)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    for dataset, what_to_do in (("synapse", "syn3193805"), ("coco", "misure prepare dataset=coco")):
        assert [what_to_do in line for line in lines if line.startswith(f"{dataset} is left out: ")] == [True]
        assert any(line.split()[:4] == [dataset, "-", "left", "out,"] for line in lines)
    assert ended.out.splitlines()[-1].startswith("this was the plan alone")
    assert not list(tmp_path.iterdir())
