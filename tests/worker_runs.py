"""Whole runs by several workers, and what they have to have in common with the run of one process."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from pipeline import PROJECT, TINY, environment, records_of, run_script, shipped_root

from misure.sweep.records import RecordStore

MANY = [f"profile.triangle.n_samples.{method}=12" for method in ("prediction", "random_map", "sufficient_region")]
BY_STEPS = "profile.triangle.training.max_minutes=inf"  # with a limit, learning rates follow the clock
ALL = [*TINY, BY_STEPS, "runner.threads=1", "data_root=data"]
RUNS = {
    "reproduce.py": [*ALL, "datasets=[triangle]", "only=table1", *MANY],
    "run.py": [*ALL, "dataset=triangle", "explainer=sufficient_region", "n_samples=40"],
}
"""By script: about forty short turns of one network, which is trained first; the first one makes tables as well."""

TIMES = {"seconds", "created"}


@functools.cache
def of_one_process(script: str) -> Path:
    """Make a run of one process, and return its folder; once for all tests of a process."""
    folder = Path(tempfile.mkdtemp())
    shipped_root(folder / "data")
    ended = run_script(script, RUNS[script], folder)
    assert "samples to explain" in ended.out, ended.err
    return folder


def started(folder: Path, *overrides: str, script: str = "reproduce.py") -> subprocess.Popen[str]:
    """Start a run as a process group of its own, with its output in ``folder/log``."""
    if not (folder / "data").exists():
        shipped_root(folder / "data")
    command = [sys.executable, str(PROJECT / "scripts" / script), *RUNS[script], *overrides]
    with (folder / "log").open("a") as log:
        return subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=log, stderr=log, text=True, start_new_session=True
        )


def log_of(folder: Path) -> str:
    """What runs in a folder have printed, without the bars."""
    return "\n".join(line for line in (folder / "log").read_text().splitlines() if "%|" not in line)


def when(condition: Callable[[], object], process: subprocess.Popen[str], folder: Path) -> None:
    """Wait until something holds while a process runs."""
    while not condition():
        assert process.poll() is None, log_of(folder)
        time.sleep(0.02)


def n_records(folder: Path) -> int:
    return sum(1 for _ in (folder / "outputs" / "records").rglob("*.jsonl"))


def killed(process: subprocess.Popen[str]) -> None:
    """Kill a process alone, and not what it has started."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def assert_same(folder: Path, script: str = "reproduce.py") -> None:
    """Compare records and tables with those of one process: all but times, to the last bit."""
    mine, reference = (_records(where) for where in (folder, of_one_process(script)))
    pd.testing.assert_frame_equal(mine, reference, check_exact=True)
    names = {path.name for path in (of_one_process(script) / "outputs" / "tables").glob("*.csv")}
    assert (len(names) > 5) == (script == "reproduce.py")
    for name in names:
        tables = [pd.read_csv(where / "outputs" / "tables" / name) for where in (folder, of_one_process(script))]
        pd.testing.assert_frame_equal(*map(_untimed, tables), check_exact=True, obj=name)
    assert not list(RecordStore(folder / "outputs" / "records").folder.glob(".claims/*"))


def _untimed(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out columns of seconds, and rows where these are the quantity."""
    rows = ~table.get("quantity", pd.Series("", table.index)).str.contains("seconds")
    return table.loc[rows, [column for column in table if "seconds" not in column]]


def _records(folder: Path) -> pd.DataFrame:
    found = records_of(folder).drop(columns=[*TIMES])
    return found.sort_values(["unit", "threshold"], ignore_index=True).sort_index(axis=1)
