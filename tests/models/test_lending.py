"""A lent network comes back exactly as it was, and so does the random state."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
import torch
from oracles.toys import Convolutional
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import misure
from misure.models.compute import Compute
from misure.models.lending import own_copy
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
@pytest.mark.parametrize("error", [None, KeyError(), KeyboardInterrupt()])
def test_a_lent_network_comes_back_exactly_as_it_was(channels_last, error):
    toy = lived_in()
    before = snapshot(toy)
    with (
        contextlib.suppress(KeyError, KeyboardInterrupt),
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


class Overriding(Convolutional):
    """A module whose ``eval`` does something of its own."""

    def __init__(self, own):
        super().__init__()
        self.own = own

    def eval(self):
        return self.own(super().eval())


def raising(error):
    def own(_network):
        raise error

    return own


@pytest.mark.parametrize("error", [KeyError("none"), KeyboardInterrupt(), RuntimeError("no evaluation mode")])
def test_a_network_that_fails_while_it_is_lent_comes_back(error):
    network = Overriding(raising(error)).train()
    before = snapshot(network)
    with pytest.raises(type(error)), frozen(SegmentationModel(network), Compute("32"), CPU):
        pass
    assert snapshot(network) == before


def test_one_part_that_cannot_be_given_back_does_not_keep_the_others():
    class Stuck(nn.Conv2d):
        def __setattr__(self, name, value):
            if name == "training" and value and self.__dict__.get("stuck"):
                raise AttributeError("stuck")
            super().__setattr__(name, value)

    toy = lived_in()
    toy.head.__class__ = Stuck
    before = snapshot(toy)
    toy.head.stuck = True
    with pytest.raises(AttributeError, match="stuck"), frozen(SegmentationModel(toy), Compute("32"), CPU):
        pass
    toy.head.stuck = False
    toy.head.training = True
    assert snapshot(toy) == before


def test_a_network_without_modes_is_lent_as_it_is():
    toy = Convolutional().eval()
    program = torch.export.export(toy, (torch.zeros(2, 1, 9, 9),)).module()  # its eval() is not implemented
    with frozen(SegmentationModel(program), Compute("32"), CPU) as network:
        torch.testing.assert_close(network(torch.ones(2, 1, 9, 9)), toy(torch.ones(2, 1, 9, 9)).detach())


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_frozen_torchscript_is_lent_as_it_is():
    toy = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).eval()
    program = torch.jit.freeze(torch.jit.script(toy))  # without parameters and modes
    with frozen(SegmentationModel(program), Compute("32"), CPU) as network:
        torch.testing.assert_close(network(torch.ones(2, 1, 9, 9)), toy(torch.ones(2, 1, 9, 9)).detach())


def statistics(network):
    return {name: value.clone() for name, value in network.named_buffers()}


@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: n.forward, lambda n: lambda x: n(x)])  # noqa: PLW0108
def test_statistics_that_a_network_changes_by_itself_are_given_back(wrap):
    class Stubborn(Convolutional):
        def forward(self, x):
            self.features[1].train()
            return super().forward(x)

    toy = Stubborn()
    model = SegmentationModel(wrap(toy))
    before, identities = statistics(toy), [id(buffer) for buffer in toy.buffers()]
    with frozen(model, Compute("32"), CPU) as network:
        network(torch.rand(2, 1, 9, 9))
        assert not torch.equal(toy.features[1].running_mean, before["features.1.running_mean"])
    assert all(torch.equal(value, before[name]) for name, value in toy.named_buffers())
    assert [id(buffer) for buffer in toy.buffers()] == identities


class Merging(Convolutional):
    """Merges weights in evaluation mode, as adapters of low rank do."""

    merged = False

    def train(self, mode=True):
        if self.merged == mode:
            self.head.weight.data += -0.5 if mode else 0.5
            self.merged = not mode
        return super().train(mode)


class Constrained(Convolutional):
    def forward(self, x):
        for parameter in self.parameters():
            parameter.data *= 0.5
        return super().forward(x)


class Remembering(Convolutional):
    def __init__(self):
        super().__init__()
        self.register_buffer("grid", None)
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x):
        self.grid = torch.zeros(x.shape[2:]) if self.grid is None else self.grid
        self.last.resize_(x.shape[-1]).fill_(3)
        self.register_buffer("late", torch.zeros(2))
        self.extra = nn.Conv2d(1, 1, 1)
        return super().forward(x + self.grid)


class Reporting(Convolutional):
    def parameters(self):
        return iter([self.head.weight])  # those that are trained


class OnGraph(Convolutional):
    def __init__(self, layout):
        super().__init__()
        self.register_buffer("graph", torch.eye(9).to_sparse(layout=layout))

    def forward(self, x):
        rows = x.movedim(2, 0)
        return super().forward((self.graph @ rows.flatten(1)).view(rows.shape).movedim(0, 2))


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:.*random in evaluation mode")
@pytest.mark.parametrize(
    "make",
    [
        Merging,
        Constrained,
        Remembering,
        Reporting,
        lambda: OnGraph(torch.sparse_coo),
        lambda: OnGraph(torch.sparse_csr),
    ],
    ids=["merging", "constrained", "remembering", "reporting", "coo", "csr"],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_what_a_network_does_to_itself_is_undone(make, channels_last):
    def state():
        tensors = {name: t.to_dense().tolist() for name, t in toy.state_dict().items()}
        storage = [(id(p), p.data_ptr(), p.stride(), p.requires_grad) for p in nn.Module.parameters(toy)]
        return tensors, storage, [m.training for m in toy.modules()], getattr(toy, "merged", None)

    toy = make().train()
    before = state()
    with frozen(SegmentationModel(toy), Compute("32", channels_last=channels_last), CPU) as network:
        network(torch.ones(2, 1, 9, 9))
        with network.folded(torch.ones(1, 9, 9)):
            network(torch.ones(2, 1, 9, 9))
        assert getattr(toy, "merged", True)
    assert state() == before


def test_a_network_made_in_inference_mode_gives_gradients():
    with torch.inference_mode():
        toy = Convolutional()
    tensors = {name: id(tensor) for name, tensor in (*toy.named_parameters(), *toy.named_buffers())}
    images = torch.rand(1, 1, 9, 9).requires_grad_()
    with frozen(SegmentationModel(toy), Compute("32"), CPU) as network:
        (gradient,) = torch.autograd.grad(network(images).sum(), images)
    assert gradient.abs().sum() > 0
    assert {name: id(tensor) for name, tensor in (*toy.named_parameters(), *toy.named_buffers())} == tensors


@pytest.mark.parametrize("parametrise", [weight_norm, spectral_norm])
def test_parametrised_and_shared_weights_come_back(parametrise):
    toy = lived_in()
    parametrise(toy.bottleneck)
    toy.again = nn.Conv2d(6, 5, 3)
    toy.again.weight = toy.features[0].weight
    before = snapshot(toy)
    with frozen(SegmentationModel(toy), Compute("32"), CPU) as network:
        disturb(network)
    assert snapshot(toy) == before


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.LazyConv2d(2, 1)), "a lazy layer of the network has no weights yet: run it once on an image"),
        (nn.Sequential(nn.Conv2d(1, 2, 1), nn.LazyBatchNorm2d()), "a lazy layer of the network has no weights yet"),
        (nn.Conv2d(1, 2, 1, device="meta"), "the network is on the meta device, without weights"),
        (nn.BatchNorm2d(1, affine=False, device="meta"), "the network is on the meta device, without weights"),
    ],
)
def test_a_network_without_weights_is_one_line(network, message):
    for given in (network, network.forward):
        with pytest.raises(misure.MisureError, match=message):
            misure.explain(given, torch.zeros(1, 8, 8), 1, "rise", n_masks=2)


def test_weights_that_cannot_be_channels_last_stay_as_they_are():
    toy = Convolutional()
    toy.table = nn.Parameter(torch.zeros(2, 2, 2, 2).to_sparse(), requires_grad=False)
    with frozen(SegmentationModel(toy), Compute("32"), CPU):
        assert toy.table.is_sparse
        assert toy.features[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [None, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_convolutions_take_a_copy_for_channels_last(channels, dtype):
    """Images of one channel are contiguous in both formats, and their strides alone tell them apart."""
    images = torch.rand(2, channels, 4, 5)
    copy = own_copy(images, dtype, channels_last=True)
    assert copy.stride() == (20 * channels, 1, 5 * channels, channels)
    assert copy.data_ptr() != images.data_ptr()
    assert torch.equal(copy, images.to(copy.dtype))
    assert nn.Conv2d(channels, 8, 3, dtype=copy.dtype)(copy).stride()[1] == 1
    assert own_copy(images, dtype, channels_last=False).stride() == images.stride()
