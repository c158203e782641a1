"""The whole job in one line: compose, measure, plan, print the plan, run it, write tables and figures."""

from __future__ import annotations

import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from misure.errors import MisureError
from misure.evaluation.volumes import VolumeDataset
from misure.io.atomic import remove_all_abandoned
from misure.sweep.announcement import announced
from misure.sweep.availability import NetworkChoice
from misure.sweep.executors import Crew, crew_of
from misure.sweep.experiment import Experiment
from misure.sweep.images import fitted
from misure.sweep.journal import Failures, Journal
from misure.sweep.needs import fetch_ahead
from misure.sweep.networks import training_state
from misure.sweep.pace import Pace, duration, settled_pace
from misure.sweep.plan import Outlook, Plan, SetupPlan
from misure.sweep.recorder import Recorder, RunCounts
from misure.sweep.records import RecordStore
from misure.sweep.runner import Runner
from misure.sweep.setup import Setup
from misure.sweep.sweeps import Requested, Sweeps, chosen_sweeps, of_experiments
from misure.sweep.turns import Ready, check_same, explain_turns, make_ready, portable, score_volumes


def reproduce(cfg: DictConfig) -> None:
    """Run every sweep of the configuration, then write and print the tables.

    What fails is noted and the rest goes on; the error about it comes last.

    Raises:
        MisureError: On an output that cannot be used, and in the end if anything failed.
    """
    from misure.cli.remake import write_first, write_outputs

    started, journal = time.time(), Journal(Path(cfg.outputs))
    failures = Failures(journal, cfg.profile.name, kept=not cfg.plan_only)
    if not cfg.plan_only:
        begin(journal.folder)
    with _crew(cfg) as crew:
        requested = _requested(cfg, HydraConfig.get().overrides.task, failures)
        paces = _paces(requested, crew, failures)
        plan = Plan.of(requested, paces, list(failures.left_out), limited=True)
        print(*announced(plan, cfg), sep="\n", flush=True)
        if cfg.plan_only:
            return
        counts = RunCounts()
        for part, deadline, prepared in _prepared_ahead(plan, crew):
            with failures.noted(part.name):
                ready = _made_ready(part, crew, prepared)
                recorder = _surveyed(part, ready)
                runner = Runner(recorder, part.pace, partial(explain_turns, ready), crew, deadline, counts)
                _run(part, runner, part.first)
                failures.forget(part.name)
                if part.shows_early:
                    with failures.noted("the first table"):
                        write_first(cfg)
                _run(part, runner, part.rest)
                if isinstance(recorder.setup.dataset, VolumeDataset):
                    crew.call(score_volumes, ready)
    if not counts.done + counts.present + counts.failed:
        raise MisureError(_why_nothing(failures))
    RecordStore(journal.folder / "records").compact()
    write_outputs(cfg)
    _summarise(journal.folder, counts, time.time() - started)
    _raise_if_failed(counts, failures.reasons)


def run_one(cfg: DictConfig) -> None:
    """Run one experiment and print the means of its records.

    Raises:
        MisureError: On values, data or output that cannot be used, and in the end if an explanation failed.
    """
    cfg = fitted(cfg, "run", HydraConfig.get().overrides.task)
    experiment, journal = Experiment.of(cfg), Journal(Path(cfg.outputs))
    if not cfg.plan_only:
        begin(journal.folder)
    with _crew(cfg) as crew:
        plan = Plan.of([("", experiment)], {experiment.setup: crew.call(settled_pace, portable(cfg))})
        print(*announced(plan, cfg), sep="\n", flush=True)
        if cfg.plan_only:
            return
        (part,), (experiment,) = plan.setups, plan.experiments
        fetch_ahead(part.cfg)
        ready = _made_ready(part, crew, crew.executor.submit(make_ready, *_to_prepare(part)))
        runner = Runner(_surveyed(part, ready), part.pace, partial(explain_turns, ready), crew)
        _run(part, runner, part.outlooks)
    from misure.paper.tables.console import experiment_summary

    recorder = runner.recorder
    units = {recorder.unit(experiment, s).id for s in recorder.samples(experiment)[: experiment.n_samples]}
    records = recorder.store.load()
    print(f"\n{experiment.label}\n{experiment_summary(records[records['unit'].isin(units)])}")
    print(f"records: {Path(cfg.outputs) / 'records'}", flush=True)
    _raise_if_failed(runner.counts, {})


def begin(outputs: Path) -> None:
    """Check the outputs folder, and remove what processes that ended left half-written in it.

    Raises:
        MisureError: If files cannot be made there.
    """
    check_writable(outputs)
    remove_all_abandoned(outputs)
    RecordStore(outputs / "records").remove_abandoned_claims()


