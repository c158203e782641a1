"""Printing the plan: what is to do, what is there, what is skipped and why, how long it takes and what it writes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from omegaconf import DictConfig

from misure.config import subject_of
from misure.sweep.experiment import Experiment
from misure.sweep.needs import Needs, bytes_of
from misure.sweep.outlook import Outlook, outlooks
from misure.sweep.plan import Pace, duration, records_key
from misure.sweep.precision import settled_pace
from misure.sweep.records import RecordStore
from misure.sweep.setup import checkpoint_path

Requested = Sequence[tuple[str, Experiment]]
"""Experiments with the names of the sweeps that ask for them."""


@dataclass(frozen=True)
class Line:
    """A line of the plan's table.

    Attributes:
        subject: A dataset and a network.
        needs: What they need before anything is explained.
        to_do: Explanations to make.
        done: Explanations that are there.
        seconds: Training and explaining together.
        to_write: Bytes, all together.
    """

    subject: str
    needs: Needs
    to_do: int
    done: int
    seconds: float
    to_write: int


def announce(
    cfg: DictConfig,
    requested: Requested,
    experiments: Sequence[Experiment],
    paces: Mapping[str, Pace],
    left_out: Iterable[str] = (),
) -> None:
    """Print the plan of experiments.

    Args:
        cfg: The entry point's configuration.
        requested: What the sweeps ask for.
        experiments: The same without repetitions.
        paces: Measured speed by subject.
        left_out: Datasets and networks that are not in the plan, for reasons that were told.
    """
    asked, distinct = sum(e.n_samples for _, e in requested), _distinct(experiments)
    shared = f"; the sweeps ask for {asked}, {asked - distinct} of them are shared" if asked > distinct else ""
    _say(f"plan: profile {cfg.profile.name}, {len(experiments)} experiments, {distinct} explanations at most{shared}")
    _say(*_sharing(requested))
    seen = list(outlooks(experiments, RecordStore(Path(cfg.outputs) / "records")))
    lines = []
    for subject in dict.fromkeys(e.subject for e in experiments):
        mine = [outlook for outlook in seen if outlook.experiment.subject == subject]
        first, pace = mine[0].experiment.cfg, paces[subject]
        needs = Needs.of(first, pace)
        _say(*_subject(first, needs, pace), *_methods(mine, pace))
        lines.append(_line(subject, needs, mine, pace))
    _say(*table(lines, left_out), *_estimate(cfg, experiments, lines), *_ending(cfg))


def outline(cfg: DictConfig, what: str, work: Callable[[Pace], float] = lambda _: 0.0, *, trains: bool = False) -> bool:
    """Print the plan of an entry point that prepares one dataset and network, if only the plan is asked for.

    Args:
        cfg: Its configuration.
        what: What it does then, in a few words.
        work: Estimates the seconds of that by the network's pace.
        trains: Whether it trains although there is a checkpoint.

    Returns:
        Whether only the plan is asked for, so that nothing else is to be done.
    """
    if cfg.plan_only:
        pace = settled_pace(cfg)
        needs = Needs.of(cfg, pace, anew=trains)
        subject = subject_of(cfg)
        _say(f"plan: {what}", *_subject(cfg, needs, pace))
        _say(*table([Line(subject, needs, 0, 0, needs.training + work(pace), needs.to_write)]), *_ending(cfg))
    return bool(cfg.plan_only)


def table(lines: Sequence[Line], left_out: Iterable[str] = ()) -> Iterator[str]:
    """Write the plan's table, with the total and all downloads."""
    rows = [["network", "images", "weights", "to do", "there", "hours", "GB to write"]]
    rows += [
        [line.subject, line.needs.images.state, line.needs.network.partition(",")[0], *_numbers([line])]
        for line in lines
    ]
    rows += [[name, "-", "left out, see above", "0", "", "", ""] for name in left_out]
    rows.append(["total", "", "", *_numbers(lines)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(
            f"{cell:<{w}}" if i < 3 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
    downloads = dict.fromkeys(download for line in lines for download in line.needs.downloads)
    yield from (f"download: {download}" for download in downloads)


def _numbers(lines: Sequence[Line]) -> list[str]:
    hours, gigabytes = sum(line.seconds for line in lines) / 3600, sum(line.to_write for line in lines) / 1e9
    counts = [str(sum(line.to_do for line in lines)), str(sum(line.done for line in lines))]
    return [*counts, f"{hours:.2f}" if hours < 10 else f"{hours:.0f}", f"{gigabytes:.3f}"]


def _line(subject: str, needs: Needs, seen: Sequence[Outlook], pace: Pace) -> Line:
    written = needs.to_write + sum(bytes_of(outlook.experiment, outlook.to_do) for outlook in seen)
    to_do, done = sum(outlook.to_do for outlook in seen), sum(outlook.done for outlook in seen)
    return Line(subject, needs, to_do, done, needs.training + _seconds(seen, pace), written)


def _subject(cfg: DictConfig, needs: Needs, pace: Pace) -> Iterator[str]:
    yield f"network {subject_of(cfg)}: {needs.network} ({checkpoint_path(cfg)})"
    state, source = needs.images.state, " ".join(needs.images.source.split())
    yield f"  images: {source}" if source.startswith(state) else f"  images: {state}: {source}"
    yield f"  precision: {pace.choice.precision}, {pace.choice.reason}"


def _ending(cfg: DictConfig) -> Iterator[str]:
    if cfg.plan_only:
        yield "this was the plan alone: nothing was trained, downloaded or written"


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)


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


def _estimate(cfg: DictConfig, experiments: Sequence[Experiment], lines: Sequence[Line]) -> Iterable[str]:
    """Add up the hours; a run of sweeps ends a dataset when its minutes are over."""
    named = {e.subject: e.cfg.dataset for e in experiments}
    seconds: dict[str, float] = {}
    for line in lines:
        dataset = named[line.subject].name
        seconds[dataset] = seconds.get(dataset, 0.0) + line.seconds
    limits = {d.name: 60 * d.counts.max_minutes if "sweeps" in cfg else math.inf for d in named.values()}
    for dataset, needed in seconds.items():
        bounded = f", of which the profile allows {duration(limits[dataset])}" if needed > limits[dataset] else ""
        yield f"dataset {dataset}: about {duration(needed)}{bounded}"
    total = sum(min(needed, limits[dataset]) for dataset, needed in seconds.items())
    yield f"estimate on this machine: {duration(total)}"
