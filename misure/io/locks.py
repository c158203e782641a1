"""Locks between processes, which end with the process that holds them, and processes that end with their parent."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from misure.errors import MisureError, brief

fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


def flock(file: int, folder: Path, *, wait: bool = True) -> bool:
    """Lock an open file of a folder for this process, or say that another has it.

    Where the system or the file system has no locks, it is not locked; the latter is warned of.

    Raises:
        OSError: If it cannot be locked for another reason.
    """
    if fcntl is None:  # Windows has none
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        warnings.warn(f"{folder} has no locks: let one process at a time use it", stacklevel=5)
    return True


class Lock:
    """A lock file that one process at a time holds, also one on another host that shares the folder.

    The operating system gives it back when its holder ends, however that ends: no process number is compared, so
    containers in which each process has number 1 exclude each other as well. The file is gone when nobody holds it.

    Args:
        path: The file; its folder is made when missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def take(self, *, wait: bool = False) -> bool:
        """Take the lock, or say that another has it (another object of this process counts as another).

        Raises:
            MisureError: If the file cannot be made.
        """
        while True:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise MisureError(f"cannot write {self.path}: {brief(error)}; choose another folder") from error
            try:
                if not self._locked(file, wait):
                    return False
                if self._is_current(file):  # else its holder removed it while we waited: the next one has another file
                    self._file, file = file, -1
                    return True
            finally:
                if file >= 0:
                    os.close(file)

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    def _locked(self, file: int, wait: bool) -> bool:
        try:
            return flock(file, self.path.parent, wait=wait)
        except OSError as error:
            raise MisureError(f"cannot lock {self.path}: {brief(error)}; choose another folder") from error

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self.path.stat())
        except FileNotFoundError:
            return False


@contextlib.contextmanager
def alone(path: Path, busy: Callable[[], object]) -> Iterator[None]:
    """Hold a lock inside; ``busy`` is called once if another process has it and has to be waited for."""
    lock = Lock(path)
    if not lock.take():
        busy()
        lock.take(wait=True)
    try:
        yield
    finally:
        lock.release()


def end_with_parent() -> None:
    """Let this process end when the one that started it does, however that ends: it would work on with nobody there."""
    if (parent := parent_process()) is not None:
        threading.Thread(target=_follow, args=(parent.join,), daemon=True).start()


def _follow(wait: Callable[[], object]) -> None:
    wait()
    os._exit(1)
