"""Recall: what was computed once is the same later, its seconds count, and it is kept only where it holds."""

from __future__ import annotations

import itertools

import pytest
import torch
from oracles.toys import Convolutional

from misure.explainers import make_explainer
from misure.models.compute import Compute
from misure.models.recall import Recall, digest
from misure.models.wrapper import SegmentationModel, frozen
from misure.target import make_targets

CPU = torch.device("cpu")
IMAGES = torch.randn(3, 1, 33, 21, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 2, 9, 4)])
def test_packed_maps_come_back_with_counts_and_seconds(shape):
    maps = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.5
    recall = Recall()
    recall.keep("key", maps, torch.arange(len(maps)), 1.5)
    found, counts, seconds = recall.find("key", CPU)
    assert torch.equal(found, maps)
    assert torch.equal(counts, torch.arange(len(maps)))
    assert seconds == 1.5
    assert recall.held == -(-maps.numel() // 8)
    assert recall.find("other", CPU) is None


def test_what_was_asked_for_longest_ago_goes_first():
    recall = Recall(capacity=25)
    for key in "abc":
        recall.keep(key, torch.ones(1, 8, 8, dtype=torch.bool), torch.zeros(1), 0.0)  # 8 bytes each
    recall.find("a", CPU)
    recall.keep("d", torch.ones(1, 8, 8, dtype=torch.bool), torch.zeros(1), 0.0)
    assert [key for key in "abcd" if recall.find(key, CPU)] == ["a", "c", "d"]
    assert recall.held == 24
    recall.keep("too large", torch.ones(1, 15, 15, dtype=torch.bool), torch.zeros(1), 0.0)
    assert recall.held == 0


def test_tensors_differ_by_type_shape_and_value():
    zeros = torch.zeros(2, 3)
    others = [torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.int32), torch.full((2, 3), -0.0), torch.zeros(6)]
    assert len({digest([tensor]) for tensor in [zeros, *others]}) == 5
    assert digest([zeros.T]) == digest([torch.zeros(3, 2)])


@pytest.mark.parametrize("batch", [slice(0, 1), slice(0, 3)])
@pytest.mark.parametrize("first", ["sufficient_region", "msr", "extremal_perturbation"])
def test_recalled_regions_change_no_bit(first, batch):
    """Whichever method found them; a real convolution, in the batch in which they were found."""
    settings = {"sufficient_region": {}, "msr": {"n_iterations": 3}, "extremal_perturbation": {"n_iterations": 3}}
    methods = [make_explainer(name, tau=0.8, **settings[name]) for name in dict.fromkeys([first, *settings])]
    model, images = SegmentationModel(Convolutional(seed=3)), IMAGES[batch]
    with frozen(model, Compute("32"), CPU) as network:
        targets = make_targets(network, images, 1)
    expected, found = [], []
    for of, recall in ((expected, None), (found, Recall())):
        model.recall = recall
        of += [explanation for method in methods for explanation in method.explain(model, images, targets)]
    assert len(model.recall._kept) == 1
    assert max(one.n_dilations for one in found) > 0
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.saliency, other.saliency)
        assert torch.equal(one.sufficient_region, other.sufficient_region)
        assert (one.n_dilations, one.curve, one.evaluations) == (other.n_dilations, other.curve, other.evaluations)


def lent(network, recall, times=2):
    """Lend a network several times for a pass and the same work; return how often it was done, and the seconds."""
    model, done, seconds = SegmentationModel(network), [], []

    def work():
        done.append(1)
        return torch.ones(1, 2, 2, dtype=torch.bool), torch.zeros(1)

    model.recall = recall
    for _ in range(times):
        with frozen(model, Compute("32"), CPU) as given, given.expecting_nan():
            given(IMAGES[:1])
            given.recalled(work, [IMAGES[:1]], "settings")
            seconds.append(given.seconds_recalled)
    return len(done), seconds


def test_seconds_are_those_that_the_work_took(monkeypatch):
    clock = itertools.count(step=7.0)
    monkeypatch.setattr("misure.models.wrapper.now", lambda _device: next(clock))
    assert lent(Convolutional(), Recall(), times=3) == (1, [0, 7, 7])


@pytest.mark.filterwarnings("ignore:.*is random in evaluation mode:RuntimeWarning")
@pytest.mark.parametrize(
    ("network", "recall"),
    [
        (Convolutional(), None),
        (lambda x: torch.rand(1, 2, *x.shape[2:]), Recall()),
        (lambda x: torch.full((1, 2, *x.shape[2:]), torch.nan), Recall()),
    ],
    ids=["none", "random", "NaN"],
)
def test_nothing_is_recalled_of_a_network_that_may_change_is_random_or_unsound(network, recall):
    assert lent(network, recall) == (2, [0, 0])
