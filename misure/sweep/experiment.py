"""One method on one dataset and network, and the experiments of a sweep."""

from __future__ import annotations

import functools
import itertools
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from misure.config import build, composed, compute_of, config_groups, number, overridden, subject_of, sweep_grid
from misure.errors import MisureError
from misure.explainers.base import Explainer
from misure.models.compute import AS_CONFIGURED, Precision, PrecisionChoice, choose_precision, default_device
from misure.sweep.interventions import NOTHING, Intervention


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
        precision_reason: Why its precision was taken.
    """

    cfg: DictConfig
    explainer: Explainer
    n_samples: int
    sampling: Any
    input_noise: float
    intervention: Intervention = NOTHING
    after: float = 0.0
    precision_reason: str = AS_CONFIGURED

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
        return subject_of(self.cfg)

    @functools.cached_property
    def precision(self) -> Precision:
        """The precision of its passes, part of what identifies its records.

        Raises:
            MisureError: If it is still to be measured, see :meth:`pinned`.
        """
        choice = choose_precision(compute_of(self.cfg), default_device())
        if choice is None:
            raise MisureError("precision=auto was not settled before the experiment was run: set precision=32 or bf16")
        return choice.precision

    def pinned(self, choice: PrecisionChoice) -> Experiment:
        """Return the experiment with the precision that was chosen for its network."""
        return replace(self, cfg=with_precision(self.cfg, choice), precision_reason=choice.reason)

    @property
    def label(self) -> str:
        """A short description for plans: what the paper varies, and what differs from the defaults."""
        given, usual = self.explainer.parameters, type(self.explainer)().parameters
        named = ("lr", "lam", "mask_size", "n_masks")
        shown = [f"{k}={v}" for k, v in given.items() if k in named or (v != usual[k] and k != "seed")]
        changed = ["noise floor"] if self.input_noise else []
        changed += [self.intervention.text] if self.intervention.text else []
        return " ".join([self.subject, self.explainer.name, *shown, *changed])


def with_precision(cfg: DictConfig, choice: PrecisionChoice) -> DictConfig:
    """Return a configuration with the precision that was chosen."""
    chosen = _copied(cfg)
    chosen.precision = choice.setting
    return chosen


def _copied(cfg: DictConfig) -> DictConfig:
    """Copy a configuration; pickling does that in an eighth of deepcopy's 10 ms."""
    copied: DictConfig = pickle.loads(pickle.dumps(cfg))  # noqa: S301 - of this process
    return copied


@dataclass
class Sweeps:
    """Composes the experiments of sweeps; needs an initialised Hydra.

    Composing takes a tenth of a second, so each dataset and network of a sweep, and each method of all sweeps, is
    composed once; the other values are set.

    Attributes:
        overrides: Command-line style overrides that hold for all experiments and win over a sweep's values.
        choose: Names further overrides for a dataset and network, given one of their composed experiments.
    """

    overrides: Sequence[str]
    choose: Callable[[DictConfig], Sequence[str]] = lambda _: ()
    _bases: dict[tuple[str, ...], DictConfig] = field(default_factory=dict, init=False, repr=False)
    _chosen: dict[tuple[str, ...], Sequence[str]] = field(default_factory=dict, init=False, repr=False)
    _explainers: dict[str, DictConfig] = field(default_factory=dict, init=False, repr=False)

    def expand(self, name: str) -> Iterator[Experiment]:
        """Compose every experiment of ``configs/sweep/<name>.yaml``.

        Raises:
            MisureError: If a configuration does not compose.
        """
        grid = sweep_grid(name, self.overrides)
        for values in itertools.product(*grid.values()):
            yield Experiment.of(self._with(name, dict(zip(grid, values, strict=True))))

    @functools.cached_property
    def _groups(self) -> set[str]:
        return config_groups()

    @functools.cached_property
    def _overridden(self) -> set[str]:
        return overridden(self.overrides)

    def _with(self, sweep: str, values: Mapping[str, str]) -> DictConfig:
        subject = tuple(f"{k}={v}" for k, v in values.items() if k in self._groups and k != "explainer")
        cfg = _copied(self._base(sweep, subject, values.get("explainer")))
        with open_dict(cfg):
            if "explainer" in values:
                cfg.explainer = self._explainer(values["explainer"])
            for key, value in values.items():
                if key not in self._groups and key not in self._overridden:
                    OmegaConf.update(cfg, key, OverridesParser.create().parse_override(f"{key}={value}").value())
        return cfg

    def _base(self, sweep: str, subject: tuple[str, ...], explainer: str | None) -> DictConfig:
        if (sweep, *subject) not in self._bases:
            variant = [f"sweep={sweep}", *subject, *([f"explainer={explainer}"] if explainer else [])]
            if subject not in self._chosen:
                self._chosen[subject] = self.choose(next(composed("run", [variant], self.overrides)))
            variant += self._chosen[subject]
            self._bases[sweep, *subject] = next(composed("run", [variant], self.overrides))
        return self._bases[sweep, *subject]

    def _explainer(self, name: str) -> DictConfig:
        if name not in self._explainers:
            self._explainers[name] = next(composed("run", [[f"explainer={name}"]], self.overrides)).explainer
        return self._explainers[name]
