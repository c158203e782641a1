"""A lent network comes back exactly as it was, and so does the random state."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
import torch
from oracles.toys import Convolutional
from torch import nn

from misure.models.compute import Compute
from misure.models.wrapper import SegmentationModel, frozen

CPU = torch.device("cpu")


def snapshot(network: nn.Module) -> dict:
    """Everything about a network and the random state that must survive."""
    return {
        "training": [m.training for m in network.modules()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in network.modules()
        ],
        "requires_grad": [p.requires_grad for p in network.parameters()],
        "storage": [(id(p), p.data_ptr(), p.stride()) for p in network.parameters()],
        "grad": [(id(p.grad), None if p.grad is None else p.grad.tolist()) for p in network.parameters()],
        "values": {name: value.tolist() for name, value in network.state_dict().items()},
        "torch": torch.random.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
        "grad_mode": torch.is_grad_enabled(),
    }


def lived_in() -> Convolutional:
    """A network in the middle of training: mixed flags, hooks, gradients and frozen weights."""
    toy = Convolutional()
    toy.train()
    toy.features[1].eval()
    toy.head.bias.requires_grad_(requires_grad=False)
    toy.head.register_forward_hook(lambda *_: None)
    toy(torch.randn(2, 1, 9, 9, generator=torch.Generator().manual_seed(0))).sum().backward()
    return toy


def disturb(network) -> None:
    """Use the network, and every source of randomness."""
    assert not network.model.module.training
    assert not any(p.requires_grad for p in network.model.module.parameters())
    network(torch.ones(2, 1, 9, 9))
    network.batches(torch.ones(1, 9, 9))
    torch.rand(3)
    np.random.random()  # noqa: NPY002
    random.random()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("error", [None, KeyError()])
def test_a_lent_network_comes_back_exactly_as_it_was(channels_last, error):
    toy = lived_in()
    before = snapshot(toy)
    with (
        contextlib.suppress(KeyError),
        frozen(SegmentationModel(toy), Compute("32", channels_last=channels_last), CPU) as network,
    ):
        weight = toy.features[0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last) or not channels_last
        disturb(network)
        if error is not None:
            raise error
    assert snapshot(toy) == before


def test_training_goes_on_where_it_was():
    toy = lived_in()
    optimiser = torch.optim.SGD(toy.parameters(), lr=0.1)
    before = toy.features[0].weight.clone()
    with frozen(SegmentationModel(toy), Compute("32"), CPU):
        pass
    optimiser.step()
    torch.testing.assert_close(toy.features[0].weight, before - 0.1 * toy.features[0].weight.grad)
