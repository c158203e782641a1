"""The peak of memory while something runs, without touching what runs."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """The peak of a block's memory, filled in when the block ends.

    Attributes:
        bytes: Above what was in use at the start; None where it cannot be measured.
    """

    bytes: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure the peak of the block's memory above its start.

    On CUDA it is what torch allocated. On a CPU it is the resident memory of the process: memory that earlier work
    freed is handed back to the system first, and the kernel's own high-water mark is reset and read, so that no short
    peak is missed and nothing runs beside the block. That needs Linux; elsewhere the peak is None.
    """
    peak = Peak()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        start = torch.cuda.memory_allocated(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device) - start
        return
    if not _reset_high_water():
        yield peak
        return
    resident = _status("VmRSS")
    yield peak
    peak.bytes = max(0, _status("VmHWM") - resident)


@contextmanager
def quick_collection() -> Iterator[None]:
    """Let garbage collection, with which every peak begins, skip what exists already: else each takes 0.5 s."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _reset_high_water() -> bool:
    """Hand freed memory back and reset the kernel's mark; say whether the system can."""
    if not sys.platform.startswith("linux"):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others keep little
    if trim is not None:
        trim(0)
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:  # a container may forbid it
        return False
    return True


def _status(key: str) -> int:
    kilobytes = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    return 1024 * int(kilobytes[1]) if kilobytes else 0
