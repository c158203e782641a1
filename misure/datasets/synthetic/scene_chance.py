"""Draws for generated scenes: every object and texture has a key of its own, and numbers in order under it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from misure.randomness import uniform

Choice = TypeVar("Choice")

_BLOCK = 256  # numbers made at once


class Chance:
    """Numbers drawn one after another under a key.

    Args:
        *key: Integers such as (seed, split, scene, object); other keys do not change what is drawn.
    """

    def __init__(self, *key: int) -> None:
        self.key = key
        self._numbers = self._endless()

    def number(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw evenly from ``low`` to ``high``."""
        return low + (high - low) * next(self._numbers)

    def integer(self, low: int, high: int) -> int:
        """Draw an integer from ``low`` to ``high`` inclusive."""
        return low + int(next(self._numbers) * (high - low + 1))

    def pick(self, options: Sequence[Choice]) -> Choice:
        """Draw one of some options."""
        return options[self.integer(0, len(options) - 1)]

    def happens(self, share: float) -> bool:
        """Whether something happens that does so in a share of all cases."""
        return next(self._numbers) < share

    def many(self, count: int) -> NDArray[np.float32]:
        """Draw many independent numbers from -1 to 1 at once."""
        values = uniform(*self.key, self.integer(0, 2**40), torch.arange(count))
        return (2 * values.numpy() - 1).astype(np.float32)

    def _endless(self) -> Iterator[float]:
        for start in itertools.count(0, _BLOCK):
            yield from uniform(*self.key, torch.arange(start, start + _BLOCK)).tolist()
