"""Fitting a configuration to what can be had: a dataset's network, and a stand-in's own counts and size."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from misure.config import build, composed, overridden
from misure.datasets.available import Available
from misure.errors import AbsentError, MisureError
from misure.sweep.setup import import_network, is_at_hand, is_published


@dataclass
class NetworkChoice:
    """Names the network of datasets that list several (``dataset.networks``), best first.

    Attributes:
        overrides: The user's overrides; a model among them is kept.
        stand_in: Whether generated images may take the place of a dataset, and a network be trained on them.
        fetch: Whether published weights are fetched, so that the next network is taken where that fails.
    """

    overrides: Sequence[str]
    stand_in: bool
    fetch: bool = True
    _chosen: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, cfg: DictConfig) -> list[str]:
        """Return the overrides that an experiment needs besides its own, if any.

        Raises:
            AbsentError: If the images or weights are not here and nothing may take their place.
            MisureError: If the weights that are here cannot be used.
        """
        if not self.stand_in:
            available(cfg).require()
        network = self._network(cfg)
        if network:
            (cfg,) = composed("run", [[f"dataset={cfg.dataset.name}", *network]], self.overrides)
        return [*network, *stand_in_overrides(cfg)]

    def _network(self, cfg: DictConfig) -> list[str]:
        if "networks" not in cfg.dataset or "model" in overridden(self.overrides):
            return []
        dataset = cfg.dataset.name
        if dataset not in self._chosen:
            self._chosen[dataset] = self._first(dataset, list(cfg.dataset.networks))
        return [f"model={self._chosen[dataset]}"]

    def _first(self, dataset: str, names: list[str]) -> str:
        reasons, absent = [], True
        for name in names:
            (cfg,) = composed("run", [[f"dataset={dataset}", f"model={name}"]], self.overrides)
            try:
                self._check(cfg)
            except MisureError as error:
                reasons.append(f"{name}: {str(error).splitlines()[0]}")
                absent = absent and isinstance(error, AbsentError)
                continue
            left_out = "".join(f"\n  not {reason}" for reason in reasons)
            sys.stdout.write(f"network for {dataset}: {name}{left_out}\n")
            return name
        kind = AbsentError if absent else MisureError
        raise kind(f"no network for dataset={dataset}:\n" + "\n".join(reasons))

    def _check(self, cfg: DictConfig) -> None:
        """Raise a MisureError unless the images and the weights are here; published weights are fetched."""
        if not is_published(cfg):
            if not self.stand_in:
                raise AbsentError("it would be trained on generated images: allow that with stand_in=true")
            return
        available(cfg).require()
        if is_at_hand(cfg):
            return
        weights = build(cfg.model.weights)
        if not weights.is_at_hand():
            raise AbsentError(f"neither the file of {weights.source} nor its server was found")
        if self.fetch:
            import_network(cfg)


def available(cfg: DictConfig) -> Available:
    """Say what there is of a configuration's dataset; a dataset that does not tell is taken to be there.

    Args:
        cfg: A run configuration.
    """
    node = OmegaConf.select(cfg, "dataset.available")
    if node is None:
        return Available("real", str(cfg.dataset.val._target_), {})
    there: Available = build(node)
    return there


def stand_in_overrides(cfg: DictConfig) -> list[str]:
    """Name what the profile has otherwise for a dataset's stand-in (``profile.<dataset>.stand_in``).

    Args:
        cfg: A run configuration.

    Returns:
        Overrides; none where the dataset itself is taken.
    """
    otherwise = OmegaConf.select(cfg, "dataset.counts.stand_in")
    if otherwise is None or available(cfg).state != "stand-in":
        return []
    flat = OmegaConf.to_container(otherwise, resolve=True)
    assert isinstance(flat, dict)  # noqa: S101 - a mapping in every profile
    return [f"profile.{cfg.dataset.name}.{key}={value}" for key, value in _leaves(flat)]


def fitted(cfg: DictConfig, config: str, overrides: Sequence[str]) -> DictConfig:
    """Compose a configuration anew for a stand-in, where one will be taken; what the user overrides wins.

    Args:
        cfg: As it was composed.
        config: ``configs/<config>.yaml``, which it was composed from.
        overrides: The user's overrides.
    """
    changes = stand_in_overrides(cfg)
    return next(composed(config, [changes], overrides)) if changes else cfg


def _leaves(tree: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
