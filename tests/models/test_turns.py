"""Threads that explain one network get what each would get alone, and the network comes back."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from forked import forked
from oracles.toys import Convolutional

import misure
from misure.models.turns import Turns

METHODS = {
    "rise": {"n_masks": 30},
    "msr": {"mask_size": 8, "n_iterations": 5},
    "smooth_grad": {"n_samples": 4},
    "sufficient_region": {},
}
IMAGE = torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(0))


def explained(network, method, watch=None):
    return misure.explain(network, IMAGE, 1, method, precision="32", watch=watch, **METHODS[method])


@pytest.mark.parametrize("watch", [None, lambda _: time.sleep(0.001)], ids=["alone", "watched"])
@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: n.forward], ids=["module", "method"])
def test_threads_explain_one_network_as_if_alone(wrap, watch):
    network, found = Convolutional().train(), {}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    alone = {method: explained(network, method).saliency for method in METHODS}

    def work(method):
        found[method] = explained(wrap(network), method, watch)

    threads = [threading.Thread(target=work, args=(method,), daemon=True) for method in METHODS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for method in METHODS:
        torch.testing.assert_close(found[method].saliency, alone[method], rtol=0, atol=1e-4)
    assert all(part.training for part in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_watcher_may_wait_for_a_thread_that_explains_the_same_network():
    network, seen = Convolutional(), []

    def watch(_step):
        if not seen:
            thread = threading.Thread(target=lambda: seen.append(explained(network, "sufficient_region")), daemon=True)
            thread.start()
            thread.join(60)

    made = explained(network, "rise", watch)
    assert len(seen) == 1
    assert torch.equal(made.saliency, explained(network, "rise").saliency)


def test_networks_of_their_own_are_not_waited_for():
    turns, entered = Turns(), threading.Event()

    def other():
        with turns.taken(["other"]):
            entered.set()

    with turns.taken(["one"]):
        threading.Thread(target=other, daemon=True).start()
        assert entered.wait(60)


def test_a_forked_process_does_not_wait_for_threads_that_it_has_not():
    def child():
        with turns.taken(["network"]):
            pass

    turns, begin, end = Turns(), threading.Event(), threading.Event()

    def other():
        with turns.taken(["network"]):
            begin.set()
            end.wait(60)

    threading.Thread(target=other, daemon=True).start()
    begin.wait(60)
    with forked(child) as process:
        process.join(60)
        assert process.exitcode == 0
    end.set()


def test_threads_with_networks_of_their_own_give_the_random_state_back():
    lengths = {0.02: Convolutional(), 0.06: Convolutional()}  # made here, since drawing weights changes the state
    torch.manual_seed(42)
    before = torch.get_rng_state()
    begun = threading.Barrier(2)

    def work(seconds):
        begun.wait(60)
        misure.explain(lengths[seconds], IMAGE, 1, "prediction", watch=lambda _: time.sleep(seconds))

    threads = [threading.Thread(target=work, args=(seconds,), daemon=True) for seconds in lengths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert torch.equal(torch.get_rng_state(), before)
