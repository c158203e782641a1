"""Which objects of which images are explained, and in which order: a small profile takes the first few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Protocol

import numpy as np

from misure.explainers.base import check_whole
from misure.randomness import permutation
from misure.sweep.survey import Survey

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
    """How samples are drawn."""

    def draw(self, n_images: int, survey: Callable[[], Survey], seed: int) -> list[Sample]:
        """Return all samples in the order in which they are explained."""

    def classes(self, n_classes: int) -> Sequence[int]:
        """Return the classes that samples are wanted of, for a network with ``n_classes`` (background included)."""


@dataclass(frozen=True)
class EveryImage:
    """One class of every image, in a shuffled order; an image without it is skipped when its turn comes.

    Attributes:
        class_id: The class that is explained.
    """

    class_id: int = 1

    def __post_init__(self) -> None:
        check_whole("sampling.class_id", self.class_id, 1)

    def draw(self, n_images: int, survey: Callable[[], Survey], seed: int) -> list[Sample]:  # noqa: ARG002
        """Return all images, shuffled."""
        return [Sample(int(i), self.class_id, rank) for rank, i in enumerate(permutation(n_images, seed))]

    def classes(self, n_classes: int) -> Sequence[int]:  # noqa: ARG002
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
        check_whole("sampling.per_class", self.per_class, 1)
        check_whole("sampling.min_area", self.min_area, 1)

    def draw(self, n_images: int, survey: Callable[[], Survey], seed: int) -> list[Sample]:
        """Return the first object of every class, then the second of every class, and so on."""
        found = survey()
        if len(found.groups) != n_images:
            raise ValueError(f"a survey of {len(found.groups)} images for {n_images} images")
        classes = [self._of_class(found, c, seed) for c in range(1, found.predicted.shape[1])]
        return [sample for sample in chain.from_iterable(zip_longest(*classes)) if sample is not None]

    def classes(self, n_classes: int) -> Sequence[int]:
        """Return all classes but the background."""
        return range(1, n_classes)

    def _of_class(self, survey: Survey, class_id: int, seed: int) -> list[Sample]:
        images = np.flatnonzero(survey.predicted[:, class_id] >= self.min_area)
        spread = _spread(images.tolist(), survey.groups, (seed, class_id))
        return [Sample(image, class_id, draw) for draw, image in enumerate(spread[: self.per_class])]


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
    return [image for image in chain.from_iterable(zip_longest(*turns)) if image is not None]
