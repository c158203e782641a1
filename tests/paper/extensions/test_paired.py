"""Samples that variants share, and how often each is the nearest."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from misure.paper.extensions.paired import KEY, columns, nearest_shares, shared_samples


def numbers(*samples: tuple[int, int], value: float = 1.0) -> pd.Series:
    index = pd.MultiIndex.from_tuples([(*sample, str(sample[0])) for sample in samples], names=KEY)
    return pd.Series(value, index, dtype=float)


def test_only_samples_that_all_variants_have_are_kept_in_one_order() -> None:
    shared = shared_samples({"a": numbers((3, 1), (0, 2), (0, 1)), "b": numbers((0, 1), (0, 2), (7, 1))})
    assert [list(part.index) for part in shared.values()] == [[(0, 1, "0"), (0, 2, "0")]] * 2


def test_a_variant_with_far_fewer_samples_takes_none_from_the_others() -> None:
    many = [(sample, 1) for sample in range(4)]
    shared = shared_samples({"a": numbers(*many), "b": numbers(*many), "begun": numbers((0, 1)), "c": numbers()})
    assert {name: len(part) for name, part in shared.items()} == {"a": 4, "b": 4}
    assert shared_samples({"a": numbers()}) == {}


def test_whole_groups_count_once() -> None:
    """Twice the objects of each photograph, or slices of each volume, say nothing new: the interval is the same."""
    once = pd.concat([numbers((sample, 1), value=0.03 * sample) for sample in range(12)])
    twice = pd.concat([once, once.rename(lambda _: 2, level="class_id")])
    slices = pd.concat([once, once.rename(lambda sample: 100 + sample, level="sample")])
    first = columns({"dice": once})
    for more in (columns({"dice": twice}), columns({"dice": slices})):
        assert (first["dice_n"], more["dice_n"]) == (12, 24)
        for part in ("mean", "low", "high"):
            assert first[f"dice_{part}"] == pytest.approx(more[f"dice_{part}"], abs=1e-12)


def test_ties_share_the_nearest_place() -> None:
    shares = nearest_shares({"a": np.array([0.1, 0.2, 0.3, 0.3]), "b": np.array([0.2, 0.1, 0.3, 0.3])})
    assert shares == {"a": 0.5, "b": 0.5}
