"""Batches shrink when memory runs out, and precision follows the hardware."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import misure.compute
from misure.compute import Batches, Compute, automatic_batch_size, is_fast_at_bfloat16, is_out_of_memory
from misure.errors import MisureError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHORTAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    MemoryError(),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory: you tried to allocate"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. Error code 12"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@given(st.integers(0, 40), st.integers(1, 12))
def test_batches_cover_everything_once_and_in_order(n_items, size):
    parts = [part for part, _ in Batches(size).attempt(lambda part: None, n_items)]
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(n_items))
    assert all(part.stop - part.start <= size for part in parts)


@pytest.mark.parametrize("shortage", SHORTAGES, ids=lambda e: f"{type(e).__name__}-{str(e)[:12]}")
def test_running_out_of_memory_halves_the_batch_and_repeats_the_slice(shortage):
    tried = []

    def work(part: slice) -> list[int]:
        tried.append((part.start, part.stop))
        if part.stop - part.start > 2:
            raise shortage
        return list(range(part.start, part.stop))

    batches = Batches(8)
    with pytest.warns(RuntimeWarning, match="going on with batches of") as warned:
        done = [i for _, items in batches.attempt(work, 5) for i in items]
    assert done == [0, 1, 2, 3, 4]
    assert tried == [(0, 5), (0, 4), (0, 2), (2, 4), (4, 5)]
    assert batches.size == 2
    assert [str(w.message).split()[-1] for w in warned] == ["4", "2"]


def test_a_shortage_in_the_middle_keeps_what_is_done():
    failures = [MemoryError()]

    def work(part: slice) -> int:
        if part.start == 4 and failures:
            raise failures.pop()
        return part.stop - part.start

    with pytest.warns(RuntimeWarning, match="batches of 2"):
        assert [size for _, size in Batches(4).attempt(work, 8)] == [4, 2, 2]


def test_a_single_image_that_does_not_fit_is_a_clear_error():
    def work(part: slice) -> None:
        raise MemoryError

    with pytest.raises(MisureError, match="out of memory with a single image: use a smaller image"):
        list(Batches(1).attempt(work, 3))


@pytest.mark.parametrize("error", [RuntimeError("shapes cannot be multiplied"), ValueError("out of memory")])
def test_other_errors_are_passed_on(error):
    def work(part: slice) -> None:
        raise error

    assert not is_out_of_memory(error)
    with pytest.raises(type(error), match=str(error)):
        list(Batches(4).attempt(work, 4))


@pytest.mark.parametrize(
    ("precision", "fast", "resolved"),
    [("32", True, "32"), ("bf16", False, "bf16"), ("auto", True, "bf16"), ("auto", False, "32"), (32, True, "32")],
)
def test_precision(monkeypatch, precision, fast, resolved):
    monkeypatch.setattr(misure.compute, "is_fast_at_bfloat16", lambda device: fast)
    assert Compute(precision).resolve_precision(CPU) == resolved


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bfloat16_is_fast_from_ampere_on(monkeypatch, capability, fast):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert is_fast_at_bfloat16(CUDA) is fast


@pytest.mark.parametrize("supported", [(False, False), (True, False), (False, True)])
def test_bfloat16_is_fast_on_cpus_with_either_instruction_set(monkeypatch, supported):
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    for name, value in zip(names, supported, strict=True):
        monkeypatch.setattr(torch.cpu, name, lambda value=value: value)
    assert is_fast_at_bfloat16(CPU) is any(supported)


def test_bfloat16_is_not_trusted_on_other_devices():
    assert not is_fast_at_bfloat16(torch.device("mps"))


@pytest.mark.parametrize(
    ("free", "per_image", "size"), [(10**12, 1, 8), (1000, 100, 4), (1000, 10**9, 1), (10**12, 0, 8)]
)
def test_automatic_batch_size(monkeypatch, free, per_image, size):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free))
    assert automatic_batch_size(CPU, per_image) == size


def test_automatic_batch_size_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**6, 10**9))
    assert automatic_batch_size(CUDA, 10**4) == 40
    assert automatic_batch_size(CUDA, 1) == 64


@pytest.mark.parametrize("precision", ["16", "fp32", ""])
def test_unknown_precisions_are_refused(precision):
    with pytest.raises(MisureError, match="is not known: choose 32, bf16 or auto"):
        Compute(precision)


@pytest.mark.parametrize("size", [0, -3, "many", 2.5])
def test_impossible_batch_sizes_are_refused(size):
    with pytest.raises(MisureError, match="is not a positive integer or auto"):
        Compute(batch_size=size)
