"""Explaining what is planned and keeping a record of each explanation."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from misure.config import compute_of
from misure.errors import MisureError
from misure.evaluation.curves import explanation_curves, is_plain
from misure.explanation import Explanation
from misure.metrics import dice
from misure.models.compute import default_device
from misure.models.wrapper import FrozenNetwork, frozen
from misure.randomness import normal
from misure.sweep.circumstances import circumstances
from misure.sweep.experiment import Experiment
from misure.sweep.failures import reason_of
from misure.sweep.interventions import Interventions, other_class
from misure.sweep.plan import Pace, rounds
from misure.sweep.records import CannotWriteError, RecordStore, Unit
from misure.sweep.sampling import Sample
from misure.sweep.setup import Subject
from misure.target import EmptyTargetError, Target, make_targets

_log = logging.getLogger(__name__)

_Chosen = tuple[Sample, Tensor, Target, Tensor]
"""A sample, its image, what is explained of it, and where its class truly is."""

_KEPT = ("n_dilations", "seconds", "batch_size", "precision")  # of an explanation, in its record
_ENOUGH_TO_JUDGE = 5.0  # seconds of estimated work after which estimates are corrected by what it really took
_NOISE_KEY = 104729  # keeps the noise floor's draws apart from everything else keyed by the seed


@dataclass
class Tally:
    """What a run did.

    Attributes:
        done: Explanations computed now.
        present: Explanations that had a record already.
        skipped: Samples without anything to explain.
        left: Explanations that did not fit into the time.
        reasons: Why explanations failed, and how many for each reason.
    """

    done: int = 0
    present: int = 0
    skipped: int = 0
    left: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def failed(self) -> int:
        """Explanations that failed."""
        return self.reasons.total()


@dataclass
class Runner:
    """Runs experiments on prepared subjects.

    Args:
        store: Where records go.
        subjects: By name.
        paces: Measured speed by subject name, for the bar's time left.
        deadline: Monotonic time at which to end; what does not fit before it is left for another run.
    """

    store: RecordStore
    subjects: dict[str, Subject]
    paces: dict[str, Pace]
    deadline: float = math.inf
    tally: Tally = field(default_factory=Tally)
    _orders: dict[tuple[str, str, int], list[Sample]] = field(default_factory=dict, init=False, repr=False)
    _interventions: Interventions = field(default_factory=Interventions, init=False, repr=False)
    _from_others: dict[str, list[Unit]] = field(default_factory=dict, init=False, repr=False)

    def run(self, experiments: Sequence[Experiment]) -> Tally:
        """Explain every pending sample, in rounds, while the time lasts.

        A sample that fails is recorded with its reason, and the others go on. Nothing that comes after what does
        not fit into the time is tried, so that holes are at the end of the plan and not where methods are slow.

        Raises:
            CannotWriteError: If records cannot be written.
        """
        turns = rounds(experiments, images_per_step(experiments))
        work = [(e, self._pending(e, ranks)) for e, ranks in turns]
        for profile, units in self._from_others.items():
            self.store.serve(profile, units)
        estimates = [len(pending) * self.paces[e.subject].explaining(e) for e, pending in work]
        self.tally.present = sum(len(self.samples(e, r)) for e, r in turns) - sum(len(pending) for _, pending in work)
        started, correction, spent_estimate = time.monotonic(), 1.0, 0.0
        bar_format = "{desc}: {percentage:3.0f}%|{bar:24}| {elapsed} spent, {remaining} left"
        total = max(min(sum(estimates), self.deadline - started), 1e-9)
        with tqdm(total=total, bar_format=bar_format, desc="explaining") as bar:
            fits = True
            for (experiment, pending), estimate in zip(work, estimates, strict=True):
                if not pending:
                    continue
                fits = fits and time.monotonic() + correction * estimate <= self.deadline
                if not fits:
                    self.tally.left += len(pending)
                    continue
                bar.set_description_str(experiment.label)
                self._explain(experiment, [s for s in pending if not self.store.has(self.unit(experiment, s))])
                bar.update(estimate)
                spent_estimate += estimate
                if spent_estimate >= _ENOUGH_TO_JUDGE:
                    correction = (time.monotonic() - started) / spent_estimate
        return self.tally

    def unit(self, experiment: Experiment, sample: Sample) -> Unit:
        """The identity of one sample's explanation."""
        subject = self.subjects[experiment.subject]
        return unit_of(experiment, sample, subject.dataset.fingerprint, subject.info.fingerprint)

    def samples(self, experiment: Experiment, ranks: range) -> list[Sample]:
        """The samples at some ranks of the order in which samples are explained."""
        return self.order(experiment)[ranks.start : ranks.stop]

    def order(self, experiment: Experiment) -> list[Sample]:
        """All samples, in the order in which they are explained."""
        key = (experiment.subject, repr(experiment.sampling), experiment.cfg.seed)
        if key not in self._orders:
            subject = self.subjects[experiment.subject]
            self._orders[key] = subject.samples(experiment.sampling, experiment.cfg.seed, compute_of(experiment.cfg))
        return self._orders[key]

    def _pending(self, experiment: Experiment, ranks: range) -> list[Sample]:
        """Choose the samples that need work, and note which of the others another profile made."""
        pending = []
        for sample in self.samples(experiment, ranks):
            unit = self.unit(experiment, sample)
            outcome = self.store.outcome(unit)
            if not outcome.complete:
                pending.append(sample)
            elif outcome.profile != (profile := experiment.cfg.profile.name):
                self._from_others.setdefault(profile, []).append(unit)
        return pending

    def _explain(self, experiment: Experiment, samples: list[Sample]) -> None:
        chosen: list[_Chosen] = []
        for sample in samples:
            with self._recorded(experiment, sample):
                image, mask = self._entry(experiment, sample)
                target = self._target(experiment, image, sample.class_id)
                chosen.append((sample, image, target, mask == target.class_id))
        for _, alike in groupby(chosen, key=lambda entry: entry[1].shape):
            self._explain_together(experiment, list(alike))

    def _explain_together(self, experiment: Experiment, chosen: list[_Chosen]) -> None:
        """Explain images of one size; one by one where that fails, to find which of them it is."""
        images = torch.stack([image for _, image, _, _ in chosen])
        targets = [target for _, _, target, _ in chosen]
        subject, seed = self.subjects[experiment.subject], experiment.cfg.seed
        reason, explanations = "", list[Explanation]()
        try:
            model, explainer = self._interventions.apply(
                experiment.intervention, subject.model, experiment.explainer, images, seed
            )
            explanations = explainer.explain(model, images, targets, compute_of(experiment.cfg))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other samples go on
            _log.debug("%s failed", experiment.label, exc_info=True)
            reason = reason_of(error)
        if reason and torch.cuda.is_available():
            torch.cuda.empty_cache()  # here, where the exception no longer holds on to tensors
        if reason and len(chosen) == 1:
            self._fail(experiment, chosen[0][0], reason)
        elif reason:
            for entry in chosen:
                self._explain_together(experiment, [entry])
        for (sample, _, _, truth), explanation in zip(chosen, explanations, strict=not reason):
            with self._recorded(experiment, sample):
                self._keep(experiment, sample, truth, explanation)

    @contextmanager
    def _recorded(self, experiment: Experiment, sample: Sample) -> Iterator[None]:
        """Record a sample that has nothing to explain or fails, with the reason, instead of ending the run."""
        try:
            yield
        except CannotWriteError:
            raise
        except EmptyTargetError as error:
            self._write_reason(experiment, sample, "skipped", str(error))
            self.tally.skipped += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, the other samples go on
            _log.debug("%s failed", experiment.label, exc_info=True)
            self._fail(experiment, sample, reason_of(error))

    def _fail(self, experiment: Experiment, sample: Sample, reason: str) -> None:
        self._write_reason(experiment, sample, "failed", reason)
        self.tally.reasons[reason] += 1

    def _write_reason(self, experiment: Experiment, sample: Sample, status: str, reason: str) -> None:
        row = {"status": status, "reason": reason, **self._circumstances(experiment, sample)}
        self.store.write(self.unit(experiment, sample), [row])

    def _entry(self, experiment: Experiment, sample: Sample) -> tuple[Tensor, Tensor]:
        entry = self.subjects[experiment.subject].dataset[sample.image]
        image = entry["image"]
        if experiment.input_noise:
            pixels = torch.arange(image.numel())
            noise = normal(experiment.cfg.seed, _NOISE_KEY, sample.image, pixels).view_as(image)
            image = image + experiment.input_noise * noise.to(image.dtype)
        return image, entry["mask"]

    def _target(self, experiment: Experiment, image: Tensor, class_id: int) -> Target:
        model = self.subjects[experiment.subject].model
        device = model.device or image.device
        with frozen(model, compute_of(experiment.cfg), device) as network:
            images = image[None].to(device)
            if experiment.intervention.other_target:
                class_id = other_class(network, images, class_id)
            return _finite_target(network, images, class_id)

    def _keep(self, experiment: Experiment, sample: Sample, truth: Tensor, explanation: Explanation) -> None:
        target = explanation.target
        shared = {
            "status": "done",
            "reason": None,
            "truth_dice": float(dice(target.region[None], truth[None])),
            "confidence": target.confidence,
            "explained_class": target.class_id,
            **{name: getattr(explanation, name) for name in _KEPT},
            "prediction_size": target.size,
            **self._circumstances(experiment, sample),
        }
        rows = [{**asdict(evaluation), **shared} for evaluation in explanation.evaluations]
        counts = experiment.cfg.dataset.counts
        kept = self.samples(experiment, range(max(counts.saved_maps, counts.stability_samples, counts.sanity_samples)))
        maps = None
        if sample in kept:
            maps = _maps(explanation) | {"truth": truth.numpy()} | self._curves(experiment, sample, explanation)
        self.store.write(self.unit(experiment, sample), rows, maps)
        self.tally.done += 1

    def _curves(self, experiment: Experiment, sample: Sample, explanation: Explanation) -> dict[str, np.ndarray]:
        """Measure the first samples' curves, where nothing but the amount of work differs from the defaults."""
        disturbed = experiment.input_noise or experiment.intervention.text
        first = self.samples(experiment, range(experiment.cfg.dataset.counts.curve_samples))
        if disturbed or sample not in first or not is_plain(experiment.explainer):
            return {}
        model, explainer = self.subjects[experiment.subject].model, experiment.explainer
        return explanation_curves(model, explanation, explainer.fill, compute_of(experiment.cfg))

    def _circumstances(self, experiment: Experiment, sample: Sample) -> dict[str, Any]:
        return circumstances(experiment, self.subjects[experiment.subject], sample, len(self.order(experiment)))


