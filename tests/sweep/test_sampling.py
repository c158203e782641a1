"""Which objects are explained: drawn with a seed, spread over volumes, classes in turn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from misure.errors import MisureError
from misure.sweep.predictions import Predictions
from misure.sweep.sampling import AnnotatedObjects, EveryImage, PredictedObjects

ORGANS = 3


def predictions(sizes: list[list[int]], groups: list[str]) -> Predictions:
    predicted = np.array([[100, *row] for row in sizes], dtype=np.int64).reshape(len(sizes), 1 + ORGANS)
    unused = np.zeros((len(groups), 1, 1), np.uint8)
    showable = np.ones(len(groups), bool)
    return Predictions(unused, predicted, predicted, predicted, predicted > 0, showable, tuple(groups))


def draw(found: Predictions, seed: int = 0, **parameters):
    return PredictedObjects(**parameters).draw(len(found.groups), lambda: found, seed)


many = st.integers(1, 30).flatmap(
    lambda n: st.builds(
        predictions,
        st.lists(st.lists(st.integers(0, 5), min_size=ORGANS, max_size=ORGANS), min_size=n, max_size=n),
        st.lists(st.sampled_from("abcd"), min_size=n, max_size=n),
    )
)


@given(many, st.integers(1, 6), st.integers(1, 4), st.integers(0, 3))
def test_a_draw_has_only_predicted_objects_each_once_and_not_too_many(found, per_class, min_area, seed):
    samples = draw(found, seed, per_class=per_class, min_area=min_area)
    assert len({(s.image, s.class_id) for s in samples}) == len(samples)
    assert all(found.predicted[s.image, s.class_id] >= min_area for s in samples)
    available = (found.predicted[:, 1:] >= min_area).sum(0)
    taken = Counter(s.class_id for s in samples)
    assert [taken[c] for c in range(1, 1 + ORGANS)] == np.minimum(available, per_class).tolist()


@given(many, st.integers(0, 3))
def test_volumes_take_turns(found, seed):
    for class_id in range(1, 1 + ORGANS):
        chosen = [s for s in draw(found, seed, per_class=7) if s.class_id == class_id]
        assert [s.draw for s in chosen] == list(range(len(chosen)))
        used = Counter(found.groups[s.image] for s in chosen)
        there = Counter(found.groups[i] for i in np.flatnonzero(found.predicted[:, class_id]))
        # A volume may have fewer than another only when it has nothing left.
        assert all(used[v] >= max(used.values()) - 1 or used[v] == there[v] for v in there)


@given(many, st.integers(0, 3), st.integers(1, 5))
def test_a_smaller_draw_is_the_start_of_a_larger_one(found, seed, per_class):
    small, large = draw(found, seed, per_class=per_class), draw(found, seed, per_class=50)
    assert small == [s for s in large if s.draw < per_class]


def test_classes_take_turns():
    found = predictions([[5, 5, 5]] * 4, list("abab"))
    assert [s.class_id for s in draw(found, per_class=2)] == [1, 2, 3, 1, 2, 3]


def test_the_seed_changes_the_draw():
    found = predictions([[5, 5, 5]] * 20, list("abcd") * 5)
    assert draw(found, 0) == draw(found, 0)
    assert draw(found, 0) != draw(found, 1)


def test_every_image_needs_no_predictions():
    samples = EveryImage(2).draw(9, None, 0)
    assert sorted(s.image for s in samples) == list(range(9))
    assert {s.class_id for s in samples} == {2}
    assert [s.draw for s in samples] == list(range(9))


def test_classes_that_are_wanted():
    names = ["background", "cat", "dog", "cow"]
    assert list(EveryImage(2).classes_of(names)) == [2]
    assert list(PredictedObjects().classes_of(names)) == [1, 2, 3]
    assert list(AnnotatedObjects(["cow", "cat"], names).classes_of(names)) == [3, 1]


NAMES = ["background", "cat", "dog", "cow"]


def annotated_draw(found: Predictions, seed: int = 0, **parameters):
    sampling = AnnotatedObjects(["cow", "cat", "dog"], NAMES, **parameters)
    return sampling.draw(len(found.groups), lambda: found, seed)


@st.composite
def photographs(drawn):
    found = drawn(many)
    shape = found.predicted.shape
    bits = drawn(st.lists(st.booleans(), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    shown = drawn(st.lists(st.booleans(), min_size=shape[0], max_size=shape[0]))
    return replace(found, annotated=np.array(bits).reshape(shape), showable=np.array(shown))


@given(photographs(), st.integers(1, 40), st.integers(1, 4), st.integers(0, 3))
def test_pairs_are_annotated_and_predicted_and_as_many_as_there_are(found, pairs, min_area, seed):
    samples = annotated_draw(found, seed, pairs=pairs, min_area=min_area)
    usable = found.annotated & (found.predicted >= min_area)
    assert all(usable[s.image, s.class_id] for s in samples)
    assert len({(s.image, s.class_id) for s in samples}) == len(samples)
    assert len(samples) == min(pairs, usable[:, 1:].sum())


@given(photographs(), st.integers(1, 40), st.integers(0, 3))
def test_no_class_has_two_pairs_more_than_another_that_could_have_them(found, pairs, seed):
    taken = Counter(s.class_id for s in annotated_draw(found, seed, pairs=pairs))
    there = (found.annotated & (found.predicted >= 1)).sum(0)
    assert all(taken[c] >= max(taken.values(), default=0) - 1 or taken[c] == there[c] for c in (1, 2, 3))


@given(photographs(), st.integers(0, 3))
def test_each_class_begins_with_an_image_that_may_be_shown(found, seed):
    for sample in annotated_draw(found, seed):
        if sample.draw == 0 and not found.showable[sample.image]:
            usable = found.annotated[:, sample.class_id] & (found.predicted[:, sample.class_id] >= 1)
            assert not (usable & found.showable).any()


@given(photographs(), st.integers(0, 3), st.integers(1, 20))
def test_fewer_pairs_are_the_start_of_more(found, seed, pairs):
    assert annotated_draw(found, seed, pairs=pairs) == annotated_draw(found, seed, pairs=60)[:pairs]


def test_a_class_that_does_not_exist_is_named():
    with pytest.raises(MisureError, match=r"no class is named 'caw'; close names: c[ao][wt]"):
        AnnotatedObjects(["caw"], NAMES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PredictedObjects(per_class=0), r"sampling\.per_class=0"),
        (lambda: PredictedObjects(min_area=0), r"sampling\.min_area=0"),
        (lambda: AnnotatedObjects([], NAMES, pairs=0), r"sampling\.pairs=0"),
        (lambda: AnnotatedObjects([], NAMES, min_area=-1), r"sampling\.min_area=-1"),
        (lambda: EveryImage(0), r"sampling\.class_id=0"),
    ],
)
def test_numbers_out_of_range_are_named(make, message):
    with pytest.raises(MisureError, match=message):
        make()
