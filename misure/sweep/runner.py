"""Explaining what is planned and keeping a record of each explanation."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from misure import __version__
from misure.config import Experiment, compute_of
from misure.datasets.credit import CreditedDataset
from misure.explanation import Explanation
from misure.metrics import dice
from misure.model import frozen
from misure.randomness import normal
from misure.sweep.plan import Pace, rounds, share_before
from misure.sweep.records import RecordStore, Unit
from misure.sweep.samples import Sample
from misure.sweep.subject import Subject
from misure.target import EmptyTargetError, Target, make_targets

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
    """

    done: int = 0
    present: int = 0
    skipped: int = 0
    left: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


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

    def run(self, experiments: Sequence[Experiment]) -> Tally:
        """Explain every pending sample, in rounds, while the time lasts."""
        work = [(e, ranks, self._pending(e, ranks)) for e, ranks in rounds(experiments, images_per_step(experiments))]
        estimates = [len(pending) * self.paces[e.subject].explaining(e) for e, _, pending in work]
        self.tally.present = sum(len(self.samples(e, ranks)) - len(pending) for e, ranks, pending in work)
        started, correction, spent_estimate = time.monotonic(), 1.0, 0.0
        bar_format = "{desc}: {percentage:3.0f}%|{bar:24}| {elapsed} spent, {remaining} left"
        total = max(min(sum(estimates), self.deadline - started), 1e-9)
        with tqdm(total=total, bar_format=bar_format, desc="explaining") as bar:
            last_share = math.inf
            for (experiment, ranks, pending), estimate in zip(work, estimates, strict=True):
                if not pending:
                    continue
                share = share_before(experiment, ranks)
                if share > last_share or time.monotonic() + correction * estimate > self.deadline:
                    last_share = min(last_share, share)  # later ones would favour what is cheap
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
        cfg, explainer = experiment.cfg, experiment.explainer
        return Unit(
            cfg.dataset.name,
            subject.dataset.fingerprint,
            cfg.model.name,
            subject.info.fingerprint,
            explainer.name,
            explainer.parameters,
            sample.image,
            sample.class_id,
            experiment.input_noise,
        )

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
        return [s for s in self.samples(experiment, ranks) if not self.store.has(self.unit(experiment, s))]

    def _explain(self, experiment: Experiment, samples: list[Sample]) -> None:
        subject = self.subjects[experiment.subject]
        chosen: list[tuple[Sample, Tensor, Target, Tensor]] = []
        for sample in samples:
            image, mask = self._entry(experiment, sample)
            try:
                target = self._target(experiment, image, sample.class_id)
            except EmptyTargetError as error:
                row = {"status": "skipped", "reason": str(error), **self._circumstances(experiment, sample)}
                self.store.write(self.unit(experiment, sample), [row])
                self.tally.skipped += 1
                continue
            chosen.append((sample, image, target, mask == sample.class_id))
        for _, alike in groupby(chosen, key=lambda entry: entry[1].shape):
            same = list(alike)
            images = torch.stack([image for _, image, _, _ in same])
            explanations = experiment.explainer.explain(
                subject.model, images, [target for _, _, target, _ in same], compute_of(experiment.cfg)
            )
            for (sample, _, _, truth), explanation in zip(same, explanations, strict=True):
                self._keep(experiment, sample, truth, explanation)

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
            return make_targets(network, image[None].to(device), class_id)[0]

    def _keep(self, experiment: Experiment, sample: Sample, truth: Tensor, explanation: Explanation) -> None:
        target = explanation.target
        shared = {
            "status": "done",
            "reason": None,
            "truth_dice": float(dice(target.region[None].cpu(), truth[None])),
            "confidence": target.confidence,
            **{k: v for k, v in explanation.summary().items() if k not in {"method", "evaluations", "parameters"}},
            **self._circumstances(experiment, sample),
        }
        rows = [{**asdict(evaluation), **shared} for evaluation in explanation.evaluations]
        counts = experiment.cfg.dataset.counts
        kept = self.samples(experiment, range(max(counts.saved_maps, counts.noise_floor_samples)))
        maps = {**_maps(explanation), "truth": truth.numpy()} if sample in kept else None
        self.store.write(self.unit(experiment, sample), rows, maps)
        self.tally.done += 1

    def _circumstances(self, experiment: Experiment, sample: Sample) -> dict[str, Any]:
        subject = self.subjects[experiment.subject]
        device = subject.model.device or torch.device("cpu")
        credited = subject.dataset if isinstance(subject.dataset, CreditedDataset) else None
        return {
            "created": datetime.now(UTC).isoformat(timespec="microseconds"),
            "profile": experiment.cfg.profile.name,
            "dataset_source": subject.dataset.source,
            "stand_in": subject.dataset.stand_in,
            "substitution": experiment.cfg.model.get("substitution", ""),
            "network_source": subject.info.data.get("source"),
            **({f"credit_{k}": v for k, v in asdict(credited.credit(sample.image)).items()} if credited else {}),
            "class_name": experiment.cfg.dataset.class_names[sample.class_id],
            "group": subject.dataset.group(sample.image),
            "draw": sample.draw,
            "drawn": len(self.order(experiment)),
            "val_dice": subject.info.metrics.get("val_dice"),
            "device": torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else f"CPU, {torch.get_num_threads()} threads",
            "code_version": code_version(),
        }


def images_per_step(experiments: Sequence[Experiment]) -> int:
    """How many images are explained together: many on a GPU, one on a CPU, or what the configuration says."""
    wanted = experiments[0].cfg.runner.images_per_step if experiments else 1
    if wanted == "auto":
        return 32 if torch.cuda.is_available() else 1
    return int(wanted)


def code_version() -> str:
    """The package version, with the git commit where there is one."""
    if not _commit:
        folder = Path(__file__).resolve().parent
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
        try:
            found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)  # noqa: S603
            _commit.append(f"{__version__}+{found.stdout.strip()}")
        except (OSError, subprocess.SubprocessError):
            _commit.append(__version__)
    return _commit[0]


_commit: list[str] = []


def _maps(explanation: Explanation) -> dict[str, np.ndarray]:
    maps = {
        "image": explanation.image.numpy().astype(np.float16),
        "region": explanation.target.region.cpu().numpy(),
        "saliency": explanation.saliency.numpy().astype(np.float16),
    }
    if explanation.sufficient_region is not None:
        maps["sufficient_region"] = explanation.sufficient_region.numpy()
    return maps
