"""Explaining samples of one setup together and keeping a record of each, whatever happens to it."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from multiprocessing import parent_process
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from misure.datasets.credit import CreditedDataset
from misure.errors import MisureError
from misure.evaluation.curves import explanation_curves, is_plain
from misure.explanation import Explanation
from misure.metrics import dice
from misure.models.compute import device_name
from misure.models.recall import Recall
from misure.models.wrapper import FrozenNetwork, frozen
from misure.randomness import normal
from misure.sweep.experiment import Experiment
from misure.sweep.interventions import Interventions, other_class
from misure.sweep.journal import CannotWriteError, reason_of
from misure.sweep.provenance import code_version
from misure.sweep.records import RecordStore, Unit
from misure.sweep.sampling import Sample
from misure.sweep.setup import Setup
from misure.target import EmptyTargetError, Target, make_targets

_log = logging.getLogger(__name__)

_Chosen = tuple[Sample, Tensor, Target, Tensor]
"""A sample, its image, what is explained of it, and where its class truly is."""

_KEPT = ("n_dilations", "seconds", "batch_size", "precision")  # of an explanation, in its record
_NOISE_KEY = 104729  # keeps the noise floor's draws apart from everything else keyed by the seed


@dataclass
class RunCounts:
    """Numbers of explanations by what became of them.

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

    @property
    def failed(self) -> int:
        """Explanations that failed."""
        return self.reasons.total()

    def add(self, other: RunCounts) -> None:
        """Add what became of further samples."""
        for name in ("done", "present", "skipped", "left"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons += other.reasons


@dataclass
class Recorder:
    """Explains samples of a setup and writes a record of each.

    Attributes:
        store: Where records go.
        setup: What is explained.
        counts: What became of the samples.
        interventions: Keeps changed networks.
        recall: Keeps stage 1 of MiSuRe for all methods that begin with it; other processes compute it anew.
    """

    store: RecordStore
    setup: Setup
    counts: RunCounts = field(default_factory=RunCounts)
    interventions: Interventions = field(default_factory=Interventions, repr=False)
    recall: Recall = field(default_factory=Recall, repr=False)

    def unit(self, experiment: Experiment, sample: Sample) -> Unit:
        """The identity of one sample's explanation."""
        return experiment.unit(sample, self.setup.dataset.fingerprint, self.setup.info.fingerprint)

    def samples(self, experiment: Experiment) -> list[Sample]:
        """All samples, in the order in which they are explained."""
        return self.setup.samples(experiment.sampling, experiment.cfg.seed, experiment.compute)

    def explain(self, experiment: Experiment, samples: Sequence[Sample]) -> None:
        """Explain samples together where their images are of one size; one that fails is recorded with its reason.

        Raises:
            CannotWriteError: If records cannot be written.
        """
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
        reason, explanations = "", list[Explanation]()
        self.setup.model.recall = self.recall  # the weights of a setup stay what they are
        try:
            model, explainer = self.interventions.apply(
                experiment.intervention, self.setup.model, experiment.explainer, images, experiment.cfg.seed
            )
            explanations = explainer.explain(model, images, targets, experiment.compute)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other samples go on
            reason = self._reason(experiment, error)
        if reason and torch.cuda.is_available():
            with suppress(RuntimeError):
                torch.cuda.empty_cache()  # here, where the exception no longer holds on to tensors
        if reason and len(chosen) == 1:
            self.fail(experiment, chosen[0][0], reason)
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
            self.counts.skipped += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, the other samples go on
            self.fail(experiment, sample, self._reason(experiment, error))

    def _reason(self, experiment: Experiment, error: Exception) -> str:
        """Say why samples fail, unless it is the GPU: that ends this process, as all later ones would fail on it."""
        _log.debug("%s failed", experiment.label, exc_info=True)
        device = self.setup.model.device
        if device is not None and device.type == "cuda" and not _works(device):
            _end(f"the GPU does not work any more ({reason_of(error)}): the same command goes on")
        return reason_of(error)

    def fail(self, experiment: Experiment, sample: Sample, reason: str) -> None:
        """Record that a sample cannot be explained; numbers from before, whose maps were to be made anew, stay.

        Raises:
            CannotWriteError: If records cannot be written.
        """
        if self.store.outcome(self.unit(experiment, sample)).status != "done":
            self._write_reason(experiment, sample, "failed", reason)
        self.counts.reasons[reason] += 1

    def _write_reason(self, experiment: Experiment, sample: Sample, status: str, reason: str) -> None:
        row = {"status": status, "reason": reason, **self._circumstances(experiment, sample)}
        self.store.write(self.unit(experiment, sample), [row])

    def _entry(self, experiment: Experiment, sample: Sample) -> tuple[Tensor, Tensor]:
        entry = self.setup.dataset[sample.image]
        image = entry["image"]
        if experiment.input_noise:
            pixels = torch.arange(image.numel())
            noise = normal(experiment.cfg.seed, _NOISE_KEY, sample.image, pixels).view_as(image)
            image = image + experiment.input_noise * noise.to(image.dtype)
        return image, entry["mask"]

    def _target(self, experiment: Experiment, image: Tensor, class_id: int) -> Target:
        model = self.setup.model
        device = model.device or image.device
        with frozen(model, experiment.compute, device) as network:
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
            "device": device_name(self.setup.model.device or torch.device("cpu")),
            "prediction_size": target.size,
            **self._circumstances(experiment, sample),
        }
        rows = [{**asdict(evaluation), **shared} for evaluation in explanation.evaluations]
        maps = None
        if sample in self.samples(experiment)[: experiment.n_maps]:
            maps = _maps(explanation) | {"truth": truth.numpy()} | self._curves(experiment, sample, explanation)
        self.store.write(self.unit(experiment, sample), rows, maps)
        self.counts.done += 1

    def _curves(self, experiment: Experiment, sample: Sample, explanation: Explanation) -> dict[str, np.ndarray]:
        """Measure the first samples' curves, where nothing but the amount of work differs from the defaults."""
        disturbed = experiment.input_noise or experiment.intervention.text
        first = self.samples(experiment)[: experiment.cfg.dataset.counts.curve_samples]
        if disturbed or sample not in first or not is_plain(experiment.explainer, experiment.scale):
            return {}
        return explanation_curves(self.setup.model, explanation, experiment.explainer.fill, experiment.compute)

    def _circumstances(self, experiment: Experiment, sample: Sample) -> dict[str, Any]:
        """Return the columns of a record that say when, where and on what an explanation was made."""
        dataset, info = self.setup.dataset, self.setup.info
        credited = dataset if isinstance(dataset, CreditedDataset) else None
        return {
            "created": datetime.now(UTC).isoformat(timespec="microseconds"),
            "profile": experiment.cfg.profile.name,
            "dataset_source": dataset.source,
            "stand_in": dataset.stand_in,
            "substitution": experiment.cfg.model.get("substitution", ""),
            "scale": experiment.scale,
            "network_source": info.data.get("source"),
            "precision_reason": experiment.precision_reason,
            "initial_weights": info.initial_weights,
            "weights_origin": info.origin,
            **({f"credit_{k}": v for k, v in asdict(credited.credit(sample.image)).items()} if credited else {}),
            "class_name": experiment.cfg.dataset.class_names[sample.class_id],
            "group": dataset.group(sample.image),
            "draw": sample.draw,
            "drawn": len(self.samples(experiment)),
            "val_dice": info.metrics.get("val_dice"),
            "code_version": code_version(),
        }


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


def _works(device: torch.device) -> bool:
    """Say whether a GPU still calculates: after some errors every later operation of a process fails."""
    try:
        torch.ones(1, device=device).add(1).cpu()
        torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False
    return True


def _end(reason: str) -> NoReturn:
    """End this process; a worker's own exception would go to the process that it works for."""
    if parent_process() is None:
        sys.exit(f"misure: {reason}")
    print(f"misure: {reason}", file=sys.stderr, flush=True)
    os._exit(1)


def _maps(explanation: Explanation) -> dict[str, np.ndarray]:
    maps = {
        "image": explanation.image.numpy().astype(np.float16),
        "region": explanation.target.region.numpy(),
        "saliency": explanation.saliency.numpy().astype(np.float16),
    }
    if explanation.sufficient_region is not None:
        maps["sufficient_region"] = explanation.sufficient_region.numpy()
    return maps
