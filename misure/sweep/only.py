"""Which sweeps are run: all, or only what a table or figure is made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from misure.config import CONFIG_FOLDER, overridden
from misure.errors import MisureError, did_you_mean


def chosen_sweeps(cfg: DictConfig, given: Sequence[str] = ()) -> list[str]:
    """Name the sweeps to run, in the order in which they are run.

    Args:
        cfg: ``configs/reproduce.yaml``: ``only`` (outputs or sweeps, or null), ``made_from`` and ``sweeps``.
        given: The user's overrides.

    Raises:
        MisureError: If no output or sweep has the name, or ``sweeps`` and ``only`` are both given.
    """
    if not cfg.only:
        return list(cfg.sweeps)
    if "sweeps" in overridden(given):
        raise MisureError("only=... and sweeps=... both say what to run: give one of them")
    names = [cfg.only] if isinstance(cfg.only, str) else cfg.only
    wanted = {sweep for name in names for sweep in _made_from(cfg, str(name).lower())}
    return [*(s for s in cfg.sweeps if s in wanted), *sorted(wanted - set(cfg.sweeps))]


def _made_from(cfg: DictConfig, name: str) -> list[str]:
    if name in cfg.made_from:
        return list(cfg.made_from[name])
    sweeps = sorted(path.stem for path in Path(CONFIG_FOLDER, "sweep").glob("*.yaml"))
    if name not in sweeps:
        raise MisureError(
            f"only={name} is no table, figure or sweep{did_you_mean(name, sorted({*cfg.made_from, *sweeps}))}"
        )
    return [name]
