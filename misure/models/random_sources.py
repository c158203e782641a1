"""Sources of random numbers that a network may draw from: their states, kept, seeded and compared."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class RandomSources:
    """The generators of torch, NumPy and Python, and those that a network holds itself.

    Args:
        device: Where the images are.
        own: The network's.
    """

    def __init__(self, device: torch.device, own: Sequence[Any] = ()) -> None:
        index = 0 if device.index is None else device.index
        on_device = torch.cuda.default_generators[index : index + 1] if device.type == "cuda" else ()
        self.generators: list[Any] = [torch.default_generator, *on_device, np.random, random, *own]

    def states(self) -> list[Any]:
        """Return the states."""
        return [_state(generator) for generator in self.generators]

    def restore(self, states: Sequence[Any]) -> None:
        """Set the states."""
        for generator, state in zip(self.generators, states, strict=True):
            _set_state(generator, state)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Give the states back afterwards."""
        states = self.states()
        try:
            yield
        finally:
            self.restore(states)

    def seed(self, seed: int) -> None:
        """Set all of them by one number."""
        for generator in self.generators:
            _seed(generator, seed % (1 << 32))

    def changed(self, states: Sequence[Any]) -> list[str]:
        """Name the packages of the generators that have other states than these."""
        pairs = zip(self.generators, states, strict=True)
        names = [_name(generator) for generator, state in pairs if not _equal(_state(generator), state)]
        return list(dict.fromkeys(names))


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    is_python = generator is random or isinstance(generator, random.Random)
    return generator.getstate() if is_python else generator.get_state()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif generator is random or isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def _seed(generator: Any, seed: int) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
    elif isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    else:
        generator.seed(seed)


def _name(generator: Any) -> str:
    package = (
        type(generator).__module__ if generator is not np.random and generator is not random else generator.__name__
    )
    return {"torch": "torch", "numpy": "NumPy"}.get(package.partition(".")[0], "Python")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return all(_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, tuple) and any(isinstance(value, np.ndarray) for value in one):
        return all(_equal(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)