def unit_of(experiment: Experiment, sample: Sample, images: str, weights: str) -> Unit:
    """Return the identity of one sample's explanation.

    Args:
        experiment: The method, the dataset and the network.
        sample: What is explained.
        images: Fingerprint of the images.
        weights: Fingerprint of the network's weights.
    """
    cfg, explainer = experiment.cfg, experiment.explainer
    return Unit(
        cfg.dataset.name,
        images,
        cfg.model.name,
        weights,
        explainer.name,
        explainer.parameters,
        sample.image,
        sample.class_id,
        experiment.input_noise,
        experiment.intervention.text,
        experiment.precision,
    )


def images_per_step(experiments: Sequence[Experiment]) -> int:
    """How many images are explained together: many on a GPU, one on a CPU, or what the configuration says."""
    wanted = experiments[0].cfg.runner.images_per_step if experiments else 1
    if wanted == "auto":
        return 32 if default_device().type == "cuda" else 1
    return int(wanted)


@torch.no_grad()
def _finite_target(network: FrozenNetwork, images: Tensor, class_id: int) -> Target:
    """Return what is explained of one image; a network that returns NaN is a failure and not an empty prediction."""
    try:
        target = make_targets(network, images, class_id)[0]
    except EmptyTargetError:
        if bool(network(images).isfinite().all()):
            raise
    else:
        if bool(target.reference.isfinite().all()):
            return target
    raise MisureError("the network returned NaN or infinity for the image itself: train it again")


def _maps(explanation: Explanation) -> dict[str, np.ndarray]:
    maps = {
        "image": explanation.image.numpy().astype(np.float16),
        "region": explanation.target.region.numpy(),
        "saliency": explanation.saliency.numpy().astype(np.float16),
    }
    if explanation.sufficient_region is not None:
        maps["sufficient_region"] = explanation.sufficient_region.numpy()
    return maps
