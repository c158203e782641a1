"""The whole job: plan, train, explain, write tables and figures."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from misure.config import Experiment, compute_of, expand_sweep
from misure.errors import MisureError
from misure.paper.markdown import console_table, experiment_summary
from misure.paper.outputs import write_all
from misure.sweep.at_hand import NetworkChoice, sized
from misure.sweep.plan import Pace, duration, measure_pace, merge
from misure.sweep.records import RecordStore
from misure.sweep.runner import Runner, Tally
from misure.sweep.subject import Subject, checkpoint_path, needs_no_training, prepare
from misure.sweep.volume_scores import keep_volume_scores


def reproduce(cfg: DictConfig) -> None:
    """Run every sweep of the configuration, then write and print the tables.

    Raises:
        MisureError: On data, network or output that cannot be used.
    """
    started = time.monotonic()
    given = [o for o in HydraConfig.get().overrides.task if not o.startswith("sweeps=")]
    overrides = [f"stand_in={str(cfg.stand_in).lower()}", *given]
    check_writable(Path(cfg.outputs))
    choose = NetworkChoice(overrides, cfg.stand_in)
    experiments = merge([e for name in cfg.sweeps for e in expand_sweep(name, overrides, choose)])
    paces = _announce(cfg, experiments)
    tally = Tally()
    for part, deadline in shares(experiments, started):
        runner = _prepared(cfg, part, paces, deadline)
        keep_volume_scores(part[0].cfg, runner.subjects[part[0].subject])
        tally += runner.run(part)
    if not tally.done + tally.present:
        raise MisureError(
            "nothing could be explained: the networks predict none of the classes, or the time was too short; raise "
            "the profile's training.max_minutes or max_minutes"
        )
    write_outputs(cfg)
    _say(
        f"\n{tally.done} explanations made, {tally.present} were there, {tally.skipped} samples had nothing to explain"
    )
    if tally.left:
        _say(f"{tally.left} explanations did not fit into the profile's time: the same command goes on with them")
    _say(f"this took {duration(time.monotonic() - started)}; records, tables and figures are in {cfg.outputs}/")


def shares(experiments: Sequence[Experiment], started: float) -> Iterator[tuple[list[Experiment], float]]:
    """Divide the time: every dataset has its profile's minutes, and its networks share what is left of them.

    Args:
        experiments: What is planned; the order of datasets and networks is kept.
        started: Monotonic time of the start.

    Yields:
        The experiments on one network, and the monotonic time at which they have to end. Time that one network
        does not use is left to the next.
    """
    by_dataset: dict[str, dict[str, list[Experiment]]] = {}
    for experiment in experiments:
        networks = by_dataset.setdefault(experiment.cfg.dataset.name, {})
        networks.setdefault(experiment.subject, []).append(experiment)
    end = started
    for networks in by_dataset.values():
        end += 60 * next(iter(networks.values()))[0].cfg.dataset.counts.max_minutes
        for rank, part in enumerate(networks.values()):
            now = time.monotonic()
            yield part, now + (end - now) / (len(networks) - rank)


def run_one(cfg: DictConfig) -> None:
    """Run one experiment and print the means of its records.

    Raises:
        MisureError: On values, data or output that cannot be used.
    """
    cfg = sized(cfg)
    experiment = Experiment.of(cfg)
    check_writable(Path(cfg.outputs))
    paces = _announce(cfg, [experiment])
    runner = _prepared(cfg, [experiment], paces)
    runner.run([experiment])
    units = {runner.unit(experiment, s).id for s in runner.samples(experiment, range(experiment.n_samples))}
    records = runner.store.load()
    _say(f"\n{experiment.label}\n{experiment_summary(records[records['unit'].isin(units)])}")
    _say(f"records: {runner.store.folder}")


def write_outputs(cfg: DictConfig) -> None:
    """Write and print tables and figures from the records alone.

    Raises:
        MisureError: If there are no records of the profile.
    """
    records = _store(cfg).load()
    if records.empty or cfg.profile.name not in set(records["profile"]):
        raise MisureError(
            f"{_store(cfg).folder} has no records of profile {cfg.profile.name}: run make reproduce first"
        )
    written = write_all(records, Path(cfg.outputs), cfg.profile.name)
    _say("\n" + console_table(records, cfg.profile.name))
    _say("\n".join(str(path) for path in written))


def check_writable(folder: Path) -> None:
    """Raise a MisureError unless files can be made in a folder; it is made when missing."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"0" * 4096)
    except OSError as error:
        raise MisureError(
            f"cannot write {folder}: {error.strerror}; free space or set outputs=<another folder>"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _store(cfg: DictConfig) -> RecordStore:
    return RecordStore(Path(cfg.outputs) / "records")


def _announce(cfg: DictConfig, experiments: Sequence[Experiment]) -> dict[str, Pace]:
    """Print the plan: what there is to do and about how long it takes."""
    compute = compute_of(cfg)
    paces: dict[str, Pace] = {}
    training = 0.0
    for experiment in experiments:
        if experiment.subject not in paces:
            paces[experiment.subject] = measure_pace(experiment.cfg)
            ready = needs_no_training(experiment.cfg)
            needed = 0.0 if ready else paces[experiment.subject].training(experiment.cfg)
            training += needed
            state = "ready" if ready else f"to train, about {duration(needed)}"
            _say(f"network {experiment.subject}: {state} ({checkpoint_path(experiment.cfg)})")
    seconds = sum(paces[e.subject].explaining(e) * e.n_samples for e in experiments)
    units = sum(e.n_samples for e in experiments)
    _say(f"plan: profile {cfg.profile.name}, {len(experiments)} experiments, {units} explanations at most")
    for experiment in experiments:
        each = paces[experiment.subject].explaining(experiment)
        _say(f"  {experiment.label}: {experiment.n_samples} samples, about {duration(each)} each")
    limit = 60 * sum({e.cfg.dataset.name: e.cfg.dataset.counts.max_minutes for e in experiments}.values())
    bounded = f", of which the profile allows {duration(limit)}" if training + seconds > limit else ""
    _say(f"estimate on this machine (precision {compute.precision}): {duration(training + seconds)}{bounded}")
    return paces


def _prepared(
    cfg: DictConfig, experiments: Sequence[Experiment], paces: dict[str, Pace], deadline: float = math.inf
) -> Runner:
    """Train what is not trained, load what is explained."""
    subjects: dict[str, Subject] = {}
    for experiment in experiments:
        if experiment.subject not in subjects:
            subject = prepare(experiment.cfg)
            subjects[experiment.subject] = subject
            _say(f"{subject.name}: {subject.quality}, images from {subject.dataset.source}")
            _say_what_is_drawn(experiment, subject)
    return Runner(_store(cfg), subjects, paces, deadline)


def _say_what_is_drawn(experiment: Experiment, subject: Subject) -> None:
    """Count the samples of each class, and name the classes that no sample can be drawn of."""
    drawn = Counter(
        s.class_id for s in subject.samples(experiment.sampling, experiment.cfg.seed, compute_of(experiment.cfg))
    )
    names, wanted = subject.info.class_names, experiment.sampling.classes_of(subject.info.class_names)
    counts = ", ".join(f"{names[c]} {drawn[c]}" for c in wanted if drawn[c])
    _say(f"{subject.name}: {drawn.total()} samples to explain: {counts or 'none'}")
    absent = [names[c] for c in wanted if not drawn[c]]
    if absent:
        _say(f"{subject.name}: not predicted in any validation image, so skipped: {', '.join(absent)}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
