"""The order in which training images come."""

from __future__ import annotations

from itertools import chain
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from misure.datasets.datamodule import KeyedSampler, SegmentationData


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
        assert sorted(order[start : start + n]) == list(range(start, start + n))


def test_the_order_depends_on_seed_and_pass_alone():
    first, again, other = ([place % 50 for place in KeyedSampler(50, 100, seed)] for seed in (0, 0, 1))
    assert first == again
    assert first[:50] not in (first[50:], other[:50])


class Numbers(list):
    """A dataset whose entries are their own numbers."""


@given(n=st.integers(1, 9), samples=st.integers(6, 30), devices=st.sampled_from([1, 2, 3]), validated=st.integers(1, 9))
def test_devices_share_the_batches_and_the_validation_of_one(n, samples, devices, validated):
    def of_device(device: int, devices: int) -> tuple[list[list[int]], list[int]]:
        data = SegmentationData(
            Numbers(range(n)), Numbers(range(n)), batch_size=6, samples_per_epoch=samples, validation_samples=validated
        )
        data.trainer = SimpleNamespace(global_rank=device, world_size=devices)
        batches = [batch.tolist() for batch in data.train_dataloader()]
        return batches, [i for batch in data.val_dataloader() for i in batch.tolist()]

    whole, validation = of_device(0, 1)
    shares = [of_device(device, devices) for device in range(devices)]
    together = [list(chain(*parts)) for parts in zip(*(batches for batches, _ in shares), strict=True)]
    assert [sorted(batch) for batch in together] == [sorted(batch) for batch in whole]
    assert {len(part) for batches, _ in shares for part in batches} == {6 // devices}
    in_turns = [i for turn in zip(*(validated for _, validated in shares), strict=True) for i in turn]
    assert in_turns[: len(validation)] == validation
    assert len(in_turns) - len(validation) < devices
