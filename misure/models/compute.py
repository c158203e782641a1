"""Precision, batch size and memory format of the arithmetic; results do not depend on them beyond rounding."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Annotated, Any, Literal, TypeVar, cast

import psutil
import torch
from torch import Tensor

from misure.errors import MisureError
from misure.validation import OneOf, Whole, plain, shown

Precision = Literal["32", "tf32", "bf16", "fp16"]
"""Of convolutions and matrix products; ``"tf32"`` is float32 whose products CUDA devices round to 10 bits, ``"fp16"``
that of float16 networks alone."""

_Result = TypeVar("_Result")

_LARGEST_AUTOMATIC_BATCH = {"cpu": 8, "cuda": 64}
"""More brings nothing even for small images."""

_CPU_WORKING_SET = 256 << 20
"""Bytes of activations beyond which a CPU's caches overflow: a VGG-16 U-Net at 224 x 224 took 0.61 s an image for a
forward pass and gradient one by one, 0.62 s in batches of 4 and 0.70 s in batches of 8 (2 cores, 32 MB cache)."""

_LONG = 1.0
"""Seconds of a run beside which warming up (some tenths of a second) does not matter for an estimate."""

_WORTH_ROUNDING = 0.9
"""Share of float32's time that bfloat16 must stay below: a gain within timing noise is not worth 16 bits."""

_MEMORY_SHARE = 0.4
"""Share of the free memory that activations may take; the rest is for weights, workspaces and other programs."""


