"""The whole job: plan, train, explain, write tables and figures."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from misure.cli.remake import write_outputs
from misure.config import compute_of, overridden
from misure.errors import MisureError
from misure.paper.tables.markdown import experiment_summary
from misure.sweep.announce import Requested, announce
from misure.sweep.availability import NetworkChoice, fitted
from misure.sweep.experiment import Experiment, Sweeps
from misure.sweep.failures import Failures
from misure.sweep.only import chosen_sweeps
from misure.sweep.plan import Pace, duration, merge
from misure.sweep.precision import keep_choice, settled_pace
from misure.sweep.records import RecordStore
from misure.sweep.runner import Runner, Tally
from misure.sweep.setup import Subject, keep_volume_scores, needs_no_training, prepare
from misure.sweep.stages import stage


def reproduce(cfg: DictConfig) -> None:
    """Run every sweep of the configuration, then write and print the tables.

    What fails is noted and the rest goes on; the error about it comes last.

    Raises:
        MisureError: On an output that cannot be used, and in the end if anything failed.
    """
    started = time.monotonic()
    failures = Failures(Path(cfg.outputs), cfg.profile.name, kept=not cfg.plan_only)
    if not cfg.plan_only:
        check_writable(Path(cfg.outputs))
    requested = _requested(cfg, failures)
    experiments, paces = _measured(merge([e for _, e in requested]), failures)
    announce(cfg, requested, experiments, paces, failures.left_out)
    if cfg.plan_only:
        return
    runners: list[Runner] = []
    for part, deadline in shares(experiments, started):
        subject = part[0].subject
        with failures.noted(subject):
            runners.append(_prepared(cfg, part, paces, deadline))
            _run(cfg, runners[-1], part)
            failures.forget(subject)
    tally = sum((runner.tally for runner in runners), Tally())
    if not tally.done + tally.present + tally.failed:
        raise MisureError(_why_nothing(failures))
    write_outputs(cfg)
    _summarise(cfg, tally, started)
    _raise_if_failed(tally, failures)


def _requested(cfg: DictConfig, failures: Failures) -> Requested:
    """Compose what the sweeps ask for, without the datasets for which no network can be had."""
    given = list(HydraConfig.get().overrides.task)
    sweeps = chosen_sweeps(cfg, given)
    passed_on = [o for o in given if not overridden([o]) & {"sweeps", "only"}]
    overrides = [f"stand_in={str(cfg.stand_in).lower()}", *passed_on]
    choose = failures.tolerant(NetworkChoice(overrides, cfg.stand_in, fetch=not cfg.plan_only))
    composing = Sweeps(overrides, choose)
    requested = [(name, e) for name in sweeps for e in composing.expand(name)]
    return [(name, e) for name, e in requested if e.cfg.dataset.name not in failures.left_out]


def _measured(experiments: Sequence[Experiment], failures: Failures) -> tuple[list[Experiment], dict[str, Pace]]:
    """Time every network; those that cannot be built are left out."""
    paces: dict[str, Pace] = {}
    for subject, experiment in {e.subject: e for e in reversed(experiments)}.items():
        with failures.noted(subject):
            paces[subject] = _pace(experiment.cfg)
    return [e.pinned(paces[e.subject].choice) for e in experiments if e.subject in paces], paces


def _pace(cfg: DictConfig) -> Pace:
    """Time a network, and keep the precision that was measured to be faster."""
    pace = settled_pace(cfg)
    if not cfg.plan_only:
        keep_choice(cfg, pace.choice)
    return pace


def _run(cfg: DictConfig, runner: Runner, part: Sequence[Experiment]) -> None:
    """Do all that there is to do with one network."""
    outputs, profile, subject = Path(cfg.outputs), cfg.profile.name, part[0].subject
    with stage(outputs, profile, "volume scores", subject):
        keep_volume_scores(part[0].cfg, runner.subjects[subject])
    with stage(outputs, profile, "explaining", subject):
        runner.run(part)


def _why_nothing(failures: Failures) -> str:
    if failures.left_out:
        return "nothing could be explained: " + "; ".join(f"{name}: {why}" for name, why in failures.left_out.items())
    return (
        "nothing could be explained: the networks predict none of the classes, or the time was too short; raise "
        "the profile's training.max_minutes or max_minutes"
    )


def _summarise(cfg: DictConfig, tally: Tally, started: float) -> None:
    print(f"\n{tally.done} explanations made, {tally.present} were there, {tally.skipped} had nothing to explain")
    if tally.left:
        print(f"{tally.left} explanations did not fit into the profile's time: the same command goes on with them")
    took = duration(time.monotonic() - started)
    print(f"this took {took}; records, tables and figures are in {cfg.outputs}/", flush=True)


def _raise_if_failed(tally: Tally, failures: Failures) -> None:
    """Say in one line what failed and what to do.

    Raises:
        MisureError: If anything did.
    """
    what = [f"{n} explanations failed ({why})" for why, n in tally.reasons.most_common(3)]
    what += [f"{name} failed ({why})" for name, why in failures.reasons.items()]
    if what:
        raise MisureError(f"{'; '.join(what)}; the rest is done, and the same command tries only these again")


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
        MisureError: On values, data or output that cannot be used, and in the end if an explanation failed.
    """
    cfg = fitted(cfg, "run", HydraConfig.get().overrides.task)
    experiment = Experiment.of(cfg)
    if not cfg.plan_only:
        check_writable(Path(cfg.outputs))
    paces = {experiment.subject: _pace(experiment.cfg)}
    experiment = experiment.pinned(paces[experiment.subject].choice)
    announce(cfg, [("", experiment)], [experiment], paces)
    if cfg.plan_only:
        return
    runner = _prepared(cfg, [experiment], paces)
    with stage(Path(cfg.outputs), cfg.profile.name, "explaining", experiment.subject):
        runner.run([experiment])
    units = {runner.unit(experiment, s).id for s in runner.samples(experiment, range(experiment.n_samples))}
    records = runner.store.load()
    print(f"\n{experiment.label}\n{experiment_summary(records[records['unit'].isin(units)])}")
    print(f"records: {runner.store.folder}", flush=True)
    _raise_if_failed(runner.tally, Failures(Path(cfg.outputs), cfg.profile.name))


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


