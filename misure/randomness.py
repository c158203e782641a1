"""Counter-based random numbers: a draw depends on its key alone.

A key is a tuple of integers such as ``(seed, mask index, cell)``. The same key gives the same
number on every device, for every batch size, worker count and resume, which a stateful
generator cannot promise.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_MANTISSA_BITS = 53


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical right shift of signed 64-bit integers (torch's own shift keeps the sign)."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _splitmix64(value: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), modulo 2**64."""
    value = value + _GOLDEN
    value = (value ^ _shift_right(value, 30)) * _MIX_1
    value = (value ^ _shift_right(value, 27)) * _MIX_2
    return value ^ _shift_right(value, 31)


def uniform(*key: int | Tensor) -> Tensor:
    """Draw uniform numbers keyed by integers.

    Args:
        *key: Integers or int64 tensors that broadcast together, most significant first.

    Returns:
        float64 tensor in [0, 1) of the broadcast shape, on the tensors' device.
    """
    state: Tensor | None = None
    for part in key:
        counter = torch.as_tensor(part, dtype=torch.int64) * _GOLDEN
        state = _splitmix64(counter if state is None else state ^ counter)
    if state is None:
        raise ValueError("uniform() needs at least one integer as its key")
    return _shift_right(state, 64 - _MANTISSA_BITS).to(torch.float64) / (1 << _MANTISSA_BITS)


def integers(low: int, high: int, *key: int | Tensor) -> Tensor:
    """Draw integers from ``low`` to ``high`` inclusive, keyed like :func:`uniform`."""
    return low + (uniform(*key) * (high - low + 1)).floor().to(torch.int64)


def normal(*key: int | Tensor) -> Tensor:
    """Draw standard normal numbers, keyed like :func:`uniform`."""
    normals: Tensor = torch.special.ndtri(uniform(*key).clamp(2.0**-_MANTISSA_BITS, 1 - 2.0**-_MANTISSA_BITS))
    return normals


def permutation(n: int, *key: int) -> Tensor:
    """Shuffle ``range(n)`` on the CPU, keyed like :func:`uniform`.

    A permutation's start does not depend on how much of it is used, so the first samples of a
    small profile are also the first samples of a large one.
    """
    return uniform(*key, torch.arange(n)).argsort(stable=True)
