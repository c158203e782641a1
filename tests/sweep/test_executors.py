"""Workers: calls in processes of their own, and what the driver does about those that end."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from multiprocessing import Pipe

import psutil
import pytest
import torch
from forked import forked
from hydra import compose
from pipeline import PROJECT, environment
from sweep_runs import EMPTY, PACE, experiment, make_runner, plain
from worker_calls import GUILTY, Deadly, end, explain, refuse, share_of_the_machine

from misure.errors import MisureError
from misure.sweep import runner as module
from misure.sweep import turns
from misure.sweep.executors import Crew, InThisProcess, LocalProcesses, UnfitError, _environment, crew_of
from misure.sweep.journal import CannotWriteError
from misure.sweep.runner import Runner

pytestmark = pytest.mark.usefixtures("hydra")


def test_processes_share_the_machine_and_one_that_ends_takes_its_own_call_with_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,MIG-7")
    with LocalProcesses(2) as executor:
        ends, *others = [executor.submit(call) for call in (end, *[share_of_the_machine] * 3)]
        told = [future.result() for future in others]
        with pytest.raises(BrokenProcessPool):
            ends.result()
        told.append(executor.submit(share_of_the_machine).result())
        with pytest.raises(CannotWriteError, match="cannot write here"):
            executor.submit(refuse).result()
    pids, threads, devices = (set(column) for column in zip(*told, strict=True))
    assert os.getpid() not in pids
    assert threads == {max(1, torch.get_num_threads() // 2)}
    assert devices <= {"4", "5"}
    alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=60)[1]
    assert alive == []


@pytest.mark.parametrize(
    ("visible", "shares"),
    [("MIG-a,MIG-b,MIG-c", ["MIG-a", "MIG-b", "MIG-c", "MIG-a"]), ("7,8", ["7"] * 4), (None, ["0"] * 4)],
)
def test_each_process_gets_a_slice_of_a_gpu_of_its_own(monkeypatch, visible, shares):
    """CUDA counts one slice, however many are visible."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [_environment(number, 4)["CUDA_VISIBLE_DEVICES"] for number in range(4)] == shares


WITH_A_BAR = """
from misure.sweep.executors import LocalProcesses
from worker_calls import count_with_a_bar

if __name__ == "__main__":
    with LocalProcesses(1) as executor:
        print(executor.submit(count_with_a_bar).result())
"""


