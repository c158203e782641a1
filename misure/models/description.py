"""What is said about a network, checked and made plain: that it is one, its classes, its normalisation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from misure.errors import MisureError, brief, did_you_mean
from misure.models.compute import is_out_of_memory
from misure.validation import AtLeast, Rule, Whole, check, plain, shown, whole

Wanted = int | str | None
"""A class by its number or name, or the only one that is predicted."""

_MOST_CLASSES = 65_536
"""Labels are at most 16 bits in every format of masks."""

_FINITE = AtLeast(-1e30)
_POSITIVE = AtLeast(1e-12)


class PartialNames(tuple[str, ...]):
    """Names by class index that were given by number, so that those of the last classes may be absent."""

    __slots__ = ()


def checked_network(network: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """Return a network that can be called.

    Raises:
        MisureError: If it is a file's name, weights alone, a class or something else that is no network.
    """
    if isinstance(network, str | os.PathLike):
        raise MisureError(f"the model is a path, {shown(network)}: load it with misure.load_model")
    if isinstance(network, Mapping):
        raise MisureError("the model is a dictionary, such as weights alone: build the network and load them into it")
    if isinstance(network, type):
        raise MisureError(f"the model is the class {network.__name__}: make a network of it, {network.__name__}(...)")
    if not callable(network):
        raise MisureError(f"the model is a {type(network).__name__}: give an nn.Module, or a function of images")
    return network


@contextmanager
def first_pass(title: str, shape: Sequence[int]) -> Iterator[None]:
    """Turn whatever a network raises for images that it is given for the first time into one line.

    Args:
        title: What the line calls the network.
        shape: Of one image, C x spatial.

    Raises:
        MisureError: The network, the shape and the reason.
    """
    try:
        yield
    except MisureError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise MisureError(
            f"{title} does not take images of {' x '.join(map(str, shape))} ({type(error).__name__}: {brief(error)}): "
            "give channels, size and type that it was trained with"
        ) from error


def names_of_classes(value: Any) -> tuple[str, ...] | None:
    """Return the names of classes by index.

    Args:
        value: None, a list, or a dictionary from numbers (also as text, as in JSON) to names, or from names to numbers.
            A class whose number a dictionary leaves out is called ``class_<number>``.

    Raises:
        MisureError: If it is none of these.
    """
    if value is None or isinstance(value, PartialNames):
        return value
    if isinstance(value, Mapping):
        return _by_number(value)
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise MisureError(f"class_names={shown(value)} is not a list of names, or a dictionary {{number: name}}")
    names = [plain(name) for name in value]
    for name in names:
        if not isinstance(name, str):
            raise MisureError(f"class_names: {shown(name)} is not a name: give text for each class")
    return tuple(str(name) for name in names) or None


def _by_number(names: Mapping[Any, Any]) -> PartialNames | None:
    pairs = [(_number(key), plain(name)) for key, name in names.items()]
    if any(number is None for number, _ in pairs):
        pairs = [(_number(number), name) for name, number in names.items()]
    given = {}
    for number, name in pairs:
        if number is None or not isinstance(name, str) or number in given:
            raise MisureError(f"class_names: {shown(name)} has no number of its own: give {{number: name}}")
        check("class_names: the number", number, Whole(0))
        if number >= _MOST_CLASSES:
            raise MisureError(f"class_names: the number {shown(number)} is no class: at most {_MOST_CLASSES} are named")
        given[number] = str(name)
    return PartialNames(given.get(i, f"class_{i}") for i in range(max(given) + 1)) if given else None


def _number(key: Any) -> int | None:
    return int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 10 else whole(key)


def class_index(names: tuple[str, ...] | None, name: str, n_classes: int) -> int:
    """Return the number of the class with a name.

    Args:
        names: By index.
        name: The class.
        n_classes: How many classes the network has.

    Raises:
        MisureError: If no class or more than one has that name, or a list does not name every class.
    """
    known = names or ()
    if known.count(name) != 1:
        problem = "several classes" if name in known else "no class"
        hint = "; give its number" if name in known else did_you_mean(name, known)
        hint = hint if known else ": it names none, give a number, or SegmentationModel(class_names=...)"
        raise MisureError(f"the network has {problem} named {name!r}{hint}")
    if not isinstance(known, PartialNames) and len(known) != n_classes:
        raise MisureError(
            f"class_names has {len(known)} names, the network {n_classes} classes: name every class, the background "
            "too, or give a dictionary {number: name}"
        )
    return known.index(name)


def wanted_classes(target: Any, n_images: int) -> list[Wanted]:
    """Return the class that is wanted in each image.

    Args:
        target: A number (also a whole float, or a scalar of NumPy or PyTorch), a name or None, for all images; or a
            list or array of these, one an image.
        n_images: How many images there are.

    Raises:
        MisureError: If it is anything else, or there is not one for each image.
    """
    number, given = whole(target), plain(target)
    if number is not None or isinstance(given, str) or not isinstance(given, Sequence):
        return [_wanted(given if number is None else number)] * n_images
    if len(given) != n_images:
        raise MisureError(f"{n_images} images but {len(given)} targets: pass one target per image")
    return [_wanted(one) for one in given]


def _wanted(target: Any) -> Wanted:
    number = whole(target)
    if number is not None or target is None or isinstance(target, str):
        return target if number is None else number
    raise MisureError(
        f"target={shown(target)} is a {type(target).__name__}, no class: give the number or name of one, or one for "
        "each image"
    )


def normalisation_of(mean: Any, std: Any, in_channels: int | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation, one number for all channels or one each.

    Raises:
        MisureError: If one holds what is not finite, or is no divisor, or they are for different numbers of channels.
    """
    means, stds = _numbers("mean", mean, _FINITE), _numbers("std", std, _POSITIVE)
    channels = {len(numbers) for numbers in (means, stds)} | ({in_channels} if in_channels else set())
    if len(channels - {1}) > 1:
        taken = f", and the network takes {in_channels}" if in_channels else ""
        raise MisureError(
            f"mean is for {len(means)} channels, std for {len(stds)}{taken}: give one number, or one each"
        )
    return means, stds


def _numbers(name: str, value: Any, rule: Rule) -> tuple[float, ...]:
    given = plain(value)
    if isinstance(given, str) or not isinstance(given, Iterable):
        given = [given]
    numbers = tuple(plain(number) for number in given)
    for number in numbers or (None,):
        check(name, number, rule)
    return tuple(map(float, numbers))
