"""Several processes train what one does, end together and leave nothing behind."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from forked import forked, without_gpu
from pytorch_lightning.loggers import CSVLogger
from safetensors.torch import load_file
from torch import distributed, nn
from torch.multiprocessing.spawn import ProcessRaisedException
from training.test_module import INFO, RECIPE, Interrupted, make_data, root, run

from misure.errors import MisureError
from misure.models.checkpoint import read_info
from misure.training import processes, task
from misure.training.module import n_devices, train

__all__ = ["root"]

TWO = replace(RECIPE, devices=2, max_epochs=2, samples_per_epoch=22, validation_samples=7)
"""Five steps an epoch, a rest that makes no batch, and one validation image more for one device than for the other."""


def network() -> nn.Sequential:
    """A network without the bias that batch normalisation takes away, whose gradient is mere rounding."""
    torch.manual_seed(0)
    first = nn.Conv2d(1, 6, 5, padding=2, bias=False)
    return nn.Sequential(first, nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 5, padding=2))


@pytest.fixture
def forking(monkeypatch):
    """Begin processes in a moment: what was imported here need not be imported in them."""
    monkeypatch.setattr(processes, "_START", "fork")


@pytest.fixture(scope="module")
def alone(root, tmp_path_factory):
    folder, trained = tmp_path_factory.mktemp("alone"), network()
    recipe = replace(TWO, devices=1)
    logger = CSVLogger(folder, "log", flush_logs_every_n_steps=1)
    info = train(trained, make_data(root, recipe), recipe, path=folder / "toy.safetensors", info=INFO, logger=logger)
    return info, trained, logged(folder)


def logged(folder: Path) -> list[dict[str, str]]:
    with (folder / "log" / "version_0" / "metrics.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


OTHERS = (
    "RANK=3 LOCAL_RANK=3 GROUP_RANK=1 WORLD_SIZE=8 MASTER_PORT=1 TORCHELASTIC_RUN_ID=none "
    "TORCHELASTIC_USE_AGENT_STORE=True SLURM_NTASKS=8 SLURM_PROCID=3 SLURM_LOCALID=3 SLURM_JOB_NAME=misure"
)


def test_two_processes_train_what_one_does(root, alone, tmp_path, monkeypatch):
    """Whatever torchrun or SLURM say of the process that begins them."""
    for assignment in OTHERS.split():
        monkeypatch.setenv(*assignment.split("="))
    expected, expected_network, expected_log = alone
    trained, path = network(), tmp_path / "toy.safetensors"
    logger = CSVLogger(tmp_path, "log", flush_logs_every_n_steps=1)
    info = train(trained, make_data(root, TWO), TWO, path=path, info=INFO, logger=logger)
    assert info == read_info(path)
    assert (info.training["steps"], info.training["devices"]) == (expected.training["steps"], 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "toy.json", "toy.safetensors"]
    for name, tensor in load_file(path).items():  # what one process trains to float32
        torch.testing.assert_close(tensor, expected_network.state_dict()[name], rtol=1e-4, atol=1e-5)
        assert torch.equal(tensor, trained.state_dict()[name])
    assert info.metrics == pytest.approx(expected.metrics, rel=1e-4)
    log = logged(tmp_path)
    assert log[0].keys() == expected_log[0].keys()
    for row, wanted in zip(log, expected_log, strict=True):
        assert {k: float(v) for k, v in row.items() if v} == pytest.approx(
            {k: float(v) for k, v in wanted.items() if v}, rel=1e-4
        )


@without_gpu
def test_one_process_goes_on_where_two_were_cut(root, alone, tmp_path, forking):
    path = tmp_path / "toy.safetensors"
    with pytest.raises(ProcessRaisedException, match="power cut"):
        run(root, path, TWO, Interrupted(network(), 7))
    assert [p.name for p in tmp_path.iterdir()] == ["toy.state"]
    info = run(root, path, replace(TWO, devices=1), network())
    assert info.metrics == pytest.approx(alone[0].metrics, rel=1e-4)
    assert info.training["steps"] == alone[0].training["steps"]


class OneFails(Interrupted):
    """A network of which one process gets something else than the other."""

    def __init__(self, ends: bool) -> None:
        super().__init__(network(), 1)
        self.ends = ends

    def forward(self, images):
        if distributed.get_rank() == 0:
            return nn.Sequential.forward(self, images)
        return super().forward(images) if self.ends else nn.Sequential.forward(self, images) * torch.nan

    def stop(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@without_gpu
@pytest.mark.parametrize(
    ("ends", "reason"), [(False, "loss became NaN"), (True, r"training.devices=2: .*SIGKILL.*go on")]
)
def test_processes_end_together(root, tmp_path, forking, ends, reason):
    with pytest.raises(MisureError, match=reason) as caught:
        run(root, tmp_path / "toy.safetensors", TWO, OneFails(ends))
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []


class Telling(nn.Sequential):
    """A network that leaves a file with the number of its process as its name."""

    def forward(self, images):
        Path(os.environ["TOLD"], str(os.getpid())).touch()
        return super().forward(images)


def train_in_the_background(*args) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as shells do for what they begin with an ampersand
    run(*args)


@without_gpu
def test_processes_end_with_the_one_that_began_them(root, tmp_path, forking, monkeypatch):
    told = tmp_path / "told"
    told.mkdir()
    monkeypatch.setenv("TOLD", str(told))
    endless, until = replace(TWO, max_epochs=10**6), time.monotonic() + 60
    with forked(train_in_the_background, root, tmp_path / "toy.safetensors", endless, Telling(*network())) as parent:
        while len(begun := {int(p.name) for p in told.iterdir()} - {parent.pid}) < 2 and time.monotonic() < until:
            time.sleep(0.05)
    assert len(begun) == 2
    ended = psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD
    processes_left = [psutil.Process(pid) for pid in begun if psutil.pid_exists(pid)]
    while any(p.is_running() and p.status() not in ended for p in processes_left) and time.monotonic() < until:
        time.sleep(0.05)
    assert time.monotonic() < until


@without_gpu
def test_one_clock_ends_all(root, tmp_path, forking, monkeypatch):
    looks = count(6.0, 6.0)
    clock = SimpleNamespace(monotonic=lambda: next(looks) if distributed.get_rank() == 0 else 0.0)
    monkeypatch.setattr(task, "time", clock)
    info = run(root, tmp_path / "toy.safetensors", replace(TWO, max_minutes=0.25, max_epochs=1000), network())
    assert info.training["steps"] == 3  # the third step starts after 18 s of 15


def test_what_cannot_be_sent_is_told(root, tmp_path):
    unsent = network()
    unsent.register_forward_hook(lambda *_: None)
    with pytest.raises(MisureError, match=r"training\.devices=2: the network or its data cannot be sent"):
        run(root, tmp_path / "toy.safetensors", TWO, unsent)


@pytest.mark.parametrize(("batch_size", "gpus", "expected"), [(6, 4, 3), (8, 4, 4), (5, 4, 1), (6, 0, 1)])
def test_auto_takes_the_gpus_that_divide_the_batch(monkeypatch, batch_size, gpus, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    device = torch.device("cuda" if gpus else "cpu")
    assert n_devices(replace(RECIPE, devices="auto", batch_size=batch_size), device) == expected
    if gpus:
        with pytest.raises(MisureError, match=r"training\.devices=12: this machine has 4"):
            n_devices(replace(RECIPE, devices=12, batch_size=12), device)
