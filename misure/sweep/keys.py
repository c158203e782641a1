"""What the keys of a configuration may hold, checked before anything is done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from hydra._internal.utils import _locate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from misure.config import build, check_argument, check_node, plain
from misure.errors import MisureError
from misure.training.config import MINUTES, PRECISION, Recipe
from misure.validation import AtLeast, Between, Kind, OneOf, Rule, Whole, check

_INTERPOLATION = re.compile(r"\$\{(?:oc\.select:)?([\w.]+)(?:,(.*))?\}")


@dataclass(frozen=True)
class Or:
    """What a rule allows, and some values besides.

    Attributes:
        rule: The rule.
        others: The values; None is written ``null``.
    """

    rule: Rule
    others: tuple[str | None, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.rule or any(value == other for other in self.others)

    def __str__(self) -> str:
        return " or ".join([str(self.rule), *("null" if other is None else other for other in self.others)])


@dataclass(frozen=True)
class ListOf:
    """Lists of what a rule allows.

    Attributes:
        rule: For each element.
        alone: Whether a single element may stand without its list.
        deep: Whether an element may be such a list itself.
    """

    rule: Rule
    alone: bool = False
    deep: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, list):
            return all(element in self.rule or (self.deep and element in self) for element in value)
        return self.alone and value in self.rule

    def __str__(self) -> str:
        return f"{f'{self.rule} or ' if self.alone else ''}a list, each of it {self.rule}"


@dataclass(frozen=True)
class Folder:
    """Folders that may be written into: no file, and not the root folder, which an empty name would stand for."""

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            return False
        place = Path(value).resolve()
        return place != place.parent and not any(part.is_file() for part in (place, *place.parents))

    def __str__(self) -> str:
        return "a folder to write into: for example outputs=outputs (is a shell variable empty?)"


@dataclass(frozen=True)
class Name:
    """Texts that are not empty."""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and bool(value.strip())

    def __str__(self) -> str:
        return "a name"


@dataclass(frozen=True)
class IfInstalled:
    """True and false, but true only where a package is installed.

    Attributes:
        package: Its import name.
        extra: The one of this package that brings it.
    """

    package: str
    extra: str

    def __contains__(self, value: object) -> bool:
        return value is False or (value is True and find_spec(self.package) is not None)

    def __str__(self) -> str:
        return f"false, or true with {self.package} (pip install 'misure[{self.extra}]')"


_TEXT, _NAME, _COUNT, _NONE_OR_MORE = Kind(str), Name(), Whole(1), Whole(0)
_YES_OR_NO: Rule = OneOf((True, False))
_GROUP: Rule = Kind(Mapping)
_SIDE = Whole(1, 2**14)
_NUMBERS = ListOf(AtLeast(-1e6))

KEYS: dict[str, Rule] = {
    **dict.fromkeys(("lr", "lambda", "input_noise"), AtLeast(0)),
    "after": Whole(0, 9),
    **dict.fromkeys(("stand_in", "plan_only", "allow_tf32", "dataset.empty_truth_counts"), _YES_OR_NO),
    **dict.fromkeys(("dataset.name", "dataset.title", "model.name", "model.title"), _NAME),
    **dict.fromkeys(("reading", "checkpoint", "model.bottleneck"), Or(_NAME, (None,))),
    **dict.fromkeys(("intervention", "model.substitution", "dataset.prepares"), _TEXT),
    **dict.fromkeys(("dataset.class_names", "dataset.classes", "datasets"), ListOf(_NAME)),
    **dict.fromkeys(("runner.batch_size", "runner.images_per_step"), Or(_COUNT, ("auto",))),
    **dict.fromkeys(("runner.workers", "runner.threads"), Or(_COUNT, (None,))),
    "runner.seconds_a_task": AtLeast(0),
    "dataset.networks": ListOf(_NAME, deep=True),
    "outputs": Folder(),
    "parquet": IfInstalled("pyarrow", "parquet"),
    "data_root": _NAME,
    "dataset.stand_in_folder": _NAME,
    "only": Or(ListOf(_NAME, alone=True), (None,)),
    "seed": _NONE_OR_MORE,
    "mask_size": _SIDE,
    "n_samples": Or(_COUNT, (None,)),
    "precision": PRECISION,
    "dataset.n_classes": Whole(2),
    "dataset.in_channels": _COUNT,
    "model.mean": _NUMBERS,
    "model.std": ListOf(Between(1e-6, 1e6)),
}
"""What is read directly. What is built (nodes with ``_target_``) is checked by its type hints."""

_OF_ALL_DATASETS: dict[str, Rule] = {"name": _NAME, "precision": PRECISION, "stand_in": _YES_OR_NO}
_OF_A_DATASET: dict[str, Rule] = {
    "precision": PRECISION,
    "max_minutes": MINUTES,
    "curriculum": ListOf(_GROUP),
    "networks": ListOf(_NAME, deep=True),
    "size": _SIDE,
    "scale": Between(0.01, 1),
    "n_samples": _GROUP,
    "n_samples.*": _COUNT,
    "saved_maps": _NONE_OR_MORE,
    **{f"{kind}_samples": _COUNT for kind in ("sweep", "sanity", "ambiguity", "stability")},
    **{f"{kind}_samples": _NONE_OR_MORE for kind in ("curve", "reading", "reliability")},
    **dict.fromkeys(("msr_iterations", "fast_iterations", "rise_masks", "per_class", "reliability_per_class"), _COUNT),
}
_TRAININGS = ("training", "training.transunet")
"""Groups of keys that hold fields of a recipe."""

BUILT = ("training", "explainer", "runner.compute", "dataset.sampling", "dataset.train", "dataset.val", "model.network")
"""Keys of nodes that describe what is built."""


def check_configuration(cfg: DictConfig, read: Iterable[str] = BUILT) -> None:
    """Check all that an entry point reads of its configuration, before it does anything.

    Args:
        cfg: The configuration; keys that it does not have are not missed.
        read: The nodes that are built from it.

    Raises:
        MisureError: On the first value that is not allowed, with the key that decides it.
    """
    try:
        check_keys(cfg)
        _check_profile(cfg)
        _check_nodes(cfg, read)
    except OmegaConfBaseException as error:
        raise MisureError(f"configuration error: {' '.join(str(error).split())}") from error


def check_keys(cfg: DictConfig) -> None:
    """Check the values of the keys that are read directly, but for those of the profile.

    Raises:
        MisureError: On the first one that holds something else than its rule allows.
    """
    for pattern, rule in KEYS.items():
        _check_found(cfg, cfg, pattern, rule)


def _check_profile(cfg: DictConfig) -> None:
    for name, section in plain(cfg.get("profile", {})).items():
        if name in _OF_ALL_DATASETS:
            _check_found(cfg, {name: section}, name, _OF_ALL_DATASETS[name], "profile.")
            continue
        _check_found(cfg, {name: section}, name, _GROUP, "profile.")
        for key, part in ((name, section), (f"{name}.stand_in", section.get("stand_in") or {})):
            for pattern, rule in _OF_A_DATASET.items():
                _check_found(cfg, part, pattern, rule, f"profile.{key}.")
            for training in _TRAININGS:
                _check_found(cfg, part, training, _GROUP, f"profile.{key}.")
                for field in fields(Recipe):
                    for given, value in _found(part, [*training.split("."), field.name], f"profile.{key}."):
                        check_argument(Recipe, field.name, value, partial(called, cfg, given))


def _check_found(cfg: DictConfig, node: Any, pattern: str, rule: Rule, prefix: str = "") -> None:
    for key, value in _found(node, pattern.split("."), prefix):
        if value not in rule:
            check(called(cfg, key), value, rule)


def _check_nodes(cfg: DictConfig, keys: Iterable[str]) -> None:
    for key in keys:
        node = OmegaConf.select(cfg, key)
        if isinstance(node, DictConfig):
            check_node(plain(node), partial(called, cfg), f"{key}.")
            try:
                _try_out(plain(node))
            except MisureError as error:
                raise MisureError(f"{key}: {str(error).removeprefix(f'{key}.')}") from error
        if key in BUILT and not (isinstance(node, DictConfig) and "_target_" in node):
            raise MisureError(f"{called(cfg, key)}={node} describes nothing that is built: it needs a _target_")


def _try_out(node: Any) -> None:
    """Build the descriptions in a node, whose values have to fit each other; they do nothing by themselves."""
    if isinstance(node, Mapping):
        if "_target_" in node and is_dataclass(_locate(str(node["_target_"]))):
            build(node)
        else:
            for part in node.values():
                _try_out(part)


def called(cfg: DictConfig, key: str) -> str:
    """Name the key that decides the value of another: where that interpolates it, as the command line has to."""
    parts, place = key.split("."), cast("Any", OmegaConf.to_container(cfg))
    for depth, part in enumerate(parts, 1):
        place = place.get(part) if isinstance(place, dict) else None
        linked = _INTERPOLATION.fullmatch(place) if isinstance(place, str) else None
        if linked:
            absent = "oc.select" in str(place) and OmegaConf.select(cfg, linked[1]) is None
            otherwise = _INTERPOLATION.fullmatch(linked[2] or "")
            deciding = (otherwise and otherwise[1]) if absent else linked[1]
            return called(cfg, ".".join([deciding, *parts[depth:]])) if deciding else key
    return key


def _found(node: Any, pattern: Sequence[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys that a pattern stands for, with their values; ``*`` is any name."""
    if not pattern:
        yield prefix.removesuffix("."), plain(node)
    elif isinstance(node, Mapping):
        head, *rest = pattern
        for name in map(str, node) if head == "*" else [head] if head in node else []:
            yield from _found(node[name], rest, f"{prefix}{name}.")