@dataclass(frozen=True)
class Compute:
    """Resources of an explanation. Results do not depend on them beyond rounding.

    Attributes:
        precision: ``"32"``, ``"bf16"`` or ``"auto"``: see :func:`choose_precision`.
        allow_tf32: Whether CUDA devices may round the factors of float32 products to TF32; set explicitly while a
            network is lent or trained, whatever the process has set, and given back.
        batch_size: Perturbed images per forward pass, or ``"auto"`` to choose by free memory.
        channels_last: Lend the network channels-last weights and images while it explains (4-D ones only). Where a
            pass fails with them it is made again without, and so are all others of that network.
        fold: Whether methods of many passes may fold batch normalisation into the convolution before it.
    """

    precision: Annotated[str, OneOf(("32", "bf16", "auto", 32))] = "auto"  # YAML reads 32 as a number
    batch_size: int | str = "auto"
    allow_tf32: bool = False
    channels_last: bool = True
    fold: bool = True

    def __post_init__(self) -> None:
        for name in ("fold", "allow_tf32", "channels_last"):
            if not isinstance(getattr(self, name), bool):
                raise MisureError(f"{name}={shown(getattr(self, name))} is not known: choose true or false")
        object.__setattr__(self, "precision", shown(self.precision))
        if self.precision not in {"32", "bf16", "auto"}:
            raise MisureError(f"precision={self.precision} is not known: choose 32, bf16 or auto")
        object.__setattr__(self, "batch_size", plain(self.batch_size))
        if self.batch_size != "auto" and self.batch_size not in Whole(1):
            raise MisureError(f"batch_size={shown(self.batch_size)} is not a positive integer or auto")


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision that is taken, and the reason.

    Attributes:
        precision: The precision of convolutions and matrix products.
        reason: A few words, for people and records.
        seconds: Measured seconds of a pass, by precision; empty where nothing was measured.
    """

    precision: Precision
    reason: str
    seconds: Mapping[Precision, float] = field(default_factory=dict)

    @property
    def setting(self) -> str:
        """The value of the key ``precision`` that leads to it; TF32 is a key of its own."""
        return setting_of(self.precision)


def setting_of(precision: Precision) -> str:
    """Return the value of the key ``precision`` that leads to a precision; TF32 is a key of its own."""
    return "bf16" if precision == "bf16" else "32"


AS_CONFIGURED = "as configured"
"""The reason of a precision that was given."""


def choose_precision(
    compute: Compute, device: torch.device, seconds_of_a_pass: Callable[[Precision], float] | None = None
) -> PrecisionChoice | None:
    """Settle ``precision="auto"``: bfloat16 where the hardware has it and a pass of this network is faster with it.

    Args:
        compute: The settings.
        device: Where the network runs.
        seconds_of_a_pass: Measures one precision; called only where both could be taken.

    Returns:
        The choice; None where it takes a measurement and there is nothing to measure with.
    """
    full: Precision = "tf32" if compute.allow_tf32 and device.type == "cuda" else "32"
    if compute.precision != "auto":
        return PrecisionChoice("bf16" if compute.precision == "bf16" else full, AS_CONFIGURED)
    if not is_fast_at_bfloat16(device):
        return PrecisionChoice(full, "this hardware is not fast at bfloat16")
    if seconds_of_a_pass is None:
        return None
    seconds: dict[Precision, float] = {full: seconds_of_a_pass(full)}
    try:
        seconds["bf16"] = seconds_of_a_pass("bf16")
    except Exception as error:  # whatever a network raises that takes no other type
        if is_out_of_memory(error):
            raise
        return PrecisionChoice(full, "the network fails in bfloat16", seconds)
    taken: Precision = "bf16" if seconds["bf16"] < _WORTH_ROUNDING * seconds[full] else full
    reason = f"measured: bf16 {seconds['bf16']:.3g} s, {full} {seconds[full]:.3g} s a pass"
    return PrecisionChoice(taken, reason, seconds)


def default_device() -> torch.device:
    """Return where networks are trained and explained by experiments."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """Name a device for records: a GPU by its product, a processor by its threads."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def is_fast_at_bfloat16(device: torch.device) -> bool:
    """Say whether bfloat16 arithmetic is native on the device rather than emulated."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, check, bool)() for check in checks)
    return False


def seconds_of(work: Callable[[], object], device: torch.device, times: int = 3) -> float:
    """Time some work in seconds: the shortest of a few runs after one that warms up, or that one if it is long."""

    def timed() -> float:
        started = now(device)
        work()
        return now(device) - started

    first = timed()
    return first if first > _LONG else min(timed() for _ in range(times))


def now(device: torch.device) -> float:
    """Read the clock, in seconds, once a device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def tf32(*, allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in matrix products and convolutions on CUDA devices, and restore what was set before.

    PyTorch 2.9 added ``fp32_precision``, for each kind of operation, beside its older settings, and refuses to read
    an older one while the two disagree. So both are set here, and each is restored as far as it could be read.
    """
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    overall = _unless_refused(torch.get_float32_matmul_precision)
    older = [(owner, partial(getattr, owner, "allow_tf32")) for owner in (cudnn, matmul)]
    were_allowed = [_unless_refused(read) for _, read in older]
    places = [matmul, *(getattr(cudnn, name, None) for name in ("conv", "rnn"))]
    places += [getattr(torch.backends.mkldnn, "matmul", None)]
    newer = [(place, place.fp32_precision) for place in places if hasattr(place, "fp32_precision")]
    try:
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        cudnn.allow_tf32 = allowed
        for place, _ in newer:
            place.fp32_precision = "tf32" if allowed else "ieee"
        yield
    finally:
        torch.set_float32_matmul_precision(overall or "highest")
        for (owner, read), was_allowed in zip(older, were_allowed, strict=True):
            if was_allowed is not None and _unless_refused(read) != was_allowed:
                owner.allow_tf32 = was_allowed
        for place, precision in newer:
            if place.fp32_precision != precision:
                place.fp32_precision = precision


def _unless_refused(read: Callable[[], _Result]) -> _Result | None:
    """Read a setting; None where PyTorch refuses it, because the process uses the newer one."""
    try:
        return read()
    except RuntimeError:
        return None


def automatic_batch_size(device: torch.device, bytes_per_image: int) -> int:
    """Choose a batch size that keeps activations within a share of the free memory.

    Args:
        device: Where the network runs.
        bytes_per_image: Activation memory of one image's forward and backward pass.

    Returns:
        At least 1; at most 8 on a CPU and 64 on a CUDA device.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = min(psutil.virtual_memory().available, int(_CPU_WORKING_SET / _MEMORY_SHARE))
    fitting = int(free * _MEMORY_SHARE / max(bytes_per_image, 1))
    return max(1, min(fitting, _LARGEST_AUTOMATIC_BATCH.get(device.type, 8)))


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception means that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


class Batches:
    """Cuts work into batches, and smaller ones after memory ran out.

    Attributes:
        size: The current batch size; it only ever shrinks.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def attempt(self, work: Callable[[slice], _Result], n_items: int) -> Iterator[tuple[slice, _Result]]:
        """Run ``work`` on consecutive slices of ``range(n_items)``.

        Running out of memory halves the batch and repeats the slice, with a warning.

        Args:
            work: Computes one slice; it must not change state outside itself.
            n_items: How many items there are.

        Yields:
            Each finished slice and its result, in order.

        Raises:
            MisureError: If a single item does not fit.
        """
        start = 0
        while start < n_items:
            part = slice(start, min(start + self.size, n_items))
            try:
                result = work(part)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(error)
                continue
            yield part, result
            start = part.stop

    def _halve(self, error: BaseException) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.size == 1:
            raise MisureError(
                "out of memory with a single image: use a smaller image or network, or precision=bf16"
            ) from error
        self.size //= 2
        warnings.warn(f"out of memory: going on with batches of {self.size}", RuntimeWarning, stacklevel=3)


def joined(results: Sequence[_Result]) -> _Result:
    """Join the results of batches, at least one: tensors along their first axis, lists, or tuples of these."""
    first: Any = results[0]
    if isinstance(first, tuple):
        return cast("_Result", tuple(joined(parts) for parts in zip(*cast("Any", results), strict=True)))
    if isinstance(first, Tensor):
        return cast("_Result", torch.cat(cast("Any", results)))
    return cast("_Result", list(chain.from_iterable(cast("Any", results))))
