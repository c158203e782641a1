"""Triangle: the geometry of the paper, and the same samples everywhere."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pipeline import TINY_LAYOUT, shipped_root
from torch import Tensor

from misure.datasets.triangle import TriangleDataset, TriangleLayout
from misure.errors import MisureError

PAPER = TriangleLayout()
TINY = TriangleLayout(**TINY_LAYOUT)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return shipped_root(tmp_path_factory.mktemp("triangle") / "data")


@pytest.fixture(scope="module")
def make(root):
    """Build datasets from the shipped items; the same arguments give the same object."""
    return functools.cache(
        lambda split="val", size=600, layout=PAPER, seed=0: TriangleDataset(split, size, root, layout, seed)
    )


def boxes(dataset: TriangleDataset, index: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Top-left corners of triangle items and of distractors."""
    key = (dataset.seed, {"train": 0, "val": 1}[dataset.split], index)
    corners = dataset._triangle(key)
    return corners, dataset._distractors(key, corners)


def footprint(canvas: int, item: int, corners: list[tuple[int, int]]) -> Tensor:
    covered = torch.zeros(canvas, canvas, dtype=torch.bool)
    for top, left in corners:
        covered[top : top + item, left : left + item] = True
    return covered


samples = st.integers(0, 599)


@given(index=samples)
def test_three_items_lie_unchanged_at_corners_of_a_square_on_the_diagonal(make, index):
    dataset = make()
    corners, distractors = boxes(dataset, index)
    centres = [(top + 14, left + 14) for top, left in corners]
    low = min(min(centre) for centre in centres)
    assert 28 <= low <= 96
    assert len(set(centres)) == 3
    assert set(centres) < {(low, low), (low, low + 100), (low + 100, low), (low + 100, low + 100)}
    assert len(distractors) == 5
    image, items = dataset[index]["image"][0], {item.numpy().tobytes() for item in dataset.items.images}
    for top, left in corners:
        pasted = (image[top : top + 28, left : left + 28] * 255).round().to(torch.uint8)
        assert pasted.numpy().tobytes() in items


@given(index=samples, layout=st.sampled_from([PAPER, TriangleLayout(120, 14, 50, 10, 40)]))
def test_the_mask_is_exactly_the_visible_part_of_the_triangle_items(make, index, layout):
    dataset, canvas, item = make(layout=layout), layout.canvas, layout.item
    corners, distractors = boxes(dataset, index)
    entry = dataset[index]
    assert (entry["image"].dtype, entry["mask"].dtype, int(entry["index"])) == (torch.float32, torch.int64, index)
    image, mask = entry["image"][0], entry["mask"]
    inside, outside = footprint(canvas, item, corners), footprint(canvas, item, distractors)
    assert inside.sum() == 3 * item * item
    assert not (inside & outside).any()
    assert torch.equal(mask.bool(), inside & (image > 0))
    assert not image[~(inside | outside)].any()
    for top, left in corners:
        assert mask[top : top + item, left : left + item].any()
    for top, left in distractors:
        assert image[top : top + item, left : left + item].any()
        assert 0 <= min(top, left) <= max(top, left) <= canvas - item


def test_all_corners_and_anchors_occur(make):
    dataset = make(size=1400)
    anchors, missing = set(), set()
    for index in range(1400):
        corners = dataset._triangle((0, 1, index))
        low = min(min(corner) for corner in corners)
        anchors.add(low + 14)
        square = {(low, low), (low, low + 100), (low + 100, low), (low + 100, low + 100)}
        missing |= {(top - low, left - low) for top, left in square - set(corners)}
    assert anchors == set(range(28, 97))  # each of 69 values is missed with a chance of 1e-9
    assert len(missing) == 4


PINNED = {
    "train": ("2472cd63cadb7dac", "fbe82e1b15464c4f1d30aa29a1df8a65fbe9cfc924990b97496b55e20b85f0f6"),
    "val": ("c27e57e364d0f429", "4a606da1b0e788e5a7e16ce3430773a72d1aba0ce86de1e303163afee5fc0bb8"),
}
"""Fingerprint of the data and SHA-256 of samples 0, 1 and 599 made from the shipped items, on any machine."""


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_same_samples_on_any_machine(make, split):
    dataset = make(split)
    for index in (-1, 600):
        with pytest.raises(IndexError):
            dataset[index]
    digest = hashlib.sha256()
    for index in (0, 1, 599):
        entry = dataset[index]
        digest.update(entry["image"].numpy().astype("<f4").tobytes())
        digest.update(entry["mask"].numpy().astype("<i8").tobytes())
    assert (dataset.fingerprint, digest.hexdigest()) == PINNED[split]


def test_samples_and_fingerprint_depend_on_seed_split_layout_and_items(make, root):
    tiny = make(layout=TINY)
    assert torch.equal(tiny[9]["image"], TriangleDataset("val", 10, root, TINY, 0)[9]["image"])
    others = [
        make(layout=TINY, seed=1),
        make("train", layout=TINY),
        make(layout=replace(TINY, noise=0.1)),
        make(layout=replace(TINY, classes=(0, 1))),
    ]
    assert len({tiny.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert not any(torch.equal(tiny[0]["image"], other[0]["image"]) for other in others)
    assert (len(tiny.items.images), len(others[-1].items.images)) == (300, 200)
    assert make(size=20, layout=TINY).fingerprint == tiny.fingerprint


@pytest.mark.parametrize("count", [0, 1, 4])
def test_distractors_are_as_many_as_asked_for(make, count):
    layout = replace(TINY, distractors=count)
    for index in range(10):
        corners, distractors = boxes(make(layout=layout), index)
        assert len(distractors) == count
        image, mask = (make(layout=layout)[index][key] for key in ("image", "mask"))
        assert bool((image[0] > 0).sum() > mask.sum()) == (count > 0)
        assert not (footprint(64, 8, corners) & footprint(64, 8, distractors)).any()


def test_jitter_moves_corners_by_at_most_itself(make):
    still, moved = make(layout=TINY), make(layout=replace(TINY, jitter=2))
    shifts = {
        now - before
        for index in range(40)
        for a, b in zip(boxes(still, index)[0], boxes(moved, index)[0], strict=True)
        for before, now in zip(a, b, strict=True)
    }
    assert shifts == {-2, -1, 0, 1, 2}


def test_noise_touches_black_pixels_alone(make):
    clean, noisy = make(layout=TINY)[0], make(layout=replace(TINY, noise=0.1))[0]
    item = clean["image"] > 0
    assert torch.equal(clean["mask"], noisy["mask"])
    assert torch.equal(clean["image"][item], noisy["image"][item])
    noise = noisy["image"][~item]
    assert noise.min() >= 0
    # Half-normal: mean 0.1 * sqrt(2 / pi) = 0.0798; about 3800 pixels give a standard error of 0.001.
    assert noise.mean().item() == pytest.approx(0.0798, abs=0.004)


@pytest.mark.parametrize(
    "change",
    [
        {"anchor_low": 3},
        {"anchor_high": 33},
        {"canvas": 40},
        {"item": 9, "anchor_high": 32},
        {"jitter": 5},
        {"side": 60},
        {"anchor_low": 21},
        {"classes": ()},
        {"distractors": -1},
        {"noise": -0.1},
        {"jitter": -1},
        {"item": 0},
    ],
)
def test_an_impossible_layout_is_refused(change):
    with pytest.raises(MisureError):
        replace(TINY, **change)


def test_too_many_distractors_are_refused(make):
    with pytest.raises(MisureError, match="no room for 70 distractors"):
        make(layout=TriangleLayout(64, 30, 32, 15, 17, distractors=70))[0]
