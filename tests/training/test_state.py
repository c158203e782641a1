"""A half-done training goes on only where it is the same one, and whole; one process at a time trains a network."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import shutil
import stat
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from forked import forked, without_gpu
from pipeline import TINY_LAYOUT
from torch import nn
from training.test_module import INFO, RECIPE, Interrupted, Watching, make_data, root, run, toy_network

from misure.datasets.base import Stage
from misure.datasets.triangle import TriangleDataset, TriangleLayout
from misure.models.checkpoint import read_info
from misure.training.module import train
from misure.training.state import read_state, remove_finished_state, resumable

__all__ = ["root"]

STEPS, SAVED = 20, 5


@pytest.fixture(scope="module")
def begun(root, tmp_path_factory) -> Path:
    """The folder of a training that was cut after its first epoch of five steps."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.raises(RuntimeError, match="power cut"):
        run(root, folder / "toy.safetensors", network=Interrupted(toy_network(), SAVED + 2))
    return folder


def steps_of_going_on(begun: Path, folder: Path, data, *, recipe=RECIPE, info=INFO, network=None) -> int:
    """Count the steps of another session."""
    shutil.copytree(begun, folder, dirs_exist_ok=True)
    network = Watching(*(network or toy_network()))
    train(network, data, recipe, path=folder / "toy.safetensors", info=info, logger=False)
    assert sorted(p.name for p in folder.iterdir()) == ["toy.json", "toy.safetensors"]
    return len(network.sizes)


def wide() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 7, 5, padding=2), nn.ReLU(), nn.Conv2d(7, 2, 5, padding=2))


def other_images(data, **changes):
    data.train = TriangleDataset("train", changes.pop("size", 30), **changes)
    return data


