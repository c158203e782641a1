"""Several processes of one machine make the records of one, and so its tables, also when some of them are killed."""

from __future__ import annotations

import contextlib

import psutil
from worker_runs import assert_same, killed, log_of, n_records, started, when


def workers_of(pid: int) -> list[psutil.Process]:
    """The processes that compute, without the one that watches over their semaphores."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # which has just ended
            found += [child] if any("spawn_main" in part for part in child.cmdline()) else []
    return found


def test_two_processes_of_which_one_is_killed_and_then_the_driver_make_the_records_of_one(tmp_path):
    driver = started(tmp_path, "runner.workers=2", script="run.py")
    when(lambda: n_records(tmp_path) >= 3, driver, tmp_path)
    victim, *_ = workers = workers_of(driver.pid)
    assert len(workers) == 2
    victim.kill()
    when(lambda: len({*workers_of(driver.pid)} - {*workers}) == 1 and n_records(tmp_path) >= 8, driver, tmp_path)
    left = workers_of(driver.pid)
    killed(driver)
    gone, alive = psutil.wait_procs(left, timeout=60)
    assert (len(gone), alive) == (2, [])
    made = n_records(tmp_path)
    assert 8 <= made < 40
    assert started(tmp_path, "runner.workers=2", script="run.py").wait(timeout=600) == 0
    assert "resource_tracker" not in log_of(tmp_path).rpartition("samples to explain")[2]
    assert_same(tmp_path, "run.py")
