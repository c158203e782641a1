"""Fitting a configuration to what can be had: which network a dataset is explained with, and the size of a stand-in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from omegaconf import DictConfig, OmegaConf

from misure.config import build, composed
from misure.errors import MisureError
from misure.sweep.subject import import_network, is_at_hand, is_published


@dataclass
class NetworkChoice:
    """Names the network of datasets that list several (``dataset.networks``), best first.

    Attributes:
        overrides: The user's overrides; a model among them is kept.
        stand_in: Whether a network that is trained on generated images may be taken.
    """

    overrides: Sequence[str]
    stand_in: bool
    _chosen: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, cfg: DictConfig) -> list[str]:
        """Return the overrides that an experiment needs besides its own, if any.

        Raises:
            MisureError: If none of the networks can be had.
        """
        size = sized(cfg).dataset.size
        resized = [] if size == cfg.dataset.size else [f"dataset.size={size}"]
        return [*self._network(cfg), *resized]

    def _network(self, cfg: DictConfig) -> list[str]:
        if "networks" not in cfg.dataset or any(o.startswith("model=") for o in self.overrides):
            return []
        dataset = cfg.dataset.name
        if dataset not in self._chosen:
            self._chosen[dataset] = self._first(dataset, list(cfg.dataset.networks))
        return [f"model={self._chosen[dataset]}"]

    def _first(self, dataset: str, names: list[str]) -> str:
        reasons = []
        for name in names:
            (cfg,) = composed("run", [[f"dataset={dataset}", f"model={name}"]], self.overrides)
            try:
                self._check(cfg)
            except MisureError as error:
                reasons.append(f"{name}: {error}")
                continue
            left_out = "".join(f"\n  not {reason}" for reason in reasons)
            sys.stdout.write(f"network for {dataset}: {name}{left_out}\n")
            return name
        raise MisureError(f"no network for dataset={dataset}:\n" + "\n".join(reasons))

    def _check(self, cfg: DictConfig) -> None:
        """Raise a MisureError unless the images and the weights are here; published weights are fetched."""
        if not is_published(cfg):
            if not self.stand_in:
                raise MisureError("it would be trained on generated images: allow that with stand_in=true")
            return
        build(cfg.dataset.location)
        if is_at_hand(cfg):
            return
        weights = build(cfg.model.weights)
        if not weights.is_at_hand():
            raise MisureError(f"neither the file of {weights.source} nor its server was found")
        import_network(cfg)


def sized(cfg: DictConfig) -> DictConfig:
    """Give generated images the size that the profile has for them, unless the user chose one (``dataset.size``).

    Args:
        cfg: A run configuration.

    Returns:
        The same configuration where the dataset itself can be had, or has no smaller stand-in.
    """
    size = OmegaConf.select(cfg, "dataset.counts.stand_in_size")
    if size is None or not cfg.stand_in or cfg.dataset.size != cfg.dataset.counts.size:
        return cfg
    try:
        build(cfg.dataset.location)
    except MisureError:
        resized: DictConfig = cfg.copy()
        resized.dataset.size = size
        return resized
    return cfg
