"""A task in a process of its own, to be killed: forked, since importing torch again takes seconds."""

from __future__ import annotations

import contextlib
import multiprocessing
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess

import pytest
import torch

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a fork has no gradients after a GPU")


@contextlib.contextmanager
def forked(task: Callable[..., object], *args, **named) -> Iterator[BaseProcess]:
    """Begin a task; it is killed (SIGKILL) at the end of the block, unless it has ended."""
    process = multiprocessing.get_context("fork").Process(target=task, args=args, kwargs=named)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # the child uses no thread of its parent
        process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
