"""Refusing overrides that change nothing, before anything is done, with the key that does."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from misure.cli.reads import READS, Reads, covering
from misure.config import leaves, sweep_grid
from misure.errors import MisureError, did_you_mean
from misure.io.installed import CONFIG_FOLDER, config_groups
from misure.sweep.keys import check_configuration

_UNKNOWN = re.compile(r"Could not override '([^']+)'")
_OTHER = "<another value>"
_MOST_NAMED = 4


def check_overrides(name: str, config: str, given: Sequence[str], *, multirun: bool) -> None:
    """Raise a MisureError unless every override changes something that the entry point reads.

    An override reaches it if another value in its place changes what is read, whatever the value given is: so one
    that repeats the default is none that changes nothing.

    Args:
        name: The entry point, one of :data:`misure.cli.reads.READS`.
        config: ``configs/<config>.yaml``.
        given: The user's overrides.
        multirun: Whether each may have several values.

    Raises:
        MisureError: On the first override that no configuration of the entry point reads.
        HydraException: If the overrides cannot be read, or do not compose.
    """
    overrides = OverridesParser.create().parse_overrides(list(given))
    sweep = next((o for o in overrides if o.key_or_group == "sweep" and o.value() is not None), None)
    if sweep is not None and not multirun:
        raise MisureError(
            f"{sweep.input_line} is a list of runs, of which this would do the first alone: add -m "
            f"(misure run -m {sweep.input_line}), or make what it is for with misure reproduce only={sweep.value()}"
        )
    if name == "reproduce" and (given_sweeps := [o for o in overrides if o.key_or_group.split(".")[0] == "sweeps"]):
        line = given_sweeps[0].input_line
        raise MisureError(
            f"{line}: only= chooses what is run, such as only=[table1,figure7]; sweeps lists all there is"
        )
    if multirun and any(o.key_or_group == "plan_only" and o.value() for o in overrides):
        raise MisureError("plan_only=true plans one run, not those of -m: leave -m out, or misure plan only=<table>")
    with initialize_config_dir(CONFIG_FOLDER, version_base="1.3"):
        axes = _axes(sweep, overrides) if multirun else {}
        single = [line for o in overrides if (line := str(o.input_line)) and not (multirun and o.is_sweep_override())]
        first = next(covering(axes), [])
        cfg = _composed(READS[name], name, config, [*first, *single])
        check_configuration(cfg, READS[name].keys(cfg))
        left = [o for o in overrides if _is_checked(o)]
        for chosen in covering(axes) if axes else [[]]:
            for variant in READS[name].variants(cfg, given):
                left = _unread(READS[name], config, left, [*variant, *chosen, *single])
                if not left:
                    return
        if left:
            raise _nothing_changed(READS[name], name, cfg, str(left[0].input_line), str(left[0].key_or_group))


def _axes(sweep: Override | None, overrides: Sequence[Override]) -> dict[str, Sequence[str]]:
    """All values by key of a multirun: the sweep's file, then the command line."""
    axes: dict[str, Sequence[str]] = dict(sweep_grid(str(sweep.value()))) if sweep else {}
    given = {str(o.key_or_group): o for o in overrides}
    swept = {key: list(o.sweep_string_iterator()) for key, o in given.items() if o.is_sweep_override()}
    return {**{key: values for key, values in axes.items() if key not in given}, **swept}


def _composed(reads: Reads, name: str, config: str, overrides: list[str]) -> DictConfig:
    """Compose; a key that does not exist is told with the one that does, not with how to add it."""
    try:
        return compose(config, overrides)
    except HydraException as error:
        unknown = _UNKNOWN.search(str(error))
        line = next((o for o in overrides if unknown and o.lstrip("+").partition("=")[0] == unknown[1]), None)
        if unknown is None or line is None:
            raise
        cfg = _composed(reads, name, config, [o for o in overrides if o != line])
        raise _nothing_changed(reads, name, cfg, line, unknown[1]) from error


def _is_checked(override: Override) -> bool:
    key = str(override.key_or_group)
    return not override.is_delete() and key != "sweep" and re.split(r"[./]", key)[0] != "hydra"


def _unread(reads: Reads, config: str, left: Sequence[Override], overrides: list[str]) -> list[Override]:
    """Return the overrides that a configuration does not read either."""
    try:
        cfg = compose(config, overrides)
    except HydraException:
        return list(left)  # whether it should compose is not decided here
    keys = list(reads.keys(cfg))
    usual = _resolved(cfg, keys)
    return [o for o in left if not _is_read(reads, cfg, keys, usual, o)]


