"""Printing the plan before the start: what is to do, what is there, what is skipped and why, and how long it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from omegaconf import DictConfig

from misure.config import Experiment, compute_of
from misure.sweep.outlook import Outlook, outlooks
from misure.sweep.plan import Pace, duration, records_key
from misure.sweep.records import RecordStore
from misure.sweep.subject import checkpoint_path, needs_no_training

Requested = Sequence[tuple[str, Experiment]]
"""Experiments with the names of the sweeps that ask for them."""


def announce(
    cfg: DictConfig, requested: Requested, experiments: Sequence[Experiment], paces: Mapping[str, Pace]
) -> None:
    """Print the plan.

    Args:
        cfg: The entry point's configuration.
        requested: What the sweeps ask for.
        experiments: The same without repetitions.
        paces: Measured speed by subject.
    """
    for line in _lines(cfg, requested, experiments, paces):
        print(line, flush=True)


def _lines(
    cfg: DictConfig, requested: Requested, experiments: Sequence[Experiment], paces: Mapping[str, Pace]
) -> Iterable[str]:
    asked, distinct = sum(e.n_samples for _, e in requested), _distinct(experiments)
    shared = f"; the sweeps ask for {asked}, {asked - distinct} of them are shared" if asked > distinct else ""
    yield f"plan: profile {cfg.profile.name}, {len(experiments)} experiments, {distinct} explanations at most{shared}"
    yield from _sharing(requested)
    seen = list(outlooks(experiments, RecordStore(Path(cfg.outputs) / "records")))
    seconds: dict[str, float] = {}
    for subject in dict.fromkeys(e.subject for e in experiments):
        mine = [outlook for outlook in seen if outlook.experiment.subject == subject]
        first, pace = mine[0].experiment.cfg, paces[subject]
        training = 0.0 if needs_no_training(first) else pace.training(first)
        state = f"to train, about {duration(training)}" if training else "ready"
        yield f"network {subject}: {state} ({checkpoint_path(first)})"
        yield from _methods(mine, pace)
        seconds[first.dataset.name] = seconds.get(first.dataset.name, 0.0) + training + _seconds(mine, pace)
    yield from _estimate(cfg, experiments, seconds)


def _distinct(experiments: Sequence[Experiment]) -> int:
    """Count the explanations at most; another draw of the same images makes some of the same records."""
    most: dict[str, int] = {}
    for experiment in experiments:
        key = records_key(experiment)
        most[key] = max(experiment.n_samples, most.get(key, 0))
    return sum(most.values())


def _sharing(requested: Requested) -> Iterable[str]:
    """Say which sweeps are made from the same records, a line for each group of sweeps."""
    asking: dict[str, dict[str, Experiment]] = {}
    for sweep, experiment in requested:
        asking.setdefault(records_key(experiment), {})[sweep] = experiment
    groups: dict[tuple[str, ...], list[str]] = {}
    for sweeps in asking.values():
        if len(sweeps) > 1:
            experiment = next(iter(sweeps.values()))
            groups.setdefault(tuple(sweeps), []).append(f"{experiment.subject} {experiment.explainer.name}")
    for names, methods in groups.items():
        yield f"  {', '.join(names)} share records: {', '.join(dict.fromkeys(methods))}"


def _methods(seen: Sequence[Outlook], pace: Pace) -> Iterable[str]:
    """Write a line for each method, and one more for each kind of disturbance it is run under."""
    ordered = sorted(seen, key=lambda outlook: _kind(outlook.experiment))
    for kind, group in groupby(ordered, key=lambda outlook: _kind(outlook.experiment)):
        same = list(group)
        skipped = sum((outlook.skipped for outlook in same), Counter[str]())
        parts = [f"{sum(o.to_do for o in same)} to do"]
        parts += [f"{n} there" for n in [sum(o.done for o in same)] if n]
        parts += [f"{n} of those to do failed before" for n in [sum(o.failed for o in same)] if n]
        parts += [f"{skipped.total()} skipped ({skipped.most_common(1)[0][0]})"] if skipped else []
        settings = f" ({len(same)} settings)" if len(same) > 1 else ""
        yield f"  {', '.join(filter(None, kind))}{settings}: {', '.join(parts)}; about {duration(_seconds(same, pace))}"


def _kind(experiment: Experiment) -> tuple[str, str, str]:
    noise = f"noise {experiment.input_noise:g} on the image" if experiment.input_noise else ""
    changed = "network or target changed" if experiment.intervention.text else ""
    return experiment.explainer.name, noise, changed


def _seconds(seen: Sequence[Outlook], pace: Pace) -> float:
    return sum(outlook.to_do * pace.explaining(outlook.experiment) for outlook in seen)


def _estimate(cfg: DictConfig, experiments: Sequence[Experiment], seconds: Mapping[str, float]) -> Iterable[str]:
    limits = {e.cfg.dataset.name: 60 * e.cfg.dataset.counts.max_minutes for e in reversed(experiments)}
    for dataset, needed in seconds.items():
        bounded = f", of which the profile allows {duration(limits[dataset])}" if needed > limits[dataset] else ""
        yield f"dataset {dataset}: about {duration(needed)}{bounded}"
    total = sum(min(needed, limits[dataset]) for dataset, needed in seconds.items())
    yield f"estimate on this machine (precision {compute_of(cfg).precision}): {duration(total)}"
