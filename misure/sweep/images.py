"""Images of a configuration: what there is of them, and the counts and size that its stand-in has instead."""

from __future__ import annotations

import json
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from misure.config import build, composed, leaves
from misure.datasets.available import Available


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
    resolved = OmegaConf.to_container(otherwise, resolve=True)
    written = ((key, repr(v) if isinstance(v, float) else json.dumps(v)) for key, v in leaves(resolved))
    return [f"++profile.{cfg.dataset.name}.{key}={value}" for key, value in written]


def fitted(cfg: DictConfig, config: str, overrides: Sequence[str]) -> DictConfig:
    """Compose a configuration anew for a stand-in, where one will be taken; what the user overrides wins.

    Args:
        cfg: As it was composed.
        config: ``configs/<config>.yaml``, which it was composed from.
        overrides: The user's overrides.
    """
    changes = stand_in_overrides(cfg)
    return next(composed(config, [changes], overrides)) if changes else cfg
