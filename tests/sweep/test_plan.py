"""The plan: what is shared, what is there, and which holes a lack of time leaves."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sweep_runner import plain

from misure.sweep import runner as module
from misure.sweep.announce import _distinct, _sharing
from misure.sweep.outlook import outlooks
from misure.sweep.plan import rounds
from misure.sweep.records import Outcome, RecordStore
from misure.sweep.runner import Runner
from misure.sweep.sampling import PredictedObjects


def run_with_time(monkeypatch, costs: list[float], sizes: list[int], budget: float) -> tuple[list[int], int]:
    """Return how many samples of each experiment were explained, where each takes exactly what is estimated."""
    clock, done = [0.0], [0] * len(costs)
    planned = [plain(str(i), n) for i, n in enumerate(sizes)]
    pace = SimpleNamespace(explaining=lambda e: costs[int(e.explainer.name)])
    store = SimpleNamespace(has=lambda _: False, outcome=lambda _: Outcome())
    runner = Runner(store, {}, {"d-m": pace}, budget)

    def explain(experiment, samples):
        index = int(experiment.explainer.name)
        clock[0] += costs[index] * len(samples)
        done[index] += len(samples)

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(module, "images_per_step", lambda _: 1)
    monkeypatch.setattr(type(plain("0", 1)), "label", "toy")
    monkeypatch.setattr(Runner, "samples", lambda _self, _e, ranks: list(ranks))
    monkeypatch.setattr(Runner, "unit", lambda _self, _e, sample: sample)
    monkeypatch.setattr(Runner, "_explain", lambda _self, e, samples: explain(e, samples))
    return done, runner.run(planned).left


def test_time_that_ends_in_the_first_round_leaves_holes_in_the_last_sweeps_alone(monkeypatch):
    costs = [1.0] * 20 + [50.0] + [0.1] * 19  # a slow one amid forty; the cheap ones come after it
    done, left = run_with_time(monkeypatch, costs, [1 + i % 7 for i in range(40)], budget=30)
    assert done == [1] * 20 + [0] * 20
    assert left == sum(1 + i % 7 for i in range(40)) - 20


def test_an_experiment_that_waits_begins_when_the_others_have_their_share():
    first, second, waiting = plain("0", 4), plain("1", 1), replace(plain("2", 2), after=0.5)
    order = [(e.explainer.name, ranks.start) for e, ranks in rounds([first, second, waiting], 1)]
    assert order == [("0", 0), ("1", 0), ("0", 1), ("0", 2), ("2", 0), ("0", 3), ("2", 1)]


@given(sizes=st.lists(st.integers(1, 24), min_size=40, max_size=40), stop=st.integers(0, 500))
def test_forty_experiments_have_the_same_share_whenever_it_stops(sizes, stop):
    planned = [plain(str(i), n) for i, n in enumerate(sizes)]
    done = [0] * len(sizes)
    for experiment, ranks in rounds(planned, 1)[:stop]:
        done[int(experiment.explainer.name)] += len(ranks)
    started = [n > 0 for n in done]
    assert started == sorted(started, reverse=True)  # the first round goes through the sweeps in their order
    begun = [(n - 1) / of for n, of in zip(done, sizes, strict=True) if n]
    due = [n / of for n, of in zip(done, sizes, strict=True) if n < of]
    assert max(begun, default=0) <= min(due, default=1)  # nobody began a step while another was owed an earlier one


def test_what_sweeps_share_is_said_once():
    msr, slow = plain("msr", 6, lr=0.1), plain("msr", 6, lr=0.001)
    wide = replace(plain("msr", 10, lr=0.1), sampling=PredictedObjects(per_class=600))
    requested = [("table1", msr), ("table2", slow), ("table2", msr), ("table7", wide)]
    assert list(_sharing(requested)) == ["  table1, table2, table7 share records: d-m msr"]
    assert _distinct([msr, slow, wide]) == 16


@pytest.mark.parametrize("sizes", [(6, 10), (10, 6)])
def test_without_a_network_all_is_to_do_and_nothing_twice(tmp_path, monkeypatch, sizes):
    monkeypatch.setattr("misure.sweep.outlook.is_at_hand", lambda _: False)
    planned = [
        plain("msr", sizes[0]),
        replace(plain("msr", sizes[1]), sampling=PredictedObjects(per_class=600)),
        plain("rise", 3),
    ]
    found = list(outlooks(planned, RecordStore(tmp_path)))
    assert sum(outlook.to_do for outlook in found) == 10 + 3
    assert not any(outlook.done or outlook.skipped or outlook.failed for outlook in found)
