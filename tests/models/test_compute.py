"""Batches shrink when memory runs out, and precision follows the hardware."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hardware import is_really_fast_at_bfloat16
from hypothesis import given
from hypothesis import strategies as st

import misure.models.compute
from misure.errors import MisureError
from misure.models.compute import (
    AS_CONFIGURED,
    Batches,
    Compute,
    _unless_refused,
    automatic_batch_size,
    choose_precision,
    is_out_of_memory,
    joined,
    tf32,
)

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


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_results_of_batches_are_joined_along_their_first_axis(sizes):
    whole = torch.rand(sum(sizes), 2)
    tensors = list(whole.split(sizes))
    batches = [(part, ([row.tolist() for row in part], part[:, 0])) for part in tensors]
    tensor, (rows, column) = joined(batches)
    assert torch.equal(tensor, whole)
    assert rows == whole.tolist()
    assert torch.equal(column, whole[:, 0])


def unmeasured(precision):
    raise AssertionError(f"{precision} was measured")


@pytest.mark.parametrize(("precision", "taken"), [("32", "32"), (32, "32"), ("bf16", "bf16")])
def test_a_given_precision_is_taken_unmeasured(monkeypatch, precision, taken):
    for fast in (False, True):
        monkeypatch.setattr(misure.models.compute, "is_fast_at_bfloat16", lambda device, fast=fast: fast)
        choice = choose_precision(Compute(precision), CPU, unmeasured)
        assert (choice.precision, choice.reason, choice.seconds) == (taken, AS_CONFIGURED, {})


def test_auto_measures_nothing_where_bfloat16_is_emulated(monkeypatch):
    monkeypatch.setattr(misure.models.compute, "is_fast_at_bfloat16", lambda device: False)
    assert choose_precision(Compute("auto"), CPU, unmeasured).precision == "32"


@pytest.mark.parametrize(("full", "lowered", "taken"), [(1.0, 0.5, "bf16"), (1.0, 0.95, "32"), (1.0, 3.0, "32")])
def test_auto_takes_what_was_measured_to_be_faster(monkeypatch, full, lowered, taken):
    monkeypatch.setattr(misure.models.compute, "is_fast_at_bfloat16", lambda device: True)
    monkeypatch.setattr(misure.models.compute, "_WORTH_ROUNDING", 0.9)
    seconds = {"32": full, "bf16": lowered}
    choice = choose_precision(Compute("auto"), CPU, seconds.__getitem__)
    assert choice.precision == taken
    assert choice.seconds == seconds
    assert f"{full:.3g} s" in choice.reason
    assert f"{lowered:.3g} s" in choice.reason
    assert choose_precision(Compute("auto"), CPU) is None


def test_auto_stays_in_full_precision_where_a_network_takes_no_other(monkeypatch):
    """Measured on a network that writes float32 into its own output, as many do."""
    monkeypatch.setattr(misure.models.compute, "is_fast_at_bfloat16", lambda device: True)
    convolution = torch.nn.Conv2d(1, 2, 1)

    def network(x):
        found = convolution(x)
        made = torch.zeros(found.shape)
        made[found > 0] = found[found > 0]
        return made - 0.1

    image = torch.rand(1, 8, 9, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([-1.0, 1]).view(2, 1, 1, 1))
        convolution.bias.copy_(torch.tensor([0.5, -0.5]))
    made = misure.explain(network, image, 1, "rise", n_masks=5, precision="auto")
    assert made.precision == "32"
    assert torch.equal(made.saliency, misure.explain(network, image, 1, "rise", n_masks=5, precision="32").saliency)

    def seconds_of_a_pass(precision):
        if precision == "bf16":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0

    with pytest.raises(torch.OutOfMemoryError):  # which smaller batches may help
        choose_precision(Compute("auto"), CPU, seconds_of_a_pass)


@pytest.mark.parametrize(
    ("precision", "device", "taken"), [("32", CUDA, "tf32"), ("32", CPU, "32"), ("bf16", CUDA, "bf16")]
)
def test_tf32_is_a_precision_of_its_own_on_cuda(precision, device, taken):
    assert choose_precision(Compute(precision, allow_tf32=True), device).precision == taken
    assert choose_precision(Compute(precision), device).precision == ("bf16" if precision == "bf16" else "32")


def tf32_settings():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    older = [lambda: matmul.allow_tf32, lambda: cudnn.allow_tf32, torch.get_float32_matmul_precision]
    newer = [(cudnn, "conv"), (cudnn, "rnn"), (torch.backends.mkldnn, "matmul"), (torch.backends.cuda, "matmul")]
    newer = [getattr(owner, name) for owner, name in newer if hasattr(matmul, "fp32_precision")]
    return [_unless_refused(read) for read in older], [place.fp32_precision for place in newer]


@pytest.mark.parametrize("set_by", ["nobody", "allow_tf32", "fp32_precision", "everything", "medium"])
@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_set_and_given_back_however_it_was_set_before(set_by, allowed):
    """Both of PyTorch's ways of setting it, which refuse to be read where they disagree."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    original = (matmul.allow_tf32, cudnn.allow_tf32)
    try:
        if set_by == "allow_tf32":
            matmul.allow_tf32, cudnn.allow_tf32 = True, False
        elif set_by == "medium":
            torch.set_float32_matmul_precision("medium")
        elif set_by != "nobody" and not hasattr(matmul, "fp32_precision"):
            pytest.skip("this PyTorch has allow_tf32 alone")
        elif set_by == "everything":
            torch.backends.fp32_precision = "tf32"
        elif set_by == "fp32_precision":
            matmul.fp32_precision, cudnn.conv.fp32_precision = "tf32", "ieee"
        before = tf32_settings()
        with tf32(allowed=allowed):
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (allowed, allowed)
            assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")
            assert set(tf32_settings()[1]) <= {"tf32" if allowed else "ieee"}
        assert tf32_settings() == before
    finally:
        if hasattr(matmul, "fp32_precision"):
            torch.backends.fp32_precision = "none"
            for place in (cudnn.conv, cudnn.rnn, torch.backends.mkldnn.matmul, matmul):
                place.fp32_precision = "none"
        torch.set_float32_matmul_precision("highest")
        matmul.allow_tf32, cudnn.allow_tf32 = original


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bfloat16_is_fast_from_ampere_on(monkeypatch, capability, fast):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert is_really_fast_at_bfloat16(CUDA) is fast
    assert not is_really_fast_at_bfloat16(torch.device("mps"))