def _is_read(reads: Reads, cfg: DictConfig, keys: Sequence[str], usual: Sequence[Any], override: Override) -> bool:
    key = str(override.key_or_group).replace("/", ".")
    return key not in reads.instead and reaches(cfg, keys, key, usual)


def reaches(cfg: DictConfig, keys: Sequence[str], key: str, usual: Sequence[Any] | None = None) -> bool:
    """Say whether the value of a key decides anything that is read.

    Args:
        cfg: A composed configuration.
        keys: What is read.
        key: The dotted key; of a node it is enough that something in it is read.
        usual: What ``keys`` resolve to, where it is known.
    """
    if any(_holds(read, key) or _holds(key, read) for read in keys if OmegaConf.select(cfg, read) is not None):
        return True
    usual = _resolved(cfg, keys) if usual is None else usual
    node = OmegaConf.select(cfg, key)
    changed = copy.deepcopy(cfg)
    with open_dict(changed):
        for leaf, _ in leaves(node, key):
            OmegaConf.update(changed, leaf, _OTHER, force_add=True)
    return _resolved(changed, keys) != usual


def _holds(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(f"{outer}.")


def _resolved(cfg: DictConfig, keys: Iterable[str]) -> list[Any]:
    """Resolve what is read; what cannot be resolved is told by its error."""

    def value(key: str) -> Any:
        try:
            node = OmegaConf.select(cfg, key)
            return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        except OmegaConfBaseException as error:
            return repr(error)

    return [value(key) for key in keys]


def _nothing_changed(reads: Reads, name: str, cfg: DictConfig, given: str, key: str) -> MisureError:
    """Write the error: what does not count, and the keys of that name which do."""
    if key in reads.instead:
        return MisureError(f"{given} changes nothing: {name} reads {reads.instead[key]} instead")
    keys, present = list(reads.keys(cfg)), [leaf for leaf, _ in leaves(cfg)]
    own = [leaf for leaf in present if any(_holds(read, leaf) for read in keys)]
    named = [leaf for leaf in own if leaf.endswith(f".{key}")]
    named = named or [leaf for leaf in present if leaf.endswith(f".{key}") and reaches(cfg, keys, leaf)]
    elsewhere = list(_with_other_choices(reads, cfg, key, ends=not named))
    if named or elsewhere:
        some = [*elsewhere[:_MOST_NAMED], *(["..."] if len(elsewhere) > _MOST_NAMED else []), *named]
        return MisureError(f"{given} changes nothing here: {name} reads {', '.join(some)}")
    if OmegaConf.select(cfg, key) is not None and not given.startswith("+"):
        return MisureError(f"{given} changes nothing: {name} does not read {key}")
    roots = [leaf for leaf in present if "." not in leaf and reaches(cfg, keys, leaf)]
    return MisureError(f"{given} changes nothing: {name} reads no {key}{did_you_mean(key, dict.fromkeys(roots + own))}")


def _with_other_choices(reads: Reads, cfg: DictConfig, key: str, *, ends: bool) -> Iterator[str]:
    """Name the choices within the groups that are read under which the key is read, or one that ends in it."""
    keys = list(reads.keys(cfg))
    for group in sorted(group for group in config_groups() if any(_holds(group, read) for read in keys)):
        for path in sorted(Path(CONFIG_FOLDER, group).glob("*.yaml")):
            text = path.read_text(encoding="utf-8")
            if key.rpartition(".")[2] not in text and group != "dataset":
                continue  # it neither has nor interpolates the key
            node = OmegaConf.create(text)
            if not isinstance(node, DictConfig) or (group == "explainer" and "defaults" in node):
                continue  # a variant of another one: that is named
            other = copy.deepcopy(cfg)
            with open_dict(other):
                other[group] = node
            read = list(reads.keys(other))
            named = [leaf for leaf, _ in leaves(node, group) if leaf.endswith(f".{key}")] if ends else []
            if OmegaConf.select(other, key) is not None and reaches(other, read, key):
                yield f"{key} with {group}={path.stem}"
            elif any(reaches(other, read, leaf) for leaf in named):
                yield f"{', '.join(named)} with {group}={path.stem}"
