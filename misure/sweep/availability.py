"""Choice of the network of a dataset: the first whose images and weights can be had."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from omegaconf import DictConfig

from misure.config import build, composed
from misure.errors import AbsentError, MisureError
from misure.models.compute import Precision
from misure.models.wrapper import SegmentationModel
from misure.sweep.images import available, stand_in_overrides
from misure.sweep.networks import elsewhere, import_network, is_at_hand, needs_no_training
from misure.sweep.setup import Setup, described


@dataclass(frozen=True)
class NetworkChoice:
    """Chooses the network of a setup: the first whose images and weights can be had.

    Attributes:
        overrides: The user's overrides.
        stand_in: Whether generated images may take the place of a dataset, and a network be trained on them.
        fetch: Whether weights made elsewhere are fetched, so that the next network is taken where that fails.
    """

    overrides: Sequence[str]
    stand_in: bool
    fetch: bool = True

    def __call__(self, dataset: str, networks: Sequence[str]) -> list[str]:
        """Return the overrides that make the setup: its dataset, its network and what the profile has for a stand-in.

        Args:
            dataset: A name in ``configs/dataset``.
            networks: Names in ``configs/model``, the best first; without any, the network is the configuration's.

        Raises:
            AbsentError: If the images or weights are not here and nothing may take their place.
            MisureError: If the weights that are here cannot be used.
        """
        if not self.stand_in:
            available(self._composed(dataset)).require()
        if not networks:
            cfg = self._composed(dataset)
            needs_no_training(cfg)  # which finds out here what is wrong with weights that are
            return [f"dataset={dataset}", *stand_in_overrides(cfg)]
        name = self._first(dataset, networks)
        return [f"dataset={dataset}", f"model={name}", *stand_in_overrides(self._composed(dataset, name))]

    def _composed(self, dataset: str, network: str = "") -> DictConfig:
        variant = [f"dataset={dataset}", *([f"model={network}"] if network else [])]
        return next(composed("run", [variant], self.overrides))

    def _first(self, dataset: str, names: Sequence[str]) -> str:
        reasons, absent = [], True
        for name in names:
            try:
                self._check(self._composed(dataset, name))
            except MisureError as error:
                if len(names) == 1:
                    raise
                reasons.append(f"{name}: {str(error).splitlines()[0]}")
                absent = absent and isinstance(error, AbsentError)
                continue
            if len(names) > 1:
                left_out = "".join(f"\n  not {reason}" for reason in reasons)
                sys.stdout.write(f"network for {dataset}: {name}{left_out}\n")
            return name
        kind = AbsentError if absent else MisureError
        raise kind(f"no network for dataset={dataset}:\n" + "\n".join(reasons))

    def _check(self, cfg: DictConfig) -> None:
        """Raise a MisureError unless the images and the weights are here; those made elsewhere are fetched."""
        images = available(cfg)
        if images.state == "stand-in" and not self.stand_in:
            raise AbsentError("it would be trained on generated images: allow that with stand_in=true")
        images.require()
        if is_at_hand(cfg) or (weights := elsewhere(cfg)) is None:
            return
        if not weights.is_at_hand():
            raise AbsentError(f"neither the file of {weights.source} nor its server was found")
        if self.fetch:
            import_network(cfg)


def setup_at_hand(cfg: DictConfig, settled: Precision | None = None) -> Setup | None:
    """Describe a setup whose network is trained and whose images are here; nothing is loaded, downloaded or generated.

    Args:
        cfg: A run configuration.
        settled: The precision of passes, where it was settled before.

    Returns:
        The setup, whose network must not be asked for; None where something is missing, or damaged, which is reported
        when it is used.
    """
    if not is_at_hand(cfg):
        return None
    try:
        offline = available(cfg).offline
        if offline is None:
            return None
        return replace(described(cfg, build(cfg.dataset.val, **offline), settled), load=_refuse)
    except MisureError:
        return None


def _refuse() -> SegmentationModel:
    raise AbsentError("a plan loads no network")
