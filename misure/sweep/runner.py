"""Running experiments on one setup: in rounds, as far as the time goes, without what was done before."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from misure.models.compute import default_device
from misure.sweep.experiment import Experiment
from misure.sweep.pace import Pace
from misure.sweep.recorder import Recorder
from misure.sweep.records import Unit
from misure.sweep.sampling import Sample

_ENOUGH_TO_JUDGE = 5.0  # seconds of estimated work after which estimates are corrected by what it really took

_PAUSE = 0.2  # seconds between looks at what another process works on


@dataclass
class Runner:
    """Runs experiments on a prepared setup.

    Attributes:
        recorder: Explains and writes records.
        pace: Measured speed of the network, for the bar's time left.
        deadline: Monotonic time at which to end; what does not fit before it is left for another run.
    """

    recorder: Recorder
    pace: Pace
    deadline: float = math.inf
    _from_others: dict[str, list[Unit]] = field(default_factory=dict, init=False, repr=False)

    def run(self, experiments: Sequence[Experiment]) -> None:
        """Explain every pending sample, in rounds, while the time lasts.

        A sample that fails is recorded with its reason, and the others go on. Nothing that comes after what does
        not fit into the time is tried, so that holes are at the end of the plan and not where methods are slow.

        Raises:
            CannotWriteError: If records cannot be written.
        """
        counts, store = self.recorder.counts, self.recorder.store
        turns = rounds(experiments, images_per_step(experiments))
        work = [(experiment, self._pending(experiment, ranks)) for experiment, ranks in turns]
        for profile, units in self._from_others.items():
            store.serve(profile, units)
        estimates = [len(pending) * self.pace.explaining(experiment) for experiment, pending in work]
        counts.present += sum(len(self._samples(*turn)) for turn in turns) - sum(len(pending) for _, pending in work)
        started, correction, spent_estimate = time.monotonic(), 1.0, 0.0
        bar_format = "{desc}: {percentage:3.0f}%|{bar:24}| {elapsed} spent, {remaining} left"
        total = max(min(sum(estimates), self.deadline - started), 1e-9)
        of_others: list[tuple[Experiment, list[int]]] = []
        with tqdm(total=total, bar_format=bar_format, desc="explaining") as bar:
            fits = True
            for (experiment, pending), estimate in zip(work, estimates, strict=True):
                if not pending:
                    continue
                fits = fits and time.monotonic() + correction * estimate <= self.deadline
                if not fits:
                    counts.left += len(pending)
                    continue
                bar.set_description_str(experiment.label)
                taken = self._explain(experiment, pending)
                of_others.append((experiment, taken))
                bar.update(estimate)
                spent_estimate += estimate * (1 - len(taken) / len(pending))
                if spent_estimate >= _ENOUGH_TO_JUDGE:
                    correction = (time.monotonic() - started) / spent_estimate
        for experiment, taken in of_others:
            self._wait_for(experiment, taken)

    def _samples(self, experiment: Experiment, ranks: range) -> list[Sample]:
        return self.recorder.samples(experiment)[ranks.start : ranks.stop]

    def _pending(self, experiment: Experiment, ranks: range) -> list[int]:
        """Choose the ranks that need work, and note which of the others another profile made."""
        pending = []
        for rank, sample in enumerate(self._samples(experiment, ranks), ranks.start):
            unit = self.recorder.unit(experiment, sample)
            outcome = self.recorder.store.outcome(unit, experiment.maps_in(rank))
            if not outcome.complete:
                pending.append(rank)
            elif outcome.profile != (profile := experiment.cfg.profile.name):
                self._from_others.setdefault(profile, []).append(unit)
        return pending

    def _explain(self, experiment: Experiment, ranks: Sequence[int]) -> list[int]:
        """Explain the samples that no other process works on or has explained since; return the ranks of the others."""
        samples, store = self.recorder.samples(experiment), self.recorder.store
        units = {rank: self.recorder.unit(experiment, samples[rank]) for rank in ranks}
        claims = {rank: claim for rank, unit in units.items() if (claim := store.claim(unit)).take()}
        try:
            open_ = [rank for rank in claims if not store.outcome(units[rank], experiment.maps_in(rank)).complete]
            self.recorder.counts.present += len(claims) - len(open_)
            self.recorder.explain(experiment, [samples[rank] for rank in open_])
        finally:
            for claim in claims.values():
                claim.release()
        return [rank for rank in ranks if rank not in claims]

    def _wait_for(self, experiment: Experiment, ranks: Sequence[int]) -> None:
        """Wait until other processes have explained samples, and explain those that they leave."""
        while ranks and (ranks := self._explain(experiment, ranks)):
            if time.monotonic() > self.deadline:
                self.recorder.counts.left += len(ranks)
                return
            time.sleep(_PAUSE)


def rounds(experiments: Sequence[Experiment], step: int) -> list[tuple[Experiment, range]]:
    """Order the work so that stopping early leaves every experiment with the same share of its samples.

    The cells of a table want equally many, so they are left with the same first samples.

    Args:
        experiments: Merged experiments.
        step: Samples explained together.

    Returns:
        Experiments and the ranks of the samples they explain next.
    """
    work = [
        (experiment, range(start, min(start + step, experiment.n_samples)))
        for experiment in experiments
        for start in range(0, experiment.n_samples, step)
    ]
    return sorted(work, key=lambda turn: _share_before(*turn))


def _share_before(experiment: Experiment, ranks: range) -> float:
    """Return the share of their samples, 0..1, that experiments with ``after=0`` explain before these ranks' turn."""
    return experiment.after + (1 - experiment.after) * ranks.start / experiment.n_samples


def images_per_step(experiments: Sequence[Experiment]) -> int:
    """Return the number of images explained together: many on a GPU, one on a CPU, or the configuration's."""
    wanted = experiments[0].cfg.runner.images_per_step if experiments else 1
    if wanted == "auto":
        return 32 if default_device().type == "cuda" else 1
    return int(wanted)
