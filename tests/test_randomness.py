"""Random numbers equal Python-integer arithmetic and depend on their key alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import randomness as oracle

from misure.randomness import _splitmix64, integers, normal, permutation, uniform

keys = st.lists(st.integers(0, 2**62), min_size=1, max_size=4)


def test_splitmix64_gives_the_published_first_outputs_of_seed_zero():
    first, second = (oracle.splitmix64(k * 0x9E3779B97F4A7C15 & (2**64 - 1)) for k in (0, 1))
    assert (first, second) == (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4)
    assert int(_splitmix64(torch.tensor(0))) % 2**64 == first


@given(keys)
def test_uniform_equals_integer_arithmetic(key):
    assert float(uniform(*key)) == oracle.uniform(*key)


@given(st.integers(-5, 5), st.integers(0, 30), keys)
def test_integers_equal_integer_arithmetic_and_stay_in_range(low, span, key):
    drawn = int(integers(low, low + span, *key))
    assert drawn == oracle.integer(low, low + span, *key)
    assert low <= drawn <= low + span


def test_a_draw_does_not_depend_on_what_is_drawn_beside_it():
    together = uniform(3, torch.arange(50)[:, None], torch.arange(7))
    assert all(together[i, j] == uniform(3, i, j) for i in range(50) for j in range(7))


def test_uniform_fills_the_unit_interval_evenly():
    counts = torch.histc(uniform(0, torch.arange(10_000)), 10, 0, 1)
    assert counts.sum() == 10_000
    assert (counts - 1000).abs().max() < 150  # five standard deviations of a binomial count


def test_normal_is_standard_and_finite():
    drawn = normal(0, torch.arange(10_000))
    assert drawn.isfinite().all()
    assert abs(drawn.mean()) < 0.05  # five standard errors
    assert abs(drawn.std() - 1) < 0.05


def test_integers_reach_both_ends():
    assert set(integers(2, 4, 0, torch.arange(100)).tolist()) == {2, 3, 4}


@given(st.integers(1, 40), st.integers(0, 9))
def test_permutation_holds_every_number_once(n, seed):
    assert sorted(permutation(n, seed).tolist()) == list(range(n))


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = uniform(0, torch.arange(5))
    torch.manual_seed(2)
    assert torch.equal(uniform(0, torch.arange(5)), first)
    torch.manual_seed(1)
    uniform(0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_key_is_needed():
    with pytest.raises(ValueError, match="at least one integer"):
        uniform()