def check_writable(folder: Path) -> None:
    """Raise a MisureError unless files can be made in a folder; it is made when missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:  # which has no name that a kill could leave
            probe.write(b"0" * 4096)
    except OSError as error:
        raise MisureError(
            f"cannot write {folder}: {error.strerror}; free space or set outputs=<another folder>"
        ) from error


def _requested(cfg: DictConfig, given: Sequence[str], failures: Failures) -> Requested:
    """Compose what the sweeps ask for, without the datasets that cannot be had with any network."""
    overrides = [f"stand_in={str(cfg.stand_in).lower()}", *of_experiments(given)]
    choose = NetworkChoice(overrides, cfg.stand_in, fetch=not cfg.plan_only)
    composing = Sweeps(overrides, failures.tolerant(choose))
    chosen = chosen_sweeps(cfg, given)
    return [(sweep, e) for sweep, datasets in chosen.items() for e in composing.expand(sweep, datasets)]


def _crew(cfg: DictConfig) -> AbstractContextManager[Crew]:
    """Start the workers; a plan is made by this process, and its times are this machine's."""
    return nullcontext(Crew()) if cfg.plan_only else crew_of(cfg)


def _paces(requested: Requested, crew: Crew, failures: Failures) -> dict[str, Pace]:
    """Time every network where it will run; those that cannot be built are left out."""
    paces: dict[str, Pace] = {}
    for name, experiment in {e.setup: e for _, e in reversed(requested)}.items():
        with failures.noted(name):
            paces[name] = crew.call(settled_pace, portable(experiment.cfg))
    return paces


def _to_prepare(part: SetupPlan) -> tuple[DictConfig, Experiment]:
    return portable(part.cfg), part.experiments[0]


def _prepared_ahead(plan: Plan, crew: Crew) -> Iterator[tuple[SetupPlan, float, Future[Ready]]]:
    """Yield setups with the time at which they have to end; those that follow are prepared by workers that are free."""
    for part in plan.setups:
        fetch_ahead(part.cfg)
    prepared: deque[Future[Ready]] = deque()
    waiting = iter(plan.in_order)
    for part, deadline in plan.turns(time.time()):
        for following in islice(waiting, crew.workers - len(prepared)):
            prepared.append(crew.executor.submit(make_ready, *_to_prepare(following)))
        yield part, deadline, prepared.popleft()


def _made_ready(part: SetupPlan, crew: Crew, begun: Future[Ready]) -> Ready:
    """Return a setup that workers prepare; a training goes on where the one before was lost."""
    state = training_state(part.cfg)
    return crew.resumed(
        begun, lambda: state.stat().st_mtime_ns if state.exists() else 0, partial(make_ready, *_to_prepare(part))
    )


def _surveyed(plan: SetupPlan, ready: Ready) -> Recorder:
    """Describe a setup that a worker has prepared, and say what is explained of it."""
    setup = ready.described()
    check_same(setup, ready)
    print(f"{setup.name}: {setup.quality}, images from {setup.dataset.source}", flush=True)
    _say_what_is_drawn(plan.experiments[0], setup)
    return Recorder(ready.store, setup)


def _run(plan: SetupPlan, runner: Runner, outlooks: Sequence[Outlook]) -> None:
    if not outlooks:
        return
    with Journal(Path(plan.cfg.outputs)).stage(plan.profile, "explaining", plan.name):
        runner.run([outlook.experiment for outlook in outlooks])


def _say_what_is_drawn(experiment: Experiment, setup: Setup) -> None:
    """Count the samples of each class, and name the classes that no sample can be drawn of."""
    samples = setup.samples(experiment.sampling, experiment.cfg.seed, experiment.compute)
    drawn = Counter(sample.class_id for sample in samples)
    names, wanted = setup.info.class_names, experiment.sampling.classes_of(setup.info.class_names)
    counts = ", ".join(f"{names[c]} {drawn[c]}" for c in wanted if drawn[c])
    print(f"{setup.name}: {drawn.total()} samples to explain: {counts or 'none'}", flush=True)
    if absent := [names[c] for c in wanted if not drawn[c]]:
        print(f"{setup.name}: not predicted in any validation image, so skipped: {', '.join(absent)}", flush=True)


def _why_nothing(failures: Failures) -> str:
    if failures.left_out:
        return "nothing could be explained: " + "; ".join(f"{name}: {why}" for name, why in failures.left_out.items())
    return (
        "nothing could be explained: the networks predict none of the classes, or the time was too short; raise "
        "the profile's training.max_minutes or max_minutes"
    )


def _summarise(outputs: Path, counts: RunCounts, seconds: float) -> None:
    print(f"\n{counts.done} explanations made, {counts.present} were there, {counts.skipped} had nothing to explain")
    if counts.left:
        print(f"{counts.left} explanations did not fit into the profile's time: the same command goes on with them")
    print(f"this took {duration(seconds)}; records, tables and figures are in {outputs}/", flush=True)


def _raise_if_failed(counts: RunCounts, left_out: Mapping[str, str]) -> None:
    """Say in one line what failed and what to do.

    Args:
        counts: Of explanations.
        left_out: Why setups failed, by name.

    Raises:
        MisureError: If anything did.
    """
    failed = [f"{n} explanations failed ({why})" for why, n in counts.reasons.most_common(3)]
    failed += [f"{name} failed ({why})" for name, why in left_out.items()]
    if failed:
        raise MisureError(f"{'; '.join(failed)}; the rest is done, and the same command tries only these again")