@pytest.mark.parametrize("supported", [(False, False), (True, False), (False, True)])
def test_bfloat16_is_fast_on_cpus_with_either_instruction_set(monkeypatch, supported):
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    for name, value in zip(names, supported, strict=True):
        monkeypatch.setattr(torch.cpu, name, lambda value=value: value)
    assert is_really_fast_at_bfloat16(CPU) is any(supported)


@pytest.mark.parametrize(
    ("device", "free", "per_image", "size"),
    [
        (CPU, 10**12, 1, 8),
        (CPU, 1000, 100, 4),
        (CPU, 1000, 10**9, 1),
        (CPU, 10**12, 0, 8),
        (CUDA, 10**6, 10**4, 40),
        (CUDA, 10**6, 1, 64),
    ],
)
def test_automatic_batch_size(monkeypatch, device, free, per_image, size):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**9))
    assert automatic_batch_size(device, per_image) == size


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        *(({"precision": precision}, "is not known: choose 32, bf16 or auto") for precision in ("16", "fp32", "")),
        *(({"batch_size": size}, "is not a positive integer or auto") for size in (0, -3, "many", 2.5)),
        ({"fold": "perhaps"}, "fold=perhaps is not known: choose true or false"),
    ],
)
def test_settings_that_do_not_exist_are_refused(wrong, message):
    with pytest.raises(MisureError, match=message):
        Compute(**wrong)
