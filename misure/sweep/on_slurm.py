"""An executor whose calls are SLURM jobs, sent with submitit: those of a burst as one job array."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from misure.errors import MisureError, brief, told

if TYPE_CHECKING:
    from submitit import SlurmJob

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Outcome: TypeAlias = tuple[Any, Exception | None]
_Call: TypeAlias = tuple[Future[Any], Callable[[], _Outcome]]

_ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
)

_PAUSE = 0.5  # seconds between looks for results

_BURST = 0.1  # seconds without a further call after which those that came are sent

_PATIENCE = (
    120.0  # seconds for which a controller that has taken jobs before may refuse them: they are restarted at times
)

_LONG_WAIT = 300.0
"""Seconds without a job that has begun after which the reason is printed: some can never begin."""

_SETUP = (
    '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK '
    "OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}"
)
"""The CPUs of a job are those of its step: srun does not take them over by itself since SLURM 22.05."""


class JobEndedError(BrokenExecutor):
    """A SLURM job ended without a result."""


class SlurmExecutor(Executor):
    """Runs each call in a SLURM job, with this Python, working directory and environment.

    A job that ends by itself, is cancelled, preempted or loses its node is not started again, but its call raises. The
    last of them end with the executor, unless its process is killed.

    Args:
        workers: Jobs of a burst of calls that run at once.
        folder: For calls, results and output of jobs; all nodes have to see it.
        options: Of sbatch by their long names; None for those that are not given.
        more: Further ones.
        setup: Shell commands that a job begins with.
        interval: Seconds between questions to sacct.

    Raises:
        MisureError: If there is no SLURM here that can be used, or submitit is not installed.
    """

    def __init__(
        self,
        *,
        workers: int,
        folder: str,
        options: dict[str, Any],
        more: dict[str, Any] | None = None,
        setup: Sequence[str] = (),
        interval: float = 10.0,
    ) -> None:
        if workers < 1:
            raise MisureError(f"runner.workers={workers} leaves nobody to work: it has to be 1 or more")
        self.workers, self.interval = workers, interval
        executor_in = _submitit()
        self._array = _largest_array()
        self.folder = _folder_of_this_run(Path(folder).absolute())
        self._submitit = executor_in(self.folder)
        given = {key: value for key, value in {**options, **(more or {})}.items() if value is not None}
        self._submitit.update_parameters(
            job_name="misure",
            array_parallelism=workers,
            time=None,
            wckey=None,
            stderr_to_stdout=True,
            setup=[*setup, _SETUP],
            additional_parameters={"no-requeue": True, **given},
        )
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        self._jobs: dict[SlurmJob[_Outcome], Future[Any]] = {}
        self._ended: set[str] = set()
        self._asked, self._accepted = 0.0, False
        self._waits_since: float | None = None
        self._told_why = False
        self._closing, self._cancelling = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve, name="slurm", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Have a call run by a job, which is sent with those of the calls that come right after it."""
        if self._closing.is_set() or not self._thread.is_alive():
            raise RuntimeError("no more calls: the executor was shut down")
        future: Future[_T] = Future()
        self._calls.put((future, partial(_outcome, fn, args, kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End when all jobs have ended, or cancel them."""
        self._closing.set()
        if cancel_futures:
            self._cancelling.set()
        if wait or cancel_futures:
            self._thread.join()

    def __exit__(self, *_: object) -> None:
        """Cancel what has not ended: on the way out nobody waits for a result any more."""
        self.shutdown(cancel_futures=True)

    def _serve(self) -> None:
        """Send calls and resolve their futures until the end."""
        reason = "the executor was shut down"
        try:
            while not self._cancelling.is_set():
                self._send(self._arrived())
                self._look()
                if self._closing.is_set() and not self._jobs and self._calls.empty():
                    break
        except Exception as error:  # noqa: BLE001 - whoever waits has to be told
            reason = f"SLURM's jobs cannot be followed any more: {told(error)}"
        finally:
            self._end(reason)

    def _arrived(self) -> list[_Call]:
        calls = list[_Call]()
        with suppress(Empty):
            calls.append(self._calls.get(timeout=_PAUSE))
            while True:
                calls.append(self._calls.get(timeout=_BURST))
        return calls

    def _send(self, calls: Sequence[_Call]) -> None:
        wanted = [call for call in calls if call[0].set_running_or_notify_cancel()]
        for start in range(0, len(wanted), self._array):
            burst = wanted[start : start + self._array]
            try:
                self._send_array(burst)
            except MisureError as error:
                for future, _ in burst:
                    future.set_exception(error)

    def _send_array(self, calls: Sequence[_Call]) -> None:
        until = time.monotonic() + (_PATIENCE if self._accepted else 0)
        while True:
            try:
                with _outside_of_a_job(), self._submitit.batch():
                    sent = {self._submitit.submit(call): future for future, call in calls}
            except Exception as error:
                if time.monotonic() > until or self._cancelling.is_set():
                    raise MisureError(
                        f"SLURM does not take the job: {brief(error)}; see runner.partition, runner.account, "
                        "runner.minutes and the other keys of runner=slurm"
                    ) from error
                self._cancelling.wait(self.interval)
            else:
                self._accepted = True
                self._jobs |= sent
                return

    def _look(self) -> None:
        """Resolve the futures of jobs that have a result, or have ended without one."""
        if not self._jobs:
            return
        gone = self._gone()
        try:
            self.folder.chmod(0o700)  # which makes network file systems list it anew
            there = {*self.folder.iterdir()}
        except OSError:
            return  # they have moments: the next look is soon
        for job, future in list(self._jobs.items()):
            if job.paths.result_pickle in there:
                self._resolve(job, future)
            elif job.job_id in gone:
                del self._jobs[job]
                future.set_exception(
                    JobEndedError(f"SLURM job {job.job_id} ended as {gone[job.job_id]}, see {job.paths.stdout}")
                )

    def _gone(self) -> dict[str, str]:
        """Return the states of jobs that had ended already when it was asked before, so that their files are here."""
        if time.monotonic() - self._asked < self.interval:
            return {}
        self._asked = time.monotonic()
        known = _states(self._jobs)
        self._say_why_nothing_begins(known)
        states = {job_id: state for job_id, state in known.items() if state in _ENDED}
        gone = {job_id: state for job_id, state in states.items() if job_id in self._ended}
        self._ended = {*states}
        return gone

    def _say_why_nothing_begins(self, states: dict[str, str]) -> None:
        """Print once, after minutes in which every job only waits, what SLURM says they wait for."""
        if {*states.values()} != {"PENDING"}:
            self._waits_since = None
            return
        self._waits_since = self._waits_since or time.monotonic()
        if self._told_why or time.monotonic() - self._waits_since < _LONG_WAIT:
            return
        self._told_why = True
        with suppress(OSError, subprocess.SubprocessError):
            reasons = _ask("squeue", "-h", "-o", "%r", "-j", _arrays(self._jobs)).split("\n")
            told = ", ".join(dict.fromkeys(filter(None, map(str.strip, reasons))))
            print(
                f"no SLURM job has begun for {_LONG_WAIT / 60:.0f} minutes; squeue gives as reasons: {told}", flush=True
            )

    def _resolve(self, job: SlurmJob[_Outcome], future: Future[Any]) -> None:
        del self._jobs[job]
        try:
            value, error = job.result()
        except Exception as broken:  # noqa: BLE001 - whatever submitit, or a class of the other side, makes of it
            value, error = None, JobEndedError(f"SLURM job {job.job_id} has no result: {told(broken)}")
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
        done = [job.paths.submitted_pickle, job.paths.result_pickle]
        for path in (*done, job.paths.stdout) if error is None or isinstance(error, MisureError) else done:
            path.unlink(missing_ok=True)

    def _end(self, reason: str) -> None:
        """Cancel jobs, tell those that wait for them, and remove all files but the output of jobs that ended badly."""
        for future in self._jobs.values():
            future.set_exception(MisureError(reason))
        with suppress(Empty):
            while True:
                self._calls.get_nowait()[0].set_exception(MisureError(reason))
        if self._jobs:
            with suppress(OSError, subprocess.SubprocessError):  # of which one has ended right now
                _ask("scancel", *(job.job_id for job in self._jobs))
        cancelled = {job.paths.stdout for job in self._jobs}
        with suppress(OSError):  # at the last, where output stays
            for path in self.folder.iterdir():
                if path.suffix != ".out" or path in cancelled:
                    path.unlink(missing_ok=True)
            self.folder.rmdir()


def _outcome(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Outcome:
    """Call in a job; what it raises is its result, and signals end it, or are nothing to it, as without submitit."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        return fn(*args, **kwargs), None
    except Exception as error:  # noqa: BLE001 - whoever asks for the result gets it
        if not isinstance(error, MisureError):
            traceback.print_exc()
        return None, error


def _submitit() -> Callable[[Path], Any]:
    """Return what makes submitit's executor, quietly.

    Raises:
        MisureError: If it is not installed.
    """
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise MisureError(f"runner=slurm needs {error.name}: pip install 'misure[slurm]'") from error
    logging.getLogger("submitit").setLevel(logging.CRITICAL)
    return submitit.SlurmExecutor


def _largest_array() -> int:
    """Ask SLURM how many jobs an array may have.

    Raises:
        MisureError: If there is no SLURM here, or it cannot say what became of a job.
    """
    for program in ("sbatch", "srun", "sacct", "scancel"):
        if shutil.which(program) is None:
            raise MisureError(
                f"runner=slurm needs {program}, not found here: run it on a login node of a SLURM cluster"
            )
    try:
        _ask("sacct", "-X", "-j", "1")
        settings = _ask("scontrol", "show", "config")
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or told(error)
        raise MisureError(
            f"SLURM does not answer: {' '.join(said.split())[:200]}; runner=slurm needs sacct, without which nobody "
            "notices jobs that are killed: ask for accounting, or use runner=ray inside a job"
        ) from error
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", settings)
    return max(1, int(found[1])) if found else 1


def _states(jobs: dict[SlurmJob[_Outcome], Future[Any]]) -> dict[str, str]:
    """Ask for the states of jobs; of none while the accounting does not answer."""
    from submitit.slurm.slurm import SlurmInfoWatcher

    try:
        answer = _ask("sacct", "-X", "-P", "-o", "JobID,State", "-j", _arrays(jobs))
    except (OSError, subprocess.SubprocessError):
        return {}
    known = SlurmInfoWatcher().read_info(answer)
    return {job.job_id: known[job.job_id]["State"].partition(" ")[0] for job in jobs if job.job_id in known}


def _arrays(jobs: dict[SlurmJob[_Outcome], Future[Any]]) -> str:
    return ",".join(sorted({job.job_id.split("_")[0] for job in jobs}))


def _ask(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout  # noqa: S603


def _folder_of_this_run(folder: Path) -> Path:
    """Make a folder that is its owner's alone: results in it are pickles, which must come from nobody else."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=time.strftime("%Y-%m-%d_%H-%M-%S_"), dir=folder))


@contextmanager
def _outside_of_a_job() -> Iterator[None]:
    """Hide what SLURM has told the job that this is, if it is one, from those that it sends."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    from submitit.helpers import clean_env

    kept = {key: os.environ[key] for key in ("SLURM_CONF",) if key in os.environ}
    with clean_env():
        os.environ.update(kept)
        yield
