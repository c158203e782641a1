"""Modules and generators of random numbers are found wherever a callable keeps them."""

# ruff: noqa: PLW0108, PLC3002 - functions around a network are what is tested

from __future__ import annotations

import functools
import random
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from misure.models.hidden import found_in

NETWORK = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
ELSEWHERE = SimpleNamespace(models={"a": [NETWORK]})


def by_global(x):
    return NETWORK(x)


def by_helper(x):
    return by_global(x).relu()


def of_global_object(x):
    return ELSEWHERE.models["a"][0](x)


class Holder:
    """An object with its network in a list of a dictionary."""

    def __init__(self, network):
        self.config = {"networks": [(network,)]}

    def __call__(self, x):
        return self.config["networks"][0][0](x)


class Slotted:
    __slots__ = ("network",)

    def __init__(self, network):
        self.network = network

    def run(self, x):
        return self.network(x)


class OfClass:
    network = NETWORK

    @classmethod
    def run(cls, x):
        return cls.network(x)

    @property
    def found(self):
        return NETWORK

    def __call__(self, x):
        return self.found(x)


class Unregistered(nn.Module):
    """A module with parts that PyTorch does not see."""

    def __init__(self, network):
        super().__init__()
        self.blocks = [network]

    def forward(self, x):
        return self.blocks[0](x)


def decorated(wrapper):
    return lambda network: wrapper(lambda x: network(x))


WRAPPERS = {
    "function": lambda n: lambda x: n(x),
    "function in a function": lambda n: lambda x: (lambda y: n(y))(x),
    "default argument": lambda n: lambda x, n=n: n(x),
    "bound method": lambda n: n.forward,
    "partial": lambda n: functools.partial(n.forward),
    "partial of a function with it": lambda n: functools.partial(lambda network, x: network(x), n),
    "functional call": lambda n: functools.partial(torch.func.functional_call, n, dict(n.named_parameters())),
    "callable object": Holder,
    "method of an object with slots": lambda n: Slotted(n).run,
    "partial of a method": lambda n: functools.partial(Slotted(n).run),
    "class method": lambda _: OfClass.run,
    "property": lambda _: OfClass(),
    "no_grad": decorated(torch.no_grad()),
    "inference_mode": decorated(torch.inference_mode()),
    "autocast": decorated(torch.autocast("cpu")),
    "lru_cache": decorated(functools.lru_cache),
    "vmap": lambda n: torch.vmap(lambda x: n(x[None])[0]),
    "compiled function": decorated(functools.partial(torch.compile, backend="eager")),
    "weak reference": lambda n: (lambda reference: lambda x: reference()(x))(weakref.ref(n)),
    "global": lambda _: by_global,
    "function among the globals": lambda _: by_helper,
    "object among the globals": lambda _: of_global_object,
    "itself": lambda n: n,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_the_module_is_found_once(wrap):
    modules, generators = found_in(wrap(NETWORK))
    assert [id(module) for module in modules] == [id(NETWORK)]
    assert generators == []


def test_a_module_within_another_is_a_part_of_it_and_an_unregistered_one_is_not():
    outer = nn.Sequential(NETWORK)
    assert found_in(lambda x: NETWORK(outer(x)))[0] == [outer]
    unregistered = Unregistered(NETWORK)
    assert found_in(unregistered)[0] == [unregistered, NETWORK]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_method_of_torchscript_leads_to_its_module():
    script = torch.jit.script(nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)))
    (module,), _ = found_in(script.forward)
    assert {p.data_ptr() for p in module.parameters()} == {p.data_ptr() for p in script.parameters()}


@pytest.mark.parametrize(
    "generator",
    [torch.Generator(), np.random.default_rng(), np.random.RandomState(1), random.Random(1)],
    ids=type,
)
def test_generators_are_found_in_functions_objects_and_modules(generator):
    network = nn.Sequential(nn.ReLU())
    network[0].generator = generator
    for drawing in (lambda x: (x, generator), Slotted(generator).run, network, lambda x: network(x)):
        assert found_in(drawing)[1] == [generator]


@pytest.mark.parametrize("network", [lambda x: torch.sigmoid(x), torch.sigmoid, abs, random.SystemRandom().random])
def test_nothing_is_found_where_there_is_nothing(network):
    assert found_in(network) == ([], [])


def test_a_global_that_only_shares_an_attribute_s_name_is_a_stranger():
    holder = SimpleNamespace(NETWORK=nn.Conv2d(1, 2, 1))

    def run(x):
        return holder.NETWORK(x)

    assert found_in(run)[0] == [holder.NETWORK]
