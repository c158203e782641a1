"""The order in which training images come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from misure.datasets.datamodule import KeyedSampler


@given(n=st.integers(1, 30), size=st.integers(1, 40), seed=st.integers(0, 5), epochs=st.integers(1, 4))
def test_epochs_are_slices_of_shuffled_passes(n, size, seed, epochs):
    order: list[int] = []
    for epoch in range(epochs):
        sampler = KeyedSampler(n, size, seed)  # as a resumed run makes it
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        assert len(drawn) == len(sampler) == size
        order += drawn
    for start in range(0, len(order) - n + 1, n):
        assert sorted(order[start : start + n]) == list(range(n))


def test_the_order_depends_on_seed_and_pass_alone():
    first, again, other = (list(KeyedSampler(50, 100, seed)) for seed in (0, 0, 1))
    assert first == again
    assert first[:50] not in (first[50:], other[:50])
