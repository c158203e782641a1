"""The plan: what is merged, what is there, what sweeps share, and how the time is divided."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_runs import plain

from misure.sweep import plan as module
from misure.sweep.announcement import _distinct, _sharing
from misure.sweep.needs import Needs
from misure.sweep.pace import Pace
from misure.sweep.plan import Outlook, Plan, SetupPlan, merge, outlooks_of
from misure.sweep.records import RecordStore
from misure.sweep.sampling import PredictedObjects

plans = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.sampled_from([0.0, 1e-6])), max_size=6)


@given(plan=plans)
def test_merging_keeps_each_identity_once_with_most_samples(plan):
    merged = merge([plain(name, n, noise) for name, n, noise in plan])
    expected: dict[tuple[str, float], int] = {}
    for name, n, noise in plan:
        expected[name, noise] = max(n, expected.get((name, noise), 0))
    assert {(e.explainer.name, e.input_noise): e.n_samples for e in merged} == expected
    assert [(e.explainer.name, e.input_noise) for e in merged] == list(expected)


def test_more_samples_at_a_later_place_are_an_experiment_of_their_own():
    places = [(40, 1), (8, 0), (8, 2), (6, 0)]
    merged = merge([replace(plain("msr", n), after=after) for n, after in places])
    assert [(e.n_samples, e.after) for e in merged] == [(40, 1), (8, 0)]


def test_parameters_keep_experiments_apart():
    assert len(merge([plain("msr", 1, lr=0.1), plain("msr", 1, lr=0.01), plain("msr", 2, lr=0.1)])) == 2


def test_another_draw_is_another_experiment():
    wide = replace(plain("msr", 4), sampling=PredictedObjects(per_class=600))
    narrow = replace(plain("msr", 2), sampling=PredictedObjects(per_class=50))
    assert len(merge([wide, narrow, wide])) == 2


def test_what_sweeps_share_is_said_once():
    msr, slow = plain("msr", 6, lr=0.1), plain("msr", 6, lr=0.001)
    wide = replace(plain("msr", 10, lr=0.1), sampling=PredictedObjects(per_class=600))
    requested = [("table1", msr), ("table2", slow), ("table2", msr), ("table7", wide)]
    assert list(_sharing(requested)) == ["  table1, table2, table7 share records: d-m msr"]
    assert _distinct([msr, slow, wide]) == 16


@pytest.mark.parametrize("sizes", [(6, 10), (10, 6)])
def test_without_a_network_all_is_to_do_and_nothing_twice(tmp_path, sizes):
    planned = [
        plain("msr", sizes[0]),
        replace(plain("msr", sizes[1]), sampling=PredictedObjects(per_class=600)),
        plain("rise", 3),
    ]
    found = list(outlooks_of(planned, None, RecordStore(tmp_path)))
    assert sum(outlook.to_do for outlook in found) == 10 + 3
    assert not any(outlook.done or outlook.skipped or outlook.failed for outlook in found)


def shared(monkeypatch, minutes: dict[str, float], setups: list[str], took: float, *, limited: bool = True):
    """Return how long each network may run, in minutes, when each really takes ``took`` minutes."""
    clock = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    parts = []
    for dataset, network in (name.split("-") for name in setups):
        counts = SimpleNamespace(max_minutes=minutes[dataset])
        cfg = SimpleNamespace(dataset=SimpleNamespace(name=dataset, counts=counts), model=SimpleNamespace(name=network))
        parts.append(SetupPlan(cfg, None, None))
    allowed = []
    for _, deadline in Plan([], parts, limited=limited).turns(clock[0]):
        allowed.append((deadline - clock[0]) / 60)
        clock[0] += 60 * took
    return allowed


def test_networks_of_a_dataset_share_its_minutes(monkeypatch):
    setups, minutes = ["a-x", "b-y", "b-z"], {"a": 26, "b": 30}
    assert shared(monkeypatch, minutes, setups, took=0) == pytest.approx([26, 28, 56])
    # 26 minutes taken by a; y has half of b's 30 and takes 10 minutes more, which are missing for z.
    assert shared(monkeypatch, minutes, setups, took=25) == pytest.approx([26, 15.5, 6])
    assert shared(monkeypatch, minutes, setups, took=25, limited=False) == [math.inf] * 3


def test_seconds_and_bytes_add_up():
    needs = Needs(images=None, network="", training=7.0, downloads=(), to_write=1000)
    explainer = SimpleNamespace(name="x", parameters={}, passes=(1, 0), thresholds=(0.2,))
    counts = SimpleNamespace(saved_maps=2, stability_samples=1, sanity_samples=1)
    cfg = SimpleNamespace(dataset=SimpleNamespace(counts=counts, in_channels=1, size=10))
    outlook = Outlook(replace(plain("x", 5), cfg=cfg, explainer=explainer), to_do=3, done=2)
    part = SetupPlan(cfg, needs, Pace(forward=0.5, gradient=1.0, step=1.0), [outlook], other_work=4.0)
    assert (part.to_do, part.done) == (3, 2)
    assert part.seconds == 7 + 3 * (1 + 3) * 0.5 + 4
    later = replace(outlook, experiment=replace(outlook.experiment, after=1), to_do=31)  # 62 seconds
    assert [replace(part, outlooks=o).shows_early for o in ([outlook, later], [later], [outlook])] == [
        True,
        False,
        False,
    ]
    assert part.to_write == 1000 + 3 * 1300 + 2 * 2 * 2 * 100  # rows, and image and saliency of two as float16
