"""Memory of passes stays with the process while masks are passed, and goes back to the system afterwards."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from oracles.toys import Convolutional

import misure
import misure.models.allocation
from misure.models.allocation import _CHOSEN_BY_USER, _KEPT, _USUAL, _glibc, memory_kept

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
BLOCK = 64  # MiB, twice what glibc ever puts on the heap by itself
SLACK = 8  # MiB that other objects may take or free meanwhile, an eighth of the block that is looked for


class Recorder:
    """Pretends to be glibc, and keeps what is asked of it."""

    def __init__(self) -> None:
        self.settings: dict[int, int] = {}
        self.trimmed = 0

    def mallopt(self, setting: int, value: int) -> None:
        self.settings[setting] = value

    def malloc_trim(self, _: int) -> None:
        self.trimmed += 1


@pytest.fixture
def glibc(monkeypatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(misure.models.allocation, "_glibc", lambda: recorder)
    return recorder


@pytest.fixture
def plain_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith(_CHOSEN_BY_USER)]:
        monkeypatch.delenv(name)
    _glibc.cache_clear()
    yield monkeypatch
    _glibc.cache_clear()


def resident() -> float:
    """MiB that this process has in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_freed_block_stays_while_kept_and_goes_afterwards(plain_environment):
    if (library := _glibc()) is None:
        pytest.skip("another C library")
    library.malloc_trim(0)
    before = resident()
    with memory_kept(CPU):
        torch.ones(BLOCK * 2**18)
        assert resident() > before + BLOCK - SLACK
    assert resident() < before + SLACK
    torch.ones(BLOCK * 2**18)
    assert resident() < before + SLACK


def test_other_threads_have_large_blocks_too(plain_environment):
    sums: list[float] = []
    with memory_kept(CPU):  # a thread's own heap holds 64 MiB at most, whatever the settings
        thread = threading.Thread(target=lambda: sums.append(float(torch.ones(2 * BLOCK * 2**18).sum())))
        thread.start()
        thread.join()
    assert sums == [2 * BLOCK * 2**18]


def test_contexts_overlap_and_the_last_one_ends_it(glibc):
    with ExitStack() as last:
        with ExitStack() as first:
            first.enter_context(memory_kept(CPU))
            last.enter_context(memory_kept(CPU))
        assert glibc.settings == _KEPT
        assert not glibc.trimmed
    assert glibc.settings == _USUAL
    assert glibc.trimmed == 1


def test_an_error_ends_it_too(glibc):
    with pytest.raises(KeyError), memory_kept(CPU):
        raise KeyError
    assert glibc.settings == _USUAL


def test_threads_may_hold_it_together(glibc):
    inside = threading.Barrier(4, timeout=60)

    def hold() -> None:
        with memory_kept(CPU):
            inside.wait()
            assert glibc.settings == _KEPT
            inside.wait()

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert glibc.trimmed == 1
    assert misure.models.allocation._holders == 0


def test_other_devices_change_nothing(glibc):
    with memory_kept(CUDA):
        assert not glibc.settings


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_a_user_who_chose_is_left_alone(plain_environment, name):
    plain_environment.setenv(name, "1")
    assert _glibc() is None
    with memory_kept(CPU):
        pass


@pytest.mark.parametrize("missing", ["gnu_get_libc_version", "mallopt", "malloc_trim"])
def test_another_c_library_is_left_alone(plain_environment, missing):
    functions = dict.fromkeys({"gnu_get_libc_version", "mallopt", "malloc_trim"} - {missing})
    plain_environment.setattr(ctypes, "CDLL", lambda _: type("Library", (), functions))
    assert _glibc() is None


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_another_system_is_left_alone(plain_environment, platform):
    plain_environment.setattr(sys, "platform", platform)
    assert _glibc() is None


def test_maps_of_many_passes_do_not_depend_on_it(plain_environment):
    def explained() -> torch.Tensor:
        return misure.explain(Convolutional().eval(), images, target=1, method="rise")[0].saliency

    images = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    kept = explained()
    plain_environment.setattr(misure.models.allocation, "_glibc", lambda: None)
    torch.testing.assert_close(explained(), kept, rtol=0, atol=0)


def test_rise_keeps_memory_while_it_passes_masks(glibc):
    misure.explain(Convolutional().eval(), torch.zeros(1, 1, 24, 24), target=1, method="rise")
    assert glibc.trimmed == 1
