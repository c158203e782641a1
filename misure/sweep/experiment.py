"""Experiments: one method on one dataset and network."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from misure.config import build, compute_of, scale_of, setup_name
from misure.errors import MisureError, did_you_mean
from misure.explainers.base import Explainer
from misure.models.compute import (
    AS_CONFIGURED,
    Compute,
    Precision,
    PrecisionChoice,
    choose_precision,
    default_device,
)
from misure.sweep.interventions import NOTHING, Intervention
from misure.sweep.keys import check_keys
from misure.sweep.records import Unit

if TYPE_CHECKING:  # tables read sweeps without what training needs
    from misure.sweep.sampling import Sample


@dataclass(frozen=True)
class Experiment:
    """One method on one dataset and network.

    Attributes:
        cfg: The composed configuration, for building the dataset and the network: its own, see :meth:`pinned`.
        explainer: The method.
        n_samples: How many validation samples are explained.
        sampling: Draws them, in their order.
        input_noise: Standard deviation of noise on the images, usually 0.
        intervention: What else is changed before explaining, usually nothing.
        after: Its place in the order of work: 0 from the start, 1 after all that begins before, 2 after that again.
        settled: Its precision, where that was settled for its network.
    """

    cfg: DictConfig
    explainer: Explainer
    n_samples: int
    sampling: Any
    input_noise: float
    intervention: Intervention = NOTHING
    after: int = 0
    settled: PrecisionChoice | None = None

    @classmethod
    def of(cls, cfg: DictConfig) -> Experiment:
        """Check and build an experiment.

        Raises:
            MisureError: If a value is out of range.
        """
        check_keys(cfg)
        explainer = build(cfg.explainer, **_reading(cfg)).at_scale(scale_of(cfg))
        if cfg.n_samples is None:
            counts = cfg.dataset.counts
            n_samples = int(counts.n_samples.get(explainer.name, counts.sweep_samples))
        else:
            n_samples = int(cfg.n_samples)
        return cls(
            cfg,
            explainer,
            n_samples,
            build(cfg.dataset.sampling),
            float(cfg.input_noise),
            Intervention.of(cfg.intervention),
            int(cfg.after),
        )

    @property
    def setup(self) -> str:
        """Name of the dataset and network it explains."""
        return setup_name(self.cfg)

    @property
    def scale(self) -> float:
        """Side of its images as a share of the paper's."""
        return scale_of(self.cfg)

    @functools.cached_property
    def compute(self) -> Compute:
        """Resources of its passes."""
        return compute_of(self.cfg)

    @functools.cached_property
    def precision(self) -> Precision:
        """The precision of its passes, part of what identifies its records.

        Raises:
            MisureError: If it is still to be measured, see :meth:`pinned`.
        """
        choice = self.settled or choose_precision(self.compute, default_device())
        if choice is None:
            raise MisureError("precision=auto was not settled before the experiment was run: set precision=32 or bf16")
        return choice.precision

    @property
    def precision_reason(self) -> str:
        """The reason for its precision."""
        return self.settled.reason if self.settled else AS_CONFIGURED

    def pinned(self, choice: PrecisionChoice, **runner: int | None) -> Experiment:
        """Return the experiment with what was measured for its network, so that it is the same on every machine.

        The values are set in its configuration itself: copying those of a whole run takes seconds.

        Args:
            choice: Of the precision.
            **runner: Values of keys of ``runner`` that were left to be chosen; None leaves them so.
        """
        self.cfg.precision = choice.setting
        for key, value in runner.items():
            if self.cfg.runner[key] == "auto" and value is not None:
                self.cfg.runner[key] = value
        return replace(self, settled=choice)

    def unit(self, sample: Sample, images: str, weights: str) -> Unit:
        """Return the identity of one sample's explanation.

        Args:
            sample: An object to explain.
            images: Fingerprint of the images.
            weights: Fingerprint of the network's weights.
        """
        return Unit(
            self.cfg.dataset.name,
            images,
            self.cfg.model.name,
            weights,
            self.explainer.name,
            self.explainer.parameters,
            sample.image,
            sample.class_id,
            self.input_noise,
            self.intervention.text,
            self.precision,
        )

    @property
    def n_maps(self) -> int:
        """How many of its first samples have their maps saved."""
        counts = self.cfg.dataset.counts
        return max(map(int, (counts.saved_maps, counts.stability_samples, counts.sanity_samples)))

    def needs_maps(self, rank: int) -> bool:
        """Say whether the maps of the sample of a rank are saved."""
        return rank < self.n_maps

    @property
    def records_key(self) -> str:
        """The identity of its records but for their samples: experiments of one key share those of common samples."""
        parameters, changed = self.explainer.parameters, self.intervention.text
        return json.dumps([self.setup, self.explainer.name, parameters, self.input_noise, changed])

    @property
    def label(self) -> str:
        """A short description for plans: what the paper varies, and what differs from the defaults."""
        given, usual = self.explainer.parameters, type(self.explainer).published().at_scale(self.scale).parameters
        named = ("lr", "lam", "mask_size", "n_masks")
        shown = [f"{k}={v}" for k, v in given.items() if k in named or (v != usual[k] and k != "seed")]
        changed = ["noise floor"] if self.input_noise else []
        changed += [self.intervention.text] if self.intervention.text else []
        return " ".join([self.setup, self.explainer.name, *shown, *changed])


def _reading(cfg: DictConfig) -> dict[str, Any]:
    """Return what the chosen reading of the paper changes of the method; nothing where none is chosen.

    Raises:
        MisureError: If the sweep does not list it.
    """
    listed = cfg.get("readings", {})
    if cfg.reading is not None and cfg.reading not in listed:
        raise MisureError(
            f"reading={cfg.reading} is not one of the sweep's{did_you_mean(str(cfg.reading), listed)}: "
            f"{', '.join(map(str, listed)) or 'choose a sweep that lists some, such as -m sweep=ambiguities'}"
        )
    changes = listed.get(cfg.reading, {})
    return {str(name): value for name, value in changes.items() if name != "title"}
