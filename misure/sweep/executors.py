"""Executors: where calls are run, in the manner of :mod:`concurrent.futures`, of which any other one fits as well."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from queue import SimpleQueue
from threading import RLock
from typing import Annotated, Any, ParamSpec, TypeVar

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from misure.config import build
from misure.errors import MisureError
from misure.io.locks import end_with_parent
from misure.validation import Whole

_TRIES = 3
"""Workers that may be lost by one call, one after the other without any progress."""


class UnfitError(BrokenExecutor):
    """A worker cannot do what another may: its machine lacks a folder or a GPU. It counts as one that has ended."""


_P = ParamSpec("_P")
_T = TypeVar("_T")


class InThisProcess(Executor):
    """Runs each call at once, in the process that submits it."""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Run a call, and return its future, which is done."""
        future: Future[_T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whoever asks for the result gets it
            future.set_exception(error)
        return future


class LocalProcesses(Executor):
    """Runs calls in processes of this machine, each with a GPU of its own as far as there are any.

    A process that ends concerns the call that it runs and no other: another process takes its place. They end with
    the process that started them, however that ends.

    Args:
        workers: Processes, which are started when they are first needed.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._callers = ThreadPoolExecutor(workers, thread_name_prefix="caller")
        self._pools: dict[int, ProcessPoolExecutor] = {}
        self._processes: dict[int, int] = {}
        self._is_over = False
        self._free: SimpleQueue[int] = SimpleQueue()
        for number in range(workers):
            self._free.put(number)

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Have a call run by the next process that is free."""
        return self._callers.submit(self._run, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes: when their calls have ended, or, where these are cancelled, at once."""
        self._callers.shutdown(wait=wait and not cancel_futures, cancel_futures=cancel_futures)
        self._is_over = True
        for process in [*self._processes.values()] if cancel_futures else ():
            with suppress(OSError):  # which has ended
                os.kill(process, signal.SIGTERM)
        for pool in [*self._pools.values()]:
            pool.shutdown(wait=wait or cancel_futures, cancel_futures=cancel_futures)

    def __exit__(self, *_: object) -> None:
        """End the processes at once: on the way out nobody waits for a result any more."""
        self.shutdown(cancel_futures=True)

    def _run(self, fn: Callable[..., _T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _T:
        number = self._free.get()
        if self._is_over:
            self._free.put(number)
            raise BrokenExecutor("the executor was shut down")
        try:
            if number not in self._pools:
                environment = _environment(number, self.workers)
                self._pools[number] = ProcessPoolExecutor(1, get_context("spawn"), _begin, (environment,))
                self._processes[number] = self._pools[number].submit(os.getpid).result()
            return self._pools[number].submit(fn, *args, **kwargs).result()
        except BrokenProcessPool:
            if (pool := self._pools.pop(number, None)) is not None:
                pool.shutdown(wait=False)
            self._processes.pop(number, None)
            raise
        finally:
            self._free.put(number)


def local(workers: Annotated[int, Whole(1)] = 1) -> Executor:
    """Return the executor of this machine: this process, or several others."""
    return InThisProcess() if workers == 1 else LocalProcesses(workers)


def _environment(number: int, workers: int) -> dict[str, str]:
    """Return what tells a worker its share of the machine, for what reads it when it is first used."""
    shares = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // workers))}
    if count := torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else list(map(str, range(count)))
        if not devices[0].startswith("MIG-"):  # of slices CUDA shows a process the first alone
            devices = devices[:count]
        shares["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return shares


def _begin(environment: dict[str, str]) -> None:
    """Make a process a worker: interrupted and ended by the one that started it alone."""
    os.environ.update(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(RLock())  # its own is a semaphore of the system, which a process that is ended leaves behind
    end_with_parent()


@dataclass(frozen=True)
class Crew:
    """Workers, and how they are handed what they do.

    Attributes:
        executor: Runs calls.
        workers: How many it runs at once.
        seconds_a_task: Estimated seconds of what is handed over in one piece, at least; 0 for a turn each.
    """

    executor: Executor = field(default_factory=InThisProcess)
    workers: int = 1
    seconds_a_task: float = 0.0

    @property
    def is_this_process(self) -> bool:
        """Whether there is nobody else who could end alone."""
        return isinstance(self.executor, InThisProcess)

    def call(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Have a call run by a worker, or by another one where that ends, and return its result."""
        again = partial(fn, *args, **kwargs)
        return self.resumed(self.executor.submit(again), lambda: None, again)

    def resumed(self, begun: Future[_T], state: Callable[[], object], fn: Callable[[], _T]) -> _T:
        """Return the result of a call that was begun, whose next try goes on from a state that it keeps.

        Args:
            begun: The call.
            state: Tells one state from another: a worker that has moved it was not lost in vain.
            fn: The call, for further tries.
        """
        lost, before = 0, state()
        while True:
            try:
                return begun.result()
            except BrokenExecutor:
                now = state()
                lost, before = (lost + 1 if now == before else 0), now
                if lost == _TRIES:
                    raise
                begun = self.executor.submit(fn)

    @property
    def in_flight(self) -> int:
        """Tasks that are handed over at once: one more than is run for each worker, so that none waits for this one."""
        return 2 * self.workers if self.workers > 1 else 1


@contextmanager
def crew_of(cfg: DictConfig) -> Iterator[Crew]:
    """Start the workers of a configuration, and end them.

    Raises:
        MisureError: If they cannot be had.
    """
    executor = build(cfg.runner.executor)
    if not callable(getattr(executor, "submit", None)):
        raise MisureError("runner.executor does not describe an executor: it has no submit")
    with executor:
        workers = cfg.runner.workers or getattr(executor, "workers", 1)
        yield Crew(executor, int(workers), float(cfg.runner.seconds_a_task))
