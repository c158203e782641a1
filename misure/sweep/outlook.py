"""What is there and what is missing of each experiment, without loading a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from misure.config import build
from misure.datasets.datamodule import SegmentationDataset
from misure.errors import MisureError
from misure.models.checkpoint import read_info
from misure.sweep.availability import available
from misure.sweep.experiment import Experiment
from misure.sweep.plan import records_key
from misure.sweep.predictions import Survey, identity_of
from misure.sweep.records import RecordStore
from misure.sweep.runner import unit_of
from misure.sweep.sampling import Sample
from misure.sweep.setup import checkpoint_path, is_at_hand


@dataclass(frozen=True)
class Outlook:
    """How far one experiment is.

    Attributes:
        experiment: What is planned.
        to_do: Explanations to make; at most so many where the network is not trained yet.
        done: Explanations that are there.
        skipped: Samples known to have nothing to explain, by reason.
        failed: Explanations among those to do that failed before.
    """

    experiment: Experiment
    to_do: int = 0
    done: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    failed: int = 0


def outlooks(experiments: Sequence[Experiment], store: RecordStore) -> Iterator[Outlook]:
    """Count what each experiment lacks; what two of them share counts for the first alone."""
    known: dict[str, _Known | None] = {}
    counted: set[str] = set()
    most: dict[str, int] = {}
    for experiment in experiments:
        if experiment.subject not in known:
            known[experiment.subject] = _Known.of(experiment)
        subject = known[experiment.subject]
        samples = subject.samples(experiment) if subject else None
        if subject is None or samples is None:
            key = records_key(experiment)
            yield Outlook(experiment, to_do=max(0, experiment.n_samples - most.get(key, 0)))
            most[key] = max(experiment.n_samples, most.get(key, 0))
            continue
        units = [unit_of(experiment, s, subject.images.fingerprint, subject.weights) for s in samples]
        fresh = {unit.id: unit for unit in units if unit.id not in counted}
        counted.update(fresh)
        outcomes = [store.outcome(unit) for unit in fresh.values()]
        status = Counter(outcome.status for outcome in outcomes)
        yield Outlook(
            experiment,
            to_do=len(outcomes) - status["done"] - status["skipped"],
            done=status["done"],
            skipped=Counter(outcome.reason for outcome in outcomes if outcome.status == "skipped"),
            failed=status["failed"],
        )


@dataclass(frozen=True)
class _Known:
    """A trained network's fingerprint and the images it is explained on."""

    images: SegmentationDataset
    weights: str
    survey: Path
    _drawn: dict[str, list[Sample] | None] = field(default_factory=dict)

    @classmethod
    def of(cls, experiment: Experiment) -> _Known | None:
        """Look for the checkpoint and the images; what is wrong with them is reported when they are used."""
        cfg = experiment.cfg
        if not is_at_hand(cfg):
            return None
        try:
            offline = available(cfg).offline
            if offline is None:
                return None
            info, images = read_info(checkpoint_path(cfg)), build(cfg.dataset.val, **offline)
        except MisureError:
            return None
        survey = identity_of(experiment.subject, info.fingerprint, images.fingerprint, experiment.precision)
        return cls(images, info.fingerprint, Path(cfg.outputs, "surveys", f"{survey}.npz"))

    def samples(self, experiment: Experiment) -> list[Sample] | None:
        """Draw an experiment's samples; None where that takes a survey that was not made yet."""
        key = repr((experiment.sampling, experiment.cfg.seed))
        if key not in self._drawn:
            try:
                drawn = experiment.sampling.draw(len(self.images), self._surveyed, experiment.cfg.seed)
            except FileNotFoundError:
                drawn = None
            self._drawn[key] = drawn
        samples = self._drawn[key]
        return samples if samples is None else samples[: experiment.n_samples]

    def _surveyed(self) -> Survey:
        survey = Survey.load(self.survey)
        if survey is None:
            raise FileNotFoundError(self.survey)
        return survey
