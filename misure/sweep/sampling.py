"""The draw of objects to explain and their order: a small profile takes the first few."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Protocol, TypeVar

import numpy as np

from misure.errors import MisureError, did_you_mean
from misure.randomness import permutation
from misure.sweep.predictions import Predictions
from misure.validation import Whole, check

_Item = TypeVar("_Item")
_GROUPS, _IMAGES = 7919, 7927  # keep the draws of volumes and of slices apart


@dataclass(frozen=True)
class Sample:
    """One object to explain: a class in an image.

    Attributes:
        image: Index in the validation images.
        class_id: The class that is explained.
        draw: Place within its class's draw, from 0.
    """

    image: int
    class_id: int
    draw: int


class Sampling(Protocol):
    """A way to draw samples."""

    def draw(self, n_images: int, predictions: Callable[[], Predictions], seed: int) -> list[Sample]:
        """Return all samples in the order in which they are explained."""

    def classes_of(self, class_names: Sequence[str]) -> Sequence[int]:
        """Return the classes that samples are wanted of, for a network with these (background included)."""


@dataclass(frozen=True)
class EveryImage:
    """One class of every image, in a shuffled order; an image without it is skipped when its turn comes.

    Attributes:
        class_id: The class that is explained.
    """

    class_id: int = 1

    def __post_init__(self) -> None:
        check("sampling.class_id", self.class_id, Whole(1))

    def draw(self, n_images: int, predictions: Callable[[], Predictions], seed: int) -> list[Sample]:  # noqa: ARG002
        """Return all images, shuffled."""
        return [Sample(int(i), self.class_id, rank) for rank, i in enumerate(permutation(n_images, seed))]

    def classes_of(self, class_names: Sequence[str]) -> Sequence[int]:  # noqa: ARG002
        """Return the one class."""
        return (self.class_id,)


@dataclass(frozen=True)
class PredictedObjects:
    """The same number of predicted objects of every class, spread over volumes (or other groups of images).

    Classes take turns, so that the first few samples are of different classes.

    Attributes:
        per_class: Samples of each class at most; a class predicted in fewer images gives fewer.
        min_area: Predicted pixels that an object must have.
    """

    per_class: int = 50
    min_area: int = 1

    def __post_init__(self) -> None:
        check("sampling.per_class", self.per_class, Whole(1))
        check("sampling.min_area", self.min_area, Whole(1))

    def draw(self, n_images: int, predictions: Callable[[], Predictions], seed: int) -> list[Sample]:
        """Return the first object of every class, then the second of every class, and so on."""
        seen = _of_images(predictions, n_images)
        return _in_turns(self._of_class(seen, c, seed) for c in range(1, seen.predicted.shape[1]))

    def classes_of(self, class_names: Sequence[str]) -> Sequence[int]:
        """Return all classes but the background."""
        return range(1, len(class_names))

    def _of_class(self, seen: Predictions, class_id: int, seed: int) -> list[Sample]:
        images = np.flatnonzero(seen.predicted[:, class_id] >= self.min_area)
        spread = _spread(images.tolist(), seen.groups, (seed, class_id))
        return [Sample(image, class_id, draw) for draw, image in enumerate(spread[: self.per_class])]


@dataclass(frozen=True)
class AnnotatedObjects:
    """Pairs of an image and a class that is annotated in it and predicted, spread over classes.

    Classes take turns until there are enough pairs. Each class begins with an image that may be shown anywhere,
    if it has one, so that figures can be published; apart from that the order is random.

    Attributes:
        classes: Names of the classes, in the order of their turns.
        class_names: Names by the network's class index.
        pairs: How many at most; classes that are rarer leave their share to the others.
        min_area: Predicted pixels that an object must have.
    """

    classes: Sequence[str]
    class_names: Sequence[str]
    pairs: int = 181
    min_area: int = 1

    def __post_init__(self) -> None:
        check("sampling.pairs", self.pairs, Whole(1))
        check("sampling.min_area", self.min_area, Whole(1))
        for name in self.classes:
            if name not in self.class_names:
                raise MisureError(f"sampling.classes: no class is named {name!r}{did_you_mean(name, self.class_names)}")

    def draw(self, n_images: int, predictions: Callable[[], Predictions], seed: int) -> list[Sample]:
        """Return the first pair of every class, then the second of every class, and so on."""
        seen = _of_images(predictions, n_images)
        return _in_turns(self._of_class(seen, c, seed) for c in self.classes_of(self.class_names))[: self.pairs]

    def classes_of(self, class_names: Sequence[str]) -> Sequence[int]:
        """Return the indices of the classes."""
        return [list(class_names).index(name) for name in self.classes]

    def _of_class(self, seen: Predictions, class_id: int, seed: int) -> list[Sample]:
        usable = seen.annotated[:, class_id] & (seen.predicted[:, class_id] >= self.min_area)
        images = np.flatnonzero(usable)
        order = [int(images[i]) for i in permutation(len(images), seed, class_id, _IMAGES)]
        first = next((image for image in order if seen.showable[image]), None)
        if first is not None:
            order = [first, *(image for image in order if image != first)]
        return [Sample(image, class_id, draw) for draw, image in enumerate(order)]


def _spread(images: Sequence[int], groups: Sequence[str], key: tuple[int, ...]) -> list[int]:
    """Shuffle images so that groups take turns for as long as they have any."""
    by_group: dict[str, list[int]] = {}
    for image in images:
        by_group.setdefault(groups[image], []).append(image)
    names = sorted(by_group)
    turns = [
        [by_group[names[g]][i] for i in permutation(len(by_group[names[g]]), *key, _IMAGES, int(g))]
        for g in permutation(len(names), *key, _GROUPS)
    ]
    return _in_turns(turns)


def _in_turns(queues: Iterable[Sequence[_Item]]) -> list[_Item]:
    """Take the first of every queue, then the second of every queue that has one, and so on."""
    return [item for item in chain.from_iterable(zip_longest(*queues)) if item is not None]


def _of_images(predictions: Callable[[], Predictions], n_images: int) -> Predictions:
    seen = predictions()
    if len(seen.groups) != n_images:
        raise ValueError(f"predictions in {len(seen.groups)} images for {n_images} images")
    return seen
