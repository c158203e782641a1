"""SplitMix64 with Python integers."""

from __future__ import annotations

_ALL = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def splitmix64(value: int) -> int:
    value = (value + _GOLDEN) & _ALL
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _ALL
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _ALL
    return value ^ (value >> 31)


def uniform(*key: int) -> float:
    state = 0
    for part in key:
        state = splitmix64(state ^ ((part * _GOLDEN) & _ALL))
    return (state >> 11) / 2.0**53


def integer(low: int, high: int, *key: int) -> int:
    return low + int(uniform(*key) * (high - low + 1))
