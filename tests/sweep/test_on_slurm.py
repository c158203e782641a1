"""Calls as SLURM jobs, on programs that pretend to be a cluster and on one that answers; whole runs on the latter."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import cloudpickle
import pretended_slurm
import psutil
import pytest
from worker_runs import assert_same, killed, log_of, n_records, started, when

from misure.errors import MisureError
from misure.sweep import on_slurm
from misure.sweep.journal import CannotWriteError
from misure.sweep.on_slurm import JobEndedError, SlurmExecutor

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # jobs find misure, but not this file

HAS_CLUSTER = shutil.which("sinfo") and subprocess.run(["sinfo"], check=False, capture_output=True).returncode == 0
OPTIONS = {"cpus-per-task": 1, "mem": "500M", "time": 5, "partition": None}


@pytest.fixture(
    params=["pretended", pytest.param("real", marks=pytest.mark.skipif(not HAS_CLUSTER, reason="no SLURM"))]
)
def programs(request, tmp_path, monkeypatch):
    """Where the programs are."""
    if request.param == "pretended":
        folder = pretended_slurm.install(tmp_path / "programs")
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return folder
    return None


@pytest.fixture
def executor_with(programs, tmp_path):
    return partial(SlurmExecutor, workers=2, folder=str(tmp_path / "jobs"), interval=0.3, options=OPTIONS)


def place() -> tuple[str, str, str | None, str | None]:
    return (
        os.environ["SLURM_ARRAY_JOB_ID"],
        str(Path.cwd()),
        os.environ.get("MISURE_DATA"),
        os.environ["OMP_NUM_THREADS"],
    )


def refuse() -> None:
    raise CannotWriteError("cannot write here")


def end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_in(marker: Path) -> None:
    marker.touch()
    time.sleep(600)


def wait_for(condition) -> None:
    until = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_burst_is_one_array_and_a_job_that_ends_takes_its_own_call_with_it(executor_with, tmp_path, monkeypatch):
    monkeypatch.setenv("MISURE_DATA", "there")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with executor_with() as executor:
        ends, refuses, breaks, *places = [executor.submit(c) for c in (end, refuse, partial(int, "x"), place, place)]
        told = {future.result() for future in places}
        with pytest.raises(CannotWriteError, match=r"^cannot write here$"):
            refuses.result()
        with pytest.raises(ValueError, match="invalid literal"):
            breaks.result()
        with pytest.raises(JobEndedError, match="FAILED, see") as ended:
            ends.result()
        ((array, *found),) = told
        assert found == [str(Path.cwd()), "there", "3"]
        assert "--array=0-4%2" in (executor.folder / f"{array}_submission.sh").read_text()
        assert executor.folder.stat().st_mode & 0o777 == 0o700
    left = {path for path in executor.folder.iterdir() if path != Path(str(ended.value).split("see ")[1])}
    assert len(left) == 1
    assert "ValueError" in left.pop().read_text()


def test_arrays_are_as_large_as_the_cluster_allows(executor_with, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with executor_with() as executor:
        assert executor._array == 1001
        executor._array = 2
        arrays, *_, threads = zip(*[f.result() for f in [executor.submit(place) for _ in range(4)]], strict=True)
    assert len(set(arrays[:2])) == len(set(arrays[2:])) == 1
    assert arrays[0] != arrays[2]
    assert {*threads} == {"1"}  # as many as the job has CPUs
    assert not executor.folder.exists()


def test_cancelled_jobs_end_and_their_calls_say_so(executor_with, tmp_path):
    names = [tmp_path / name for name in "ab"]
    with executor_with() as executor:
        futures = [executor.submit(sleep_in, name) for name in names]
        wait_for(lambda: all(name.exists() for name in names))
        first, _ = executor._jobs
        subprocess.run(["scancel", first.job_id], check=True)
        with pytest.raises(JobEndedError, match="CANCELLED"):
            futures[0].result(timeout=60)
        assert not futures[1].done()
    with pytest.raises(MisureError, match="shut down"):
        futures[1].result()
    with pytest.raises(RuntimeError):
        executor.submit(end)


def test_jobs_that_do_not_begin_are_told_of_once(executor_with, monkeypatch, capsys):
    def ask(*command: str) -> str:
        return "Resources\nResources\nAssocMaxGRES\n" if command[0] == "squeue" else real(*command)

    def waiting(jobs):
        looks.append({job.job_id: "PENDING" for job in jobs})
        return looks[-1]

    real, looks = on_slurm._ask, list[dict[str, str]]()
    monkeypatch.setattr(on_slurm, "_ask", ask)
    monkeypatch.setattr(on_slurm, "_states", waiting)
    monkeypatch.setattr(on_slurm, "_LONG_WAIT", 0.1)
    with executor_with() as executor:
        executor.submit(time.sleep, 600)
        wait_for(lambda: len(looks) > 5)
    assert capsys.readouterr().out.count("squeue gives as reasons: Resources, AssocMaxGRES\n") == 1


def test_calls_that_nobody_waits_for_are_not_sent_and_those_that_came_are_done(executor_with):
    executor = executor_with()
    call, other = executor.submit(os.getpid), executor.submit(os.getpid)
    assert other.cancel()
    executor.shutdown()
    assert call.result() != os.getpid()
    assert other.cancelled()


def test_a_job_that_is_not_taken_is_told_of(executor_with):
    with executor_with(more={"partition": "nowhere"}) as executor, pytest.raises(MisureError, match="partition"):
        executor.submit(os.getpid).result()


@pytest.mark.parametrize(
    ("hidden", "told"), [("sbatch", "needs sbatch"), ("sacct", "accounting is off"), ("submitit", "misure\\[slurm\\]")]
)
def test_what_jobs_need_is_missed_at_once(tmp_path, monkeypatch, hidden, told):
    folder = pretended_slurm.install(tmp_path / "programs")
    monkeypatch.setenv("PATH", f"{folder}")
    if hidden == "sbatch":
        (folder / hidden).unlink()
    elif hidden == "sacct":
        (folder / hidden).write_text("#!/bin/sh\necho accounting is off >&2; exit 1")
    else:
        monkeypatch.setitem(sys.modules, hidden, None)
    with pytest.raises(MisureError, match=told):
        SlurmExecutor(workers=2, folder=str(tmp_path / "jobs"), options={})
    assert not (tmp_path / "jobs").exists()


def jobs(*options: str) -> list[str]:
    """Jobs of this project that wait or run."""
    command = ["squeue", "--noheader", "--array", "--name=misure", "--format=%i", *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def is_ours() -> bool:
    """Whether the cluster is that of ``tests/slurm``, whose nodes nobody else needs."""
    told = subprocess.run(["scontrol", "show", "config"], check=True, capture_output=True, text=True).stdout
    return re.search(r"ClusterName\s*= toy$", told, re.MULTILINE) is not None


@pytest.mark.slow
@pytest.mark.skipif(not HAS_CLUSTER, reason="no SLURM cluster answers: see tests/slurm")
def test_a_run_survives_its_jobs_its_node_and_its_driver(tmp_path):
    keys = [
        "runner=slurm",
        "runner.workers=4",
        "runner.cpus=1",
        "runner.mem=1G",
        "runner.minutes=60",
        "runner.interval=2",
    ]

    def more_records() -> None:
        before = n_records(tmp_path)
        when(lambda: n_records(tmp_path) >= before + 2, driver, tmp_path)

    driver = started(tmp_path, *keys)
    more_records()
    commands = {process: " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])}
    victim = next(p for p, line in commands.items() if line.startswith(sys.executable) and str(tmp_path) in line)
    victim.kill()
    more_records()
    subprocess.run(["scancel", jobs("--states=running")[0]], check=True)
    more_records()
    killed(driver)
    before = n_records(tmp_path)
    wait_for(lambda: n_records(tmp_path) > before)
    driver = started(tmp_path, *keys)
    when(lambda: log_of(tmp_path).count("samples to explain") == 2, driver, tmp_path)
    driver.send_signal(signal.SIGINT)
    assert driver.wait() != 0
    wait_for(lambda: not jobs())
    driver = started(tmp_path, *keys)
    if is_ours():
        when(lambda: jobs("--states=running", "--nodelist=n2"), driver, tmp_path)
        set_down = ["scontrol", "update", "nodename=n2", "state=down", "reason=test"]
        subprocess.run(set_down, check=True)  # it comes back by itself
    assert driver.wait() in {0, 1}
    assert "explanations made" in log_of(tmp_path)
    assert not jobs()
    assert_same(tmp_path)