def test_a_process_that_is_ended_leaves_nothing_to_the_machine(tmp_path):
    (tmp_path / "script.py").write_text(WITH_A_BAR)
    places = environment() | {"PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "tests")])}
    command = [sys.executable, "script.py"]
    ended = subprocess.run(command, cwd=tmp_path, env=places, capture_output=True, text=True, check=True)
    assert ended.stdout == "3\n"
    assert "resource_tracker" not in ended.stderr


class Forking(Executor):
    """Runs each call in a process of its own, which is there at once."""

    def submit(self, fn, /, *args):
        future: Future = Future()
        receiver, sender = Pipe(duplex=False)
        with forked(lambda: sender.send(fn(*args))):
            sender.close()
            try:
                future.set_result(receiver.recv())
            except EOFError as error:
                future.set_exception(error)
        return future


@pytest.mark.parametrize("seconds_a_task", [0.0, 1e9])
def test_a_sample_that_ends_three_workers_is_recorded_as_failed_and_the_others_go_on(tmp_path, seconds_a_task):
    """In batches of three, which are cut when they have ended three workers."""
    kept = ["n_samples=8", "runner.images_per_step=3"]
    faulty = replace(experiment("explainer=prediction", *kept), explainer=Deadly())
    deadly = replace(faulty, explainer=Deadly(tried=str(tmp_path / "tried")))
    others = experiment("explainer=random_map", *kept)
    toy = make_runner(tmp_path)
    runner = Runner(toy.recorder, PACE, partial(explain, tmp_path), Crew(Forking(), 2, seconds_a_task))
    runner.run([faulty, deadly, others])
    assert (tmp_path / "tried").read_text().split() == ["3"] * 3 + ["1"] * 3
    counts = runner.counts
    assert (counts.done, counts.skipped, counts.failed, counts.present, counts.left) == (19, 3, 2, 0, 0)
    records = toy.recorder.store.load()
    failed = records[records["status"] == "failed"]
    assert [*failed["sample"]] == [GUILTY] * 2
    assert sorted("3 workers ended" in reason for reason in failed["reason"]) == [False, True]
    assert set(records[records["status"] == "skipped"]["sample"]) == {EMPTY}
    assert records.drop_duplicates("unit").shape[0] == 24
    assert {*counts.reasons} == {*failed["reason"]}


class Ending(Executor):
    """Workers that all end, or that refuse."""

    def __init__(self, error: Exception) -> None:
        self.error, self.calls = error, 0

    def submit(self, fn, /, *args, **kwargs):
        self.calls += 1
        future: Future = Future()
        future.set_exception(self.error)
        return future


@pytest.mark.parametrize(
    ("error", "most"),
    [
        (OSError("no node left"), 12),
        (UnfitError("no node left"), 12),
        (MisureError("no node left"), 1),
        (CannotWriteError("no node left"), 1),
    ],
)
def test_workers_that_end_one_after_the_other_end_the_run_without_a_record(tmp_path, monkeypatch, capsys, error, most):
    monkeypatch.setattr(module, "_BACK_OFF", 0)
    executor, toy = Ending(error), make_runner(tmp_path)
    planned = [experiment("explainer=prediction", f"input_noise={n}e-3", "n_samples=8") for n in range(3)]
    with pytest.raises(MisureError, match="no node left"):
        replace(toy, crew=Crew(executor)).run(planned)
    assert executor.calls == most
    assert capsys.readouterr().out.count("no node left") == isinstance(error, UnfitError)  # of each told once
    assert toy.recorder.store.load().empty


class OneBadMachine(Executor):
    """Ends at once every other call, which it had not begun."""

    def __init__(self) -> None:
        self.calls = 0

    def submit(self, fn, /, *args, **kwargs):
        self.calls += 1
        future: Future = Future()
        if self.calls % 2:
            future.set_exception(BrokenProcessPool("no driver here"))
            return future
        return InThisProcess().submit(fn, *args, **kwargs)


def test_a_machine_on_which_workers_end_before_they_begin_costs_no_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BACK_OFF", 0)
    toy = make_runner(tmp_path)
    runner = replace(toy, crew=Crew(OneBadMachine(), 2))
    runner.run([experiment("explainer=prediction", "n_samples=8")])
    assert (runner.counts.done, runner.counts.skipped, runner.counts.failed) == (7, 1, 0)
    assert Crew(OneBadMachine()).call(max, 3, 5) == 5


@pytest.mark.parametrize(("moves", "tries"), [(0, 3), (4, 7)])
def test_workers_that_are_lost_while_a_training_goes_on_are_not_lost_in_vain(moves, tries):
    states = iter(range(moves + 1))
    executor, last = Ending(BrokenProcessPool("the time limit is over")), [0]

    def state() -> int:
        last[0] = next(states, last[0])
        return last[0]

    with pytest.raises(BrokenProcessPool):
        Crew(executor).resumed(executor.submit(abs), state, abs)
    assert executor.calls == tries


@pytest.mark.parametrize(
    ("there", "here", "fits"), [("cuda", "cpu", False), ("cpu", "cuda", True), ("cpu", "cpu", True)]
)
def test_a_worker_without_the_gpu_or_the_folders_of_the_others_leaves_the_work_to_them(
    tmp_path, monkeypatch, there, here, fits
):
    monkeypatch.setattr(turns, "default_device", lambda: torch.device(here))
    monkeypatch.setattr(turns, "PATIENCE", 0)
    cfg = compose("run", [f"outputs={tmp_path}", f"data_root={tmp_path}", "dataset.val.download=false"])
    ready = turns.Ready("toy", str(tmp_path), "weights", "images", "32", there, cfg)
    with pytest.raises(UnfitError, match="there is no checkpoint" if fits else "no GPU can be used here"):
        turns.at_work(ready)


def test_tasks_are_as_long_as_asked_and_short_enough_for_all_workers():
    planned = [plain(str(n), 10) for n in range(10)]  # each sample is estimated at 5 s
    turns = [module.Turn(one, (rank,)) for rank in range(10) for one in planned]
    pace = replace(PACE, forward=1.0)
    estimated = type("Estimated", (), {"explaining": lambda self, _: pace.forward * 5})()

    def sizes(workers: int, seconds: float) -> list[int]:
        runner = Runner(None, estimated, None, Crew(InThisProcess(), workers, seconds))
        tasks = [*runner._tasks(turns)]
        assert [turn for task in tasks for turn in task.turns] == turns
        assert sum(task.seconds for task in tasks) == 500
        return [len(task.turns) for task in tasks]

    assert sizes(1, 0) == [1] * 100
    assert sizes(1, 60) == [12] * 8 + [4]
    assert sizes(5, 60) == [5] * 20  # four tasks a worker


def test_any_executor_in_the_manner_of_concurrent_futures_fits(tmp_path):
    given = ["~runner.executor", "+runner.executor._target_=concurrent.futures.ThreadPoolExecutor"]
    with crew_of(compose("run", [*given, "+runner.executor.max_workers=3", "runner.workers=3"])) as crew:
        assert isinstance(crew.executor, ThreadPoolExecutor)
        toy = make_runner(tmp_path)
        runner = replace(toy, crew=crew)
        runner.run([experiment("explainer=prediction", "n_samples=8")])
    assert (runner.counts.done, runner.counts.skipped) == (7, 1)


def test_what_is_no_executor_is_refused():
    cfg = compose("run", ["runner.executor._target_=fractions.Fraction", "~runner.executor.workers"])
    with pytest.raises(MisureError, match="no submit"), crew_of(cfg):
        pass