LAYOUT = {**TINY_LAYOUT, "distractors": 0}
OTHERS = {
    "lr": lambda root: {"recipe": replace(RECIPE, lr=0.01)},
    "seed": lambda root: {"recipe": replace(RECIPE, seed=1)},
    "optimiser": lambda root: {"recipe": replace(RECIPE, optimiser="sgd")},
    "precision": lambda root: {"recipe": replace(RECIPE, precision="bf16")},
    "batch_size": lambda root: {"recipe": replace(RECIPE, batch_size=2)},
    "layers": lambda root: {"network": wide()},
    "bottleneck": lambda root: {"info": replace(INFO, bottleneck="2")},
    "network": lambda root: {"info": replace(INFO, network={"pretrained": None})},
    "images ": lambda root: {
        "data": other_images(make_data(root), data_root=root, layout=TriangleLayout(**{**LAYOUT, "noise": 0.1}))
    },
    "images [30": lambda root: {
        "data": other_images(make_data(root), size=29, data_root=root, layout=TriangleLayout(**LAYOUT))
    },
    "curriculum": lambda root: {"data": make_data(root, curriculum=[Stage(0.1, make_data(root).train)])},
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_training_is_told_and_begun_anew(begun, root, tmp_path, name):
    changes = OTHERS[name](root)
    recipe = replace(changes.get("recipe", RECIPE), max_epochs=1)
    with pytest.warns(UserWarning, match=r"toy\.state/last\.ckpt is of another training") as told:
        done = steps_of_going_on(begun, tmp_path, **{"data": make_data(root, recipe), **changes, "recipe": recipe})
    line = str(told[0].message)
    assert name in line
    assert ", now " in line
    assert "\n" not in line
    assert line.endswith("training starts from the beginning")
    assert done == recipe.samples_per_epoch // recipe.batch_size


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, STEPS - SAVED),
        ({"max_epochs": 5}, STEPS - SAVED + 5),
        ({"max_epochs": 1}, 0),
        ({"max_epochs": 2, "max_minutes": 7.0, "loaders": 1, "precision": "auto"}, 5),
    ],
)
def test_what_may_change_between_sessions_goes_on(begun, root, tmp_path, changes, steps):
    recipe = replace(RECIPE, **changes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        assert steps_of_going_on(begun, tmp_path, make_data(root, recipe), recipe=recipe) == steps


def test_fewer_epochs_than_are_done_end_with_the_best_so_far(root, tmp_path):
    path = tmp_path / "toy.safetensors"
    with pytest.raises(RuntimeError, match="power cut"):
        run(root, path, network=Interrupted(toy_network(), 17))
    network = Watching(*toy_network())
    info = run(root, path, replace(RECIPE, max_epochs=1), network)
    assert network.sizes == []
    assert info.training["steps"] in {5, 10, 15}


def damaged(content: bytes) -> dict[str, bytes]:
    """Make states that are cut, changed, or not states."""
    draw = random.Random(0)
    flipped = {}
    for place in draw.sample(range(8 * len(content)), 150):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        flipped[f"bit {place}"] = bytes(changed)
    cut = {f"cut at {n}": content[:n] for n in (0, 1, 31, 32, 33, 500, len(content) // 2, len(content) - 1)}
    return {**flipped, **cut, "longer": content + b"\0", "garbage": draw.randbytes(5000), "text": b"toy"}


def test_a_damaged_state_is_told_and_not_used(begun, tmp_path):
    content = (begun / "toy.state" / "last.ckpt").read_bytes()
    unnoticed = []
    for name, changed in damaged(content).items():
        state = tmp_path / "toy.state"
        state.mkdir()
        (state / "last.ckpt").write_bytes(changed)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            saved = resumable(state, {}, RECIPE)
        lines = [str(line.message) for line in told]
        if saved is not None or state.exists() or len(lines) != 1 or "last.ckpt cannot be read" not in lines[0]:
            unnoticed.append((name, lines))
    assert unnoticed == []


@pytest.mark.parametrize("member", ["identity", "loops", "state_dict", "callbacks", "optimizer_states", "elapsed"])
def test_a_state_without_a_member_is_told(begun, tmp_path, member):
    saved = read_state(begun / "toy.state" / "last.ckpt")
    del saved[member]
    write(tmp_path / "last.ckpt", saved)
    with pytest.warns(UserWarning, match=f"it has no {member}.*starts from the beginning"):
        assert resumable(tmp_path, {}, RECIPE) is None


def write(path: Path, saved: object) -> None:
    from misure.training.state_io import StateIO

    StateIO().save_checkpoint(saved, path)


class Mischief:
    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_nothing_is_unpickled(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "state" / "last.ckpt"
    path.parent.mkdir()
    write(path, {"elapsed": Mischief()})
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Mischief()))
    with pytest.warns(UserWarning, match="cannot be read"):
        assert resumable(path.parent, {}, RECIPE) is None
    assert not Path("unpickled").exists()


def test_a_state_is_synced_with_its_folder_and_leaves_no_partial_file(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(stat.S_ISDIR(os.fstat(file).st_mode)))
    write(tmp_path / "last.ckpt", {"elapsed": 1.0})
    assert set(synced) == {False, True}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("place", ["file", "link"])
def test_what_lies_where_the_state_goes_makes_way(begun, root, tmp_path, place):
    state = tmp_path / "toy.state"
    state.write_text("") if place == "file" else state.symlink_to(begun / "toy.state")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run(root, tmp_path / "toy.safetensors", replace(RECIPE, max_epochs=1)).training["steps"] == 5
    assert (begun / "toy.state" / "last.ckpt").exists()


class Slow(Watching):
    """A network that waits at its first training step, until another process waits for it."""

    def forward(self, images):
        if self.training and not self.sizes:
            time.sleep(3)
        return super().forward(images)


def trained_into(root: Path, path: Path, told: Path) -> None:
    network = Slow(*toy_network())
    with told.open("w", encoding="utf-8") as stream, contextlib.redirect_stdout(stream):
        info = run(root, path, replace(RECIPE, max_epochs=1), network)
        print(len(network.sizes), info.weights)


@without_gpu
def test_two_processes_train_one_network_once(root, tmp_path):
    path, told = tmp_path / "made" / "toy.safetensors", [tmp_path / "first", tmp_path / "second"]
    with forked(trained_into, root, path, told[0]) as one, forked(trained_into, root, path, told[1]) as other:
        for process in (one, other):
            process.join()
    assert (one.exitcode, other.exitcode) == (0, 0)
    texts = [out.read_text(encoding="utf-8") for out in told]
    assert sorted(int(text.split()[-2]) for text in texts) == [0, 5]
    assert {text.split()[-1] for text in texts} == {read_info(path).weights}
    assert [f"another process trains {path}: waiting for it" in text for text in texts].count(True) == 1
    assert sorted(p.name for p in path.parent.iterdir()) == ["toy.json", "toy.safetensors"]


def test_a_checkpoint_that_is_there_is_replaced_only_on_request(root, tmp_path):
    path, short = tmp_path / "toy.safetensors", replace(RECIPE, max_epochs=1)
    first = run(root, path, short)
    network = Watching(*toy_network())
    kept = train(network, make_data(root), replace(short, lr=0.1), path=path, info=INFO, logger=False, anew=False)
    assert (kept, network.sizes) == (first, [])
    assert run(root, path, replace(short, lr=0.1)).training["lr"] == 0.1


def test_only_the_state_of_a_finished_training_is_left_over(begun, tmp_path):
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    path, last = tmp_path / "toy.safetensors", tmp_path / "toy.state" / "last.ckpt"
    path.with_suffix(".json").write_text("{}")
    os.utime(path.with_suffix(".json"), ns=(0, last.stat().st_mtime_ns - 1))
    remove_finished_state(path)  # the checkpoint was there before this training began
    assert last.exists()
    os.utime(path.with_suffix(".json"), ns=(0, last.stat().st_mtime_ns + 1))
    remove_finished_state(path)
    assert not last.parent.exists()
