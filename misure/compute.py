"""How the arithmetic is done: precision, batch size, memory format. Never what is computed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import psutil
import torch

from misure.errors import MisureError

Precision = Literal["32", "bf16"]
_Result = TypeVar("_Result")

_LARGEST_AUTOMATIC_BATCH = {"cpu": 8, "cuda": 64}
"""More brings nothing even for small images."""

_CPU_WORKING_SET = 256 << 20
"""Bytes of activations beyond which a CPU's caches overflow: a VGG-16 U-Net at 224 x 224 took 0.61 s an image for a
forward pass and gradient one by one, 0.62 s in batches of 4 and 0.70 s in batches of 8 (2 cores, 32 MB cache)."""

_MEMORY_SHARE = 0.4
"""Share of the free memory that activations may take; the rest is for weights, workspaces and other programs."""


@dataclass(frozen=True)
class Compute:
    """Resources of an explanation. Results do not depend on them beyond rounding.

    Attributes:
        precision: ``"32"``, ``"bf16"`` or ``"auto"``, which takes bfloat16 only where the hardware is
            fast at it (CUDA compute capability 8 or later, CPUs with AVX512-BF16 or AMX).
        batch_size: Perturbed images per forward pass, or ``"auto"`` to choose by free memory.
        channels_last: Lend the network channels-last weights while it explains (4-D weights only).
        winograd: Whether methods of many float32 passes on a CPU may use :mod:`misure.winograd`;
            ``"auto"`` only where it was measured to pay off.
        fold: Whether methods of many passes may fold batch normalisation into the convolution before it.
    """

    precision: str = "auto"
    batch_size: int | str = "auto"
    channels_last: bool = True
    winograd: bool | str = "auto"
    fold: bool = True

    def __post_init__(self) -> None:
        if self.winograd not in {True, False, "auto"}:
            raise MisureError(f"winograd={self.winograd} is not known: choose true, false or auto")
        if not isinstance(self.fold, bool):
            raise MisureError(f"fold={self.fold} is not known: choose true or false")
        object.__setattr__(self, "precision", str(self.precision))
        if self.precision not in {"32", "bf16", "auto"}:
            raise MisureError(f"precision={self.precision} is not known: choose 32, bf16 or auto")
        if self.batch_size != "auto" and (not isinstance(self.batch_size, int) or self.batch_size < 1):
            raise MisureError(f"batch_size={self.batch_size} is not a positive integer or auto")

    def resolve_precision(self, device: torch.device) -> Precision:
        """Say which precision is used on a device."""
        if self.precision == "auto":
            return "bf16" if is_fast_at_bfloat16(device) else "32"
        return "bf16" if self.precision == "bf16" else "32"


def is_fast_at_bfloat16(device: torch.device) -> bool:
    """Say whether bfloat16 arithmetic is native on the device rather than emulated."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, check, bool)() for check in checks)
    return False


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
