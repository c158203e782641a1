"""Workers on a Ray cluster: an existing one by its address, or one that is started on this machine for the run."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Annotated, Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from misure.errors import MisureError, brief
from misure.validation import AtLeast, Whole

_P = ParamSpec("_P")
_T = TypeVar("_T")

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers have what is installed where they run
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # what Ray does unless it is told, and warns about
    "RAY_COLOR_PREFIX": "0",
}

_OF_THIS_MACHINE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
"""Of a cluster that is started here: only this machine reaches it, only this run may use it."""

_HANDED_ON = ("HF_", "TORCH_HOME", "WANDB_", "MISURE_")
"""Beginnings of the variables that workers of a cluster which was there before get from whoever drives them."""

_SECRET = ("TOKEN", "KEY")
"""Endings of those that do not go with them: a cluster shows its workers' variables to whoever uses it."""

_OBJECT_STORE = 100_000_000
"""Bytes of shared memory of a cluster that is started here: calls carry configurations and counts alone."""

_ANSWERS_WITHIN = 10.0
"""Seconds for a cluster to accept a connection; Ray itself waits for two minutes."""

_STARTS = 3
"""Times that the start of each worker may fail, with none that succeeds in between."""


class RayExecutor(Executor):
    """Runs calls in processes of a Ray cluster, which keep what they have loaded from one call to the next.

    A process that ends, or whose machine does, concerns the call that it runs and no other: another one is started
    where there is room, and calls do not wait for it. They end with the process that started them, however that ends.

    Args:
        address: ``host:port`` of a cluster, or ``"auto"`` for that of this machine or of ``RAY_ADDRESS``; null starts
            one on this machine.
        num_gpus: Of each worker, as Ray counts them: ``0.5`` puts two workers on a GPU; null for one where the
            cluster has any.
        num_cpus: Of each worker, and so many threads of it.
        workers: Processes; null for as many as the cluster holds.

    Raises:
        MisureError: If Ray is not installed, no cluster answers, or it has no room for a worker.
    """

    def __init__(
        self,
        address: str | None = None,
        num_gpus: Annotated[float, AtLeast(0)] | None = None,
        num_cpus: Annotated[float, AtLeast(0)] = 1.0,
        workers: Annotated[int, Whole(1)] | None = None,
    ) -> None:
        self._ray = _imported(address)
        self._is_mine = not self._ray.is_initialized()
        if self._is_mine:
            _connect(self._ray, address)
        machines = [machine["Resources"] for machine in self._ray.nodes() if machine["Alive"]]
        gpus = float(any(m.get("GPU") for m in machines)) if num_gpus is None else num_gpus
        self.workers = workers or _room(machines, {"CPU": num_cpus, "GPU": gpus})
        if not self.workers:
            self._leave()
            raise MisureError(
                f"no machine of the Ray cluster has room for a worker of {num_cpus:g} CPUs and {gpus:g} GPUs: change "
                "runner.cpus and runner.gpus, of which one has to be above 0"
            )
        environment = {"env_vars": _handed_on()} if address else {}  # what is started here has it
        self._new = self._ray.remote(num_cpus=num_cpus, num_gpus=gpus, runtime_env=environment)(Worker)
        self._callers = ThreadPoolExecutor(self.workers, thread_name_prefix="caller")
        self._free: SimpleQueue[Any] = SimpleQueue()
        self._all: list[Any] = []
        self._lock = threading.Lock()
        self._is_over = False
        self._failed_starts = 0
        for _ in range(self.workers):
            self._start()

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Have a call run by the next worker that is free."""
        return self._callers.submit(self._run, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers: when their calls have ended, or, where these are cancelled or not waited for, at once."""
        at_once = cancel_futures or not wait
        self._callers.shutdown(wait=not at_once, cancel_futures=at_once)
        with self._lock:
            self._is_over = True
            for worker in self._all:
                self._ray.kill(worker)
            self._all.clear()
        for _ in range(self.workers):
            self._free.put(BrokenExecutor())
        self._callers.shutdown()
        self._leave()

    def __exit__(self, *_: object) -> None:
        """End the workers at once: on the way out nobody waits for a result any more."""
        self.shutdown(cancel_futures=True)

    def _run(self, fn: Callable[..., _T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _T:
        worker = self._next()
        try:
            result: _T = self._ray.get(worker.call.remote(fn, args, kwargs))
        except self._ray.exceptions.RayTaskError as error:  # raised by the call
            self._free.put(worker)
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            self._replace(worker)
            raise BrokenExecutor(_why(error)) from None
        self._free.put(worker)
        return result

    def _next(self) -> Any:
        """Wait for a worker that is free, and start those again that ended before they could be."""
        while isinstance(found := self._free.get(), Exception):
            with self._lock:
                self._failed_starts += 1
                if self._is_over or self._failed_starts > _STARTS * self.workers:
                    self._free.put(found)  # for those that wait as well
                    raise BrokenExecutor("the run is over") if self._is_over else _no_start(found)
            self._start()
        self._failed_starts = 0
        return found

    def _start(self) -> None:
        """Start a worker; it is free as soon as the cluster has room for it and it runs."""
        with self._lock:
            if not self._is_over:
                worker = self._new.remote()
                self._all.append(worker)
                worker.__ray_ready__.remote().future().add_done_callback(partial(self._started, worker))

    def _started(self, worker: Any, start: Future[Any]) -> None:
        self._free.put(start.exception() or worker)

    def _replace(self, worker: Any) -> None:
        with self._lock:
            if worker in self._all:
                self._all.remove(worker)
                self._ray.kill(worker)
        self._start()

    def _leave(self) -> None:
        """End a cluster that was started here; leave one that was there."""
        if self._is_mine:
            self._ray.shutdown()


class Worker:
    """What stands in each process."""

    def call(self, fn: Callable[..., _T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _T:
        """Return what a call returns."""
        return fn(*args, **kwargs)


def _imported(address: str | None) -> Any:
    """Import Ray, which reads its environment variables then; where that was done before they stay as they are."""
    if "ray" not in sys.modules:
        token = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ.update((_QUIET if address else _QUIET | _OF_THIS_MACHINE | token) | os.environ)
    try:
        import ray
    except ImportError as error:
        raise MisureError("runner=ray needs Ray: pip install 'misure[ray]'") from error
    return ray


def _handed_on() -> dict[str, str]:
    handed_on = {name: value for name, value in os.environ.items() if name.startswith(_HANDED_ON)}
    return {name: value for name, value in handed_on.items() if not name.endswith(_SECRET)}


def _connect(ray: Any, address: str | None) -> None:
    """Connect with a cluster, or start one.

    Raises:
        MisureError: If that does not succeed.
    """
    own = {} if address else {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    try:
        if address and ":" in address:
            where = urlsplit(address if "//" in address else f"//{address}")
            socket.create_connection((where.hostname, where.port), timeout=_ANSWERS_WITHIN).close()
        ray.init(address or "local", logging_level="WARNING", **own)
    except Exception as error:  # whatever Ray raises where it cannot start
        which = f"no Ray cluster at runner.address={address}" if address else "Ray cannot be started here"
        raise MisureError(f"{which}: {brief(error)}") from error


def _room(machines: list[Mapping[str, float]], needs: Mapping[str, float]) -> int:
    """Return how many workers machines hold."""
    needed = {kind: amount for kind, amount in needs.items() if amount > 0}
    return sum(min(int(m.get(kind, 0) / n + 1e-6) for kind, n in needed.items()) for m in machines) if needed else 0


def _no_start(error: Exception) -> MisureError:
    return MisureError(
        f"workers cannot start on the Ray cluster: {_why(error)}; misure has to be installed on all its machines"
    )


def _why(error: Exception) -> str:
    """Say in a line why a worker ended, without the numbers that Ray gives it."""
    story, died, reason = str(error).partition("The actor is dead because ")
    if died:
        return "Ray: " + reason.partition(". ")[0]
    lines = story.strip().splitlines() or [""]
    line = lines[-1 if "creation task" in lines[0] else 0]
    return f"{type(error).__name__}: {line.partition('. ')[0]}"
