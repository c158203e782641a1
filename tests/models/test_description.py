"""What is said about a network, in the types that people have at hand: the right names and numbers, or one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import misure
from misure.errors import MisureError
from misure.models.description import class_index, names_of_classes, normalisation_of, wanted_classes


@pytest.mark.parametrize(
    "names",
    [
        ["void", "cyst", "organ"],
        np.array(["void", "cyst", "organ"]),
        pd.Series(["void", "cyst", "organ"]),
        (name for name in ("void", "cyst", "organ")),
        {0: "void", 1: "cyst", 2: "organ"},
        {"0": "void", "2": "organ", "1": "cyst"},
        {np.int64(2): np.str_("organ"), 0.0: "void", torch.tensor(1): "cyst"},
        {"void": 0, "cyst": 1, "organ": 2},
    ],
    ids=lambda names: type(names).__name__,
)
def test_names_of_classes_in_every_form(names):
    found = names_of_classes(names)
    assert found == ("void", "cyst", "organ")
    assert {type(name) for name in found} == {str}
    assert [class_index(found, name, 3) for name in found] == [0, 1, 2]


def test_a_dictionary_may_leave_out_classes_and_a_list_may_not():
    found = names_of_classes({3: "organ", "1": "cyst"})
    assert found == ("class_0", "cyst", "class_2", "organ")
    assert class_index(found, "organ", 9) == 3
    assert names_of_classes({}) is names_of_classes([]) is names_of_classes(None) is None
    for names in (["cyst", "organ"], ["void", "cyst", "organ", "other"]):
        with pytest.raises(MisureError, match=f"class_names has {len(names)} names, the network 3 classes: name every"):
            class_index(names_of_classes(names), "organ", 3)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("abc", "class_names=abc is not a list of names"),
        (b"abc", "is not a list of names"),
        (3, "class_names=3 is not a list of names"),
        ([0, 1], "class_names: 0 is not a name"),
        (["a", None], "class_names: None is not a name"),
        ({-1: "a"}, "the number=-1 is not a whole number of at least 0"),
        ({10**9: "a"}, "the number 1000000000 is no class: at most 65536"),
        ({"a": "b"}, "class_names: a has no number of its own"),
        ({1: "a", "1": "b"}, "class_names: b has no number of its own"),
        ({0: None}, "class_names: None has no number of its own"),
    ],
)
def test_names_that_are_none(names, message):
    with pytest.raises(MisureError, match=message):
        names_of_classes(names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("orgn", "no class named 'orgn'; close names: organ"),
        ("Organ", "no class named 'Organ'; close names: organ"),
        ("door", "several classes named 'door'; give its number"),
    ],
)
def test_a_name_that_is_not_that_of_one_class(name, message):
    with pytest.raises(MisureError, match=message):
        class_index(("organ", "door", "door"), name, 3)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        *((two, [2, 2]) for two in (2, 2.0, np.int64(2), np.array(2), torch.tensor(2), torch.tensor([2.0]))),
        *((each, [1, 2]) for each in ([1, 2], (1.0, np.int8(2)), torch.tensor([1, 2]), np.array([1.0, 2.0]))),
        (np.str_("organ"), ["organ", "organ"]),
        (np.array(["cyst", "organ"]), ["cyst", "organ"]),
        (["organ", None], ["organ", None]),
        (None, [None, None]),
        (range(1, 3), [1, 2]),
    ],
    ids=repr,
)
def test_targets_in_every_form(target: Any, wanted: Any):
    found = wanted_classes(target, 2)
    assert found == wanted
    assert all(type(one) in {int, type(None)} or isinstance(one, str) for one in found)


@pytest.mark.parametrize(
    ("mean", "std", "found"),
    [
        (0.5, 2, ((0.5,), (2.0,))),
        ([0.1, 0.2, 0.3], torch.tensor([1.0, 2.0, 4.0]), ((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))),
        (np.zeros(3), np.float32(0.5), ((0.0, 0.0, 0.0), (0.5,))),
        ([torch.tensor(0.5)] * 3, (1,), ((0.5, 0.5, 0.5), (1.0,))),
    ],
)
def test_normalisations_in_every_form(mean, std, found):
    assert normalisation_of(mean, std, 3) == found


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (0, 0, "std=0 is not a number of at least 1e-12"),
        (0, [1, 0.0, 1], "std=0.0 is not"),
        (0, -1, "std=-1 is not"),
        (float("nan"), 1, "mean=nan is not"),
        (0, [float("inf")], "std=inf is not"),
        ("0.5", 1, "mean=0.5 is not a number"),
        ([None], 1, "mean=None is not"),
        ([], 1, "mean=None is not"),
        ([0] * 3, [1] * 2, "mean is for 3 channels, std for 2, and the network takes 3"),
        ([0] * 4, [1] * 4, "mean is for 4 channels, std for 4, and the network takes 3"),
    ],
)
def test_a_normalisation_that_is_none_is_not_blamed_on_the_network(mean, std, message):
    with pytest.raises(MisureError, match=message):
        misure.SegmentationModel(nn.Identity(), mean=mean, std=std, in_channels=3)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("net.pt", "the model is a path, net.pt: load it with misure.load_model"),
        (Path("net.pt"), "the model is a path"),
        (nn.Conv2d(1, 2, 1).state_dict(), "the model is a dictionary, such as weights alone: build the network"),
        (nn.Identity, r"the model is the class Identity: make a network of it, Identity\(...\)"),
        (None, "the model is a NoneType"),
        (torch.zeros(1), "the model is a Tensor: give an nn.Module, or a function"),
    ],
    ids=["text", "path", "weights", "class", "none", "tensor"],
)
def test_what_is_no_network_says_what_to_do(network, message):
    with pytest.raises(MisureError, match=message):
        misure.explain(network, torch.ones(1, 4, 4), 1)
