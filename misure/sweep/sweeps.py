"""Sweeps: the experiments that tables and figures are made from."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from misure.config import composed, overridden, sweep_grid
from misure.errors import MisureError, did_you_mean
from misure.io.installed import config_groups
from misure.sweep.experiment import Experiment
from misure.sweep.keys import check_configuration

Requested = Sequence[tuple[str, Experiment]]
"""Experiments with the names of the sweeps that ask for them."""

_EVERYTHING = ("claims", "report")
_CHOOSING = {"only", "datasets", "dataset", "sweeps", "shows"}


def chosen_sweeps(cfg: DictConfig, given: Sequence[str] = ()) -> dict[str, list[str]]:
    """Name the sweeps to run, in the order in which they are run, with the datasets that each is run on.

    Args:
        cfg: ``configs/reproduce.yaml``: ``datasets``, ``sweeps`` (with the outputs made from each), ``shows`` (an
            output's datasets where it does not show all) and ``only`` (outputs or sweeps, or null).
        given: The user's overrides; a dataset among them is the only one.

    Raises:
        MisureError: If no output or sweep has the name, or nothing is made of the dataset for it.
    """
    datasets = [cfg.dataset.name] if "dataset" in overridden(given) else _names(cfg.datasets)
    own = of_experiments(given)
    only, shows = _names(cfg.only or _EVERYTHING), cfg.shows or {}
    chosen: dict[str, set[str]] = {}
    for name in only:
        shown = {dataset for dataset in shows.get(name.lower(), datasets) if dataset in datasets}
        for sweep in _made_from(cfg, name.lower()):
            pinned = sweep_grid(sweep, own).get("dataset", datasets)
            chosen[sweep] = chosen.get(sweep, set()) | (shown & {*pinned})
    ordered = {sweep: [d for d in datasets if d in chosen[sweep]] for sweep in cfg.sweeps if chosen.get(sweep)}
    if not ordered:
        raise MisureError(f"only={cfg.only} is made from other datasets than {', '.join(datasets)}")
    return ordered


def of_experiments(given: Sequence[str]) -> list[str]:
    """Return the user's overrides that hold for every experiment, without those that choose among experiments."""
    return [o for o in given if not {key.split(".")[0] for key in overridden([o])} & _CHOOSING]


def _names(given: object) -> list[str]:
    """Return one name, or several, as a list."""
    return [given] if isinstance(given, str) else [str(name) for name in cast("Sequence[object]", given)]


def _made_from(cfg: DictConfig, name: str) -> list[str]:
    if name in _EVERYTHING:
        return list(cfg.sweeps)
    sweeps = [sweep for sweep, outputs in cfg.sweeps.items() if name in {sweep, *outputs}]
    if not sweeps:
        names = sorted({*_EVERYTHING, *cfg.sweeps, *itertools.chain(*cfg.sweeps.values())})
        raise MisureError(f"only={name} is no table, figure or sweep{did_you_mean(name, names)}")
    return sweeps


@dataclass
class Sweeps:
    """Composes the experiments of sweeps; needs an initialised Hydra.

    Composing takes a tenth of a second, so each dataset and network of a sweep, and each method of all sweeps, is
    composed once; the other values are set.

    Attributes:
        overrides: Command-line style overrides that hold for all experiments and win over a sweep's values.
        choose: Names the overrides that make a setup, given a dataset and its networks in order of preference; none
            where it cannot be had.
    """

    overrides: Sequence[str]
    choose: Callable[[str, Sequence[str]], list[str]]
    _bases: dict[tuple[str, ...], DictConfig] = field(default_factory=dict, init=False, repr=False)
    _setups: dict[tuple[str, ...], list[str]] = field(default_factory=dict, init=False, repr=False)
    _explainers: dict[str, DictConfig] = field(default_factory=dict, init=False, repr=False)
    _networks: dict[str, list[list[str]]] = field(default_factory=dict, init=False, repr=False)

    def expand(self, sweep: str, datasets: Sequence[str]) -> Iterator[Experiment]:
        """Compose every experiment of ``configs/sweep/<sweep>.yaml`` on datasets and their networks.

        Raises:
            MisureError: If a configuration does not compose.
        """
        grid = sweep_grid(sweep, self.overrides)
        grid.pop("dataset", None)
        networks = grid.pop("model", None)
        for dataset in datasets:
            for alternatives in networks or self._networks_of(dataset):
                setup = self._setup(dataset, [alternatives] if isinstance(alternatives, str) else alternatives)
                for values in itertools.product(*grid.values()) if setup else ():
                    yield Experiment.of(self._with(sweep, setup, dict(zip(grid, values, strict=True))))

    @functools.cached_property
    def _groups(self) -> set[str]:
        return config_groups()

    @functools.cached_property
    def _overridden(self) -> set[str]:
        return overridden(self.overrides)

    def _networks_of(self, dataset: str) -> list[list[str]]:
        if dataset not in self._networks:
            self._networks[dataset] = networks_of(dataset, self.overrides)
        return self._networks[dataset]

    def _setup(self, dataset: str, networks: Sequence[str]) -> tuple[str, ...]:
        if (dataset, *networks) not in self._setups:
            self._setups[dataset, *networks] = self.choose(dataset, networks)
        return tuple(self._setups[dataset, *networks])

    def _with(self, sweep: str, setup: tuple[str, ...], values: Mapping[str, str]) -> DictConfig:
        cfg = copy.deepcopy(self._base(sweep, setup, values.get("explainer")))
        with open_dict(cfg):
            if "explainer" in values:
                cfg.explainer = self._explainer(values["explainer"], setup)
            for key, value in values.items():
                if key not in self._groups and key not in self._overridden:
                    OmegaConf.update(cfg, key, OverridesParser.create().parse_override(f"{key}={value}").value())
        return cfg

    def _base(self, sweep: str, setup: tuple[str, ...], explainer: str | None) -> DictConfig:
        if (sweep, *setup) not in self._bases:
            variant = [f"sweep={sweep}", *([f"explainer={explainer}"] if explainer else []), *setup]
            base = next(composed("run", [variant], self.overrides))
            if setup not in {key[1:] for key in self._bases}:
                check_configuration(base)
            self._bases[sweep, *setup] = base
        return self._bases[sweep, *setup]

    def _explainer(self, name: str, setup: tuple[str, ...]) -> DictConfig:
        if name not in self._explainers:
            self._explainers[name] = next(composed("run", [[f"explainer={name}", *setup]], self.overrides)).explainer
        return self._explainers[name]


def networks_of(dataset: str, overrides: Sequence[str]) -> list[list[str]]:
    """Return the networks that sweeps explain a dataset with; needs an initialised Hydra.

    Args:
        dataset: A name in ``configs/dataset``; its ``networks`` lists names, and lists of alternatives of which the
            first that can be had is taken. Without it, or where the user names one, there is one network.
        overrides: The user's overrides.

    Returns:
        The alternatives for each network; an empty list stands for the network that the configuration has anyway.
    """
    if "model" in overridden(overrides):
        return [[]]
    (cfg,) = composed("run", [[f"dataset={dataset}"]], overrides)
    return [[entry] if isinstance(entry, str) else list(entry) for entry in cfg.dataset.get("networks", ())] or [[]]
