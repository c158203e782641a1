"""The plan of a run: what is asked for, what is there, to train, to download and to write, and how long it takes."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from operator import itemgetter
from pathlib import Path

from omegaconf import DictConfig

from misure.config import setup_name
from misure.errors import AbsentError
from misure.sweep.availability import setup_at_hand
from misure.sweep.experiment import Experiment
from misure.sweep.needs import Needs, bytes_of
from misure.sweep.pace import Pace
from misure.sweep.records import RecordStore
from misure.sweep.sampling import Sample
from misure.sweep.setup import Setup
from misure.sweep.sweeps import Requested

_LONG = 60.0
"""Seconds of work after which nobody waits to see the first table."""


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


@dataclass(frozen=True)
class SetupPlan:
    """What is to be done with one setup.

    Attributes:
        cfg: A run configuration with its dataset and network.
        needs: What it needs before anything is explained.
        pace: Of its network.
        outlooks: Its experiments.
        other_work: Seconds of what is done besides training and explaining.
    """

    cfg: DictConfig
    needs: Needs
    pace: Pace
    outlooks: Sequence[Outlook] = ()
    other_work: float = 0.0

    @property
    def name(self) -> str:
        """The setup's name."""
        return setup_name(self.cfg)

    @property
    def profile(self) -> str:
        """Name of the profile."""
        return str(self.cfg.profile.name)

    @property
    def experiments(self) -> list[Experiment]:
        """What is explained."""
        return [outlook.experiment for outlook in self.outlooks]

    @property
    def to_do(self) -> int:
        """Explanations to make."""
        return sum(outlook.to_do for outlook in self.outlooks)

    @property
    def done(self) -> int:
        """Explanations that are there."""
        return sum(outlook.done for outlook in self.outlooks)

    @property
    def seconds(self) -> float:
        """Training, explaining and other work."""
        return self.needs.training + self.explaining(self.outlooks) + self.other_work

    @property
    def to_write(self) -> int:
        """Bytes, all together."""
        return self.needs.to_write + sum(bytes_of(outlook.experiment, outlook.to_do) for outlook in self.outlooks)

    @property
    def first(self) -> list[Outlook]:
        """What is explained first, and shown before the rest is done."""
        return [outlook for outlook in self.outlooks if not outlook.experiment.after]

    @property
    def rest(self) -> list[Outlook]:
        """What is explained after that."""
        return [outlook for outlook in self.outlooks if outlook.experiment.after]

    @property
    def shows_early(self) -> bool:
        """Say whether the rest takes so long that nobody waits for it to see the first table."""
        return bool(self.first) and self.explaining(self.rest) > _LONG

    def explaining(self, outlooks: Sequence[Outlook]) -> float:
        """Estimate the seconds of what is to do of some of the experiments."""
        return sum(outlook.to_do * self.pace.explaining(outlook.experiment) for outlook in outlooks)


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
        requested: What the sweeps ask for.
        setups: In the order in which they are prepared.
        left_out: Datasets and setups that are not in the plan, for reasons that were told.
        limited: Whether a dataset ends when its profile's minutes are over.
    """

    requested: Requested
    setups: Sequence[SetupPlan]
    left_out: Sequence[str] = ()
    limited: bool = False

    @classmethod
    def of(
        cls, requested: Requested, paces: Mapping[str, Pace], left_out: Sequence[str] = (), *, limited: bool = False
    ) -> Plan:
        """Merge what sweeps ask for and count what is missing; no network is loaded.

        Args:
            requested: What the sweeps ask for.
            paces: By setup; what is asked of another one is left out.
            left_out: See the attribute.
            limited: See the attribute.
        """
        experiments = [paces[e.setup].pinned(e) for e in merge([e for _, e in requested]) if e.setup in paces]
        setups = []
        for name in dict.fromkeys(e.setup for e in experiments):
            own = [e for e in experiments if e.setup == name]
            cfg = own[0].cfg
            store = RecordStore(Path(cfg.outputs) / "records")
            outlooks = list(outlooks_of(own, setup_at_hand(cfg, paces[name].choice.precision), store))
            setups.append(SetupPlan(cfg, Needs.of(cfg, paces[name]), paces[name], outlooks))
        setups.sort(key=lambda setup: setup.needs.images.state == "stand-in")  # real images first
        return cls(requested, setups, left_out, limited)

    @property
    def experiments(self) -> list[Experiment]:
        """What is explained, without repetitions."""
        return [experiment for setup in self.setups for experiment in setup.experiments]

    def minutes(self) -> dict[str, float]:
        """Return the minutes that each dataset may take, in the order of their turns."""
        limits = {s.cfg.dataset.name: float(s.cfg.dataset.counts.max_minutes) for s in self.setups}
        return limits if self.limited else dict.fromkeys(limits, math.inf)

    @property
    def in_order(self) -> list[SetupPlan]:
        """The setups in the order of their turns."""
        return [setup for _, setups in self._by_dataset() for setup in setups]

    def _by_dataset(self) -> Iterator[tuple[float, list[SetupPlan]]]:
        for dataset, minutes in self.minutes().items():
            yield minutes, [setup for setup in self.setups if setup.cfg.dataset.name == dataset]

    def turns(self, started: float) -> Iterator[tuple[SetupPlan, float]]:
        """Divide the time: every dataset has its minutes, and its networks share what is left of them.

        Args:
            started: Seconds since the epoch.

        Yields:
            A setup, and the time at which it has to end, in seconds since the epoch. Time that one network does not
            use is left to the next.
        """
        end = started
        for minutes, setups in self._by_dataset():
            end += 60 * minutes
            for rank, setup in enumerate(setups):
                now = time.time()
                yield setup, now + (end - now) / (len(setups) - rank)


def merge(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Drop repeated experiments, keeping the larger number of samples of each place in the order of work.

    An experiment stays at a later place only for more samples than it has at the earlier ones.
    """
    merged: dict[tuple[str, int], Experiment] = {}
    for experiment in experiments:
        place = json.dumps([experiment.records_key, asdict(experiment.sampling)]), experiment.after
        first = merged.get(place, experiment)
        merged[place] = replace(first, n_samples=max(experiment.n_samples, first.n_samples))
    most: Counter[str] = Counter()
    for key, after in sorted(merged, key=itemgetter(1)):
        if merged[key, after].n_samples <= most[key]:
            del merged[key, after]
        else:
            most[key] = merged[key, after].n_samples
    return list(merged.values())


