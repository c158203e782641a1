"""The seam to Hydra: composing, checking and instantiating configurations happens here alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from misure.compute import Compute
from misure.errors import MisureError
from misure.explainers.base import Explainer
from misure.sweep.interventions import NOTHING, Intervention

_HERE = Path(__file__).resolve().parent
_PACKED = _HERE / "_configs"
CONFIG_FOLDER = str(_PACKED if _PACKED.is_dir() else _HERE.parent / "configs")
"""Packed into the package where it is installed; beside it in a clone."""


def build(node: DictConfig | Mapping[str, Any], **extra: Any) -> Any:
    """Instantiate a config node; a MisureError inside it comes out as itself.

    Raises:
        MisureError: If the node cannot be resolved or its constructor refuses it.
    """
    try:
        return instantiate(node, _convert_="all", **extra)
    except (HydraException, OmegaConfBaseException, TypeError) as error:
        if isinstance(error.__cause__, MisureError):
            raise error.__cause__ from None
        raise MisureError(f"configuration error: {' '.join(str(error).split())}") from error


def number(cfg: DictConfig, key: str, low: float = 0.0) -> float:
    """Read a number of at least ``low``, such as ``lambda``, which YAML would also accept as text.

    Raises:
        MisureError: If it is anything else.
    """
    value = cfg[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < low:
        raise MisureError(f"{key}={value} is not a number of at least {low:g}: for example {key}={low or 0.01:g}")
    return float(value)


@dataclass(frozen=True)
class Experiment:
    """One method on one dataset and network.

    Attributes:
        cfg: The composed configuration, for building the dataset and the network.
        explainer: The method.
        n_samples: How many validation samples are explained.
        sampling: Which ones, and in which order.
        input_noise: Standard deviation of noise on the images, usually 0.
        intervention: What else is changed before explaining, usually nothing.
        after: Share of their samples that others explain before this one begins, 0..1.
    """

    cfg: DictConfig
    explainer: Explainer
    n_samples: int
    sampling: Any
    input_noise: float
    intervention: Intervention = NOTHING
    after: float = 0.0

    @classmethod
    def of(cls, cfg: DictConfig) -> Experiment:
        """Check and build an experiment.

        Raises:
            MisureError: If a value is out of range.
        """
        for key, low in (("lr", 0), ("lambda", 0), ("input_noise", 0), ("mask_size", 1)):
            number(cfg, key, low)
        explainer = build(cfg.explainer)
        number(cfg, "n_samples", 1)  # by default the profile's number for this method
        return cls(
            cfg,
            explainer,
            int(cfg.n_samples),
            build(cfg.dataset.sampling),
            float(cfg.input_noise),
            Intervention.of(cfg.intervention),
            min(number(cfg, "after"), 1.0),
        )

    @property
    def subject(self) -> str:
        """Which dataset and network it explains."""
        return f"{self.cfg.dataset.name}-{self.cfg.model.name}"

    @property
    def label(self) -> str:
        """A short description for plans: what the paper varies, and what differs from the defaults."""
        given, usual = self.explainer.parameters, type(self.explainer)().parameters
        named = ("lr", "lam", "mask_size", "n_masks")
        shown = [f"{k}={v}" for k, v in given.items() if k in named or (v != usual[k] and k != "seed")]
        changed = ["noise floor"] if self.input_noise else []
        changed += [self.intervention.text] if self.intervention.text else []
        return " ".join([self.subject, self.explainer.name, *shown, *changed])


def compute_of(cfg: DictConfig) -> Compute:
    """Build the compute settings of a configuration."""
    compute = build(cfg.runner.compute)
    if not isinstance(compute, Compute):
        raise MisureError("runner.compute does not describe a Compute")
    return compute


def expand_sweep(
    name: str, overrides: Sequence[str], choose: Callable[[DictConfig], Sequence[str]] = lambda _: ()
) -> Iterator[Experiment]:
    """Compose every experiment of ``configs/sweep/<name>.yaml``; needs an initialised Hydra.

    Args:
        name: The table or figure.
        overrides: Command-line style overrides that hold for all of them.
        choose: Names further overrides for a dataset and network, given one of their composed experiments.

    Raises:
        MisureError: If a configuration does not compose.
    """
    try:
        sweep = compose("run", [f"sweep={name}", *overrides], return_hydra_config=True)
    except HydraException as error:
        raise MisureError(f"sweep {name}: {' '.join(str(error).split())}") from error
    grid: dict[str, Any] = dict(sweep.hydra.sweeper.params or {})
    axes = [[f"{key}={value}" for value in _split(str(values))] for key, values in grid.items()]
    chosen: dict[tuple[str, ...], Sequence[str]] = {}
    for values in itertools.product(*axes):
        variant = [f"sweep={name}", *values]
        subject = tuple(value for value in values if value.startswith(("dataset=", "model=")))
        if subject not in chosen:  # composing takes a tenth of a second, and what is chosen is the subject's alone
            chosen[subject] = choose(next(composed("run", [variant], overrides)))
        yield Experiment.of(next(composed("run", [[*variant, *chosen[subject]]], overrides)))


def composed(config: str, variants: Iterable[Sequence[str]], overrides: Sequence[str]) -> Iterator[DictConfig]:
    """Compose variants of an entry point's configuration; needs an initialised Hydra.

    Args:
        config: ``configs/<config>.yaml``.
        variants: Overrides of each; what the user overrides wins.
        overrides: The user's overrides.

    Raises:
        MisureError: If a configuration does not compose.
    """
    for variant in variants:
        try:
            yield compose(config, [*variant, *overrides])
        except HydraException as error:
            raise MisureError(f"{' '.join(variant)}: {' '.join(str(error).split())}") from error


def _split(values: str) -> list[str]:
    """Split a sweep's values the way Hydra's sweeper would."""
    override = OverridesParser.create().parse_override(f"key={values}")
    return list(override.sweep_string_iterator()) if override.is_sweep_override() else [values]