def _prepared(
    cfg: DictConfig, experiments: Sequence[Experiment], paces: Mapping[str, Pace], deadline: float = math.inf
) -> Runner:
    """Train a network where it is not trained, load it, and find what can be explained of it."""
    outputs, profile, first = Path(cfg.outputs), cfg.profile.name, experiments[0]
    with stage(outputs, profile, "loading" if needs_no_training(first.cfg) else "training", first.subject):
        subject = prepare(first.cfg)
    print(f"{subject.name}: {subject.quality}, images from {subject.dataset.source}", flush=True)
    with stage(outputs, profile, "survey", subject.name):
        _say_what_is_drawn(first, subject)
    return Runner(RecordStore(outputs / "records"), {subject.name: subject}, dict(paces), deadline)


def _say_what_is_drawn(experiment: Experiment, subject: Subject) -> None:
    """Count the samples of each class, and name the classes that no sample can be drawn of."""
    drawn = Counter(
        s.class_id for s in subject.samples(experiment.sampling, experiment.cfg.seed, compute_of(experiment.cfg))
    )
    names, wanted = subject.info.class_names, experiment.sampling.classes_of(subject.info.class_names)
    counts = ", ".join(f"{names[c]} {drawn[c]}" for c in wanted if drawn[c])
    print(f"{subject.name}: {drawn.total()} samples to explain: {counts or 'none'}", flush=True)
    absent = [names[c] for c in wanted if not drawn[c]]
    if absent:
        print(f"{subject.name}: not predicted in any validation image, so skipped: {', '.join(absent)}", flush=True)
