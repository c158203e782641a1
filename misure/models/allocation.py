"""Memory of passes on a CPU, which stays with the process from one pass to the next."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

_MIB = 2**20
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
_USUAL = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 64 * _MIB, _MMAP_THRESHOLD: 32 * _MIB}
"""Where glibc's own adjustment, which :data:`_KEPT` ends, is after one large block was freed."""

_CHOSEN_BY_USER = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")

_change = threading.Lock()
os.register_at_fork(before=_change.acquire, after_in_parent=_change.release, after_in_child=_change.release)
_holders = 0


@contextmanager
def memory_kept(device: torch.device) -> Iterator[None]:
    """Let glibc keep what many passes on a CPU free, and give it back to the system afterwards.

    By itself it maps every block above 32 MiB anew, whose pages the system fills with zeros at every layer of every
    pass. Giving back takes about as long as one of these passes. Contexts may overlap, in one thread or several; only
    blocks of the main thread are kept. Other C libraries, devices, and processes whose environment chooses an
    allocator or its settings are left alone.
    """
    if device.type != "cpu" or (glibc := _glibc()) is None:
        yield
        return
    _hold(glibc, 1)
    try:
        yield
    finally:
        _hold(glibc, -1)


def _hold(glibc: Any, change: int) -> None:
    global _holders
    with _change:
        before, _holders = _holders, _holders + change
        if bool(before) != bool(_holders):
            for setting, value in (_KEPT if _holders else _USUAL).items():
                glibc.mallopt(setting, value)
            if not _holders:
                glibc.malloc_trim(0)


@cache
def _glibc() -> Any:
    """The C library of this process if it is glibc, with its own allocator as it is by itself."""
    if not sys.platform.startswith("linux") or any(name.startswith(_CHOSEN_BY_USER) for name in os.environ):
        return None
    library = ctypes.CDLL(None)
    has_all = all(hasattr(library, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim"))
    return library if has_all else None