def outlooks_of(experiments: Sequence[Experiment], setup: Setup | None, store: RecordStore) -> Iterator[Outlook]:
    """Count what each experiment on a setup lacks; what two of them share counts for the first alone.

    Args:
        experiments: On one dataset and network.
        setup: As :func:`misure.sweep.availability.setup_at_hand` describes it, if it does.
        store: Where records are.
    """
    counted: set[str] = set()
    most: Counter[str] = Counter()
    for experiment in experiments:
        order = _order(experiment, setup)
        if setup is None or order is None:
            key = experiment.records_key
            yield Outlook(experiment, to_do=max(0, experiment.n_samples - most[key]))
            most[key] = max(experiment.n_samples, most[key])
            continue
        fingerprints = setup.dataset.fingerprint, setup.info.fingerprint
        units = [experiment.unit(sample, *fingerprints) for sample in order[: experiment.n_samples]]
        fresh = {unit.id: (unit, rank) for rank, unit in enumerate(units) if unit.id not in counted}
        counted.update(fresh)
        outcomes = store.outcomes([(unit, experiment.needs_maps(rank)) for unit, rank in fresh.values()])
        status = Counter(outcome.status for outcome in outcomes)
        yield Outlook(
            experiment,
            to_do=len(outcomes) - status["done"] - status["skipped"],
            done=status["done"],
            skipped=Counter(outcome.reason for outcome in outcomes if outcome.status == "skipped"),
            failed=status["failed"],
        )


def _order(experiment: Experiment, setup: Setup | None) -> list[Sample] | None:
    """Draw an experiment's samples; None where that takes a network, for predictions that were not made yet."""
    try:
        return setup.samples(experiment.sampling, experiment.cfg.seed, experiment.compute) if setup else None
    except AbsentError:
        return None


def rounds(experiments: Sequence[Experiment], step: int) -> list[tuple[Experiment, range]]:
    """Order the work so that stopping early leaves every experiment with the same share of its samples.

    The cells of a table want equally many, so they are left with the same first samples. What has a later place
    (``after``) begins when all before it is done.

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
    return sorted(work, key=lambda turn: (turn[0].after, turn[1].start / turn[0].n_samples))


def images_per_step(experiments: Sequence[Experiment]) -> int:
    """Return the number of images explained together, as settled for the network; one where there is nothing."""
    wanted = experiments[0].cfg.runner.images_per_step if experiments else 1
    return 1 if wanted == "auto" else int(wanted)
