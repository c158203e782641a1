"""The plan in words: a line for each setup and method, a table, and the estimate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from omegaconf import DictConfig

from misure.sweep.experiment import Experiment
from misure.sweep.needs import Needs
from misure.sweep.networks import checkpoint_path
from misure.sweep.pace import Pace, duration, settled_pace
from misure.sweep.plan import Outlook, Plan, SetupPlan
from misure.sweep.sweeps import Requested

_PLAN_ALONE = "this was the plan alone: nothing was trained, downloaded or written"


def announced(plan: Plan, cfg: DictConfig) -> Iterator[str]:
    """Write the lines of a plan of experiments.

    Args:
        plan: The plan.
        cfg: Names the profile, and says whether only the plan is asked for.
    """
    asked, distinct = sum(e.n_samples for _, e in plan.requested), _distinct(plan.experiments)
    shared = f"; the sweeps ask for {asked}, {asked - distinct} of them are shared" if asked > distinct else ""
    size = f"{len(plan.experiments)} experiments, {distinct} explanations at most"
    yield f"plan: profile {cfg.profile.name}, {size}{shared}"
    yield from _sharing(plan.requested)
    for setup in plan.setups:
        yield from _setup(setup)
        yield from _methods(setup)
    yield from table(plan.setups, plan.left_out)
    yield from _estimate(plan)
    if cfg.plan_only:
        yield _PLAN_ALONE


def only_planned(
    cfg: DictConfig, what: str, work: Callable[[Pace], float] = lambda _: 0.0, *, trains: bool = False
) -> bool:
    """Print the plan of an entry point that prepares one setup, if only the plan is asked for.

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
        setup = SetupPlan(cfg, Needs.of(cfg, pace, anew=trains), pace, other_work=work(pace))
        print("\n".join([f"plan: {what}", *_setup(setup), *table([setup]), _PLAN_ALONE]), flush=True)
    return bool(cfg.plan_only)


def table(setups: Sequence[SetupPlan], left_out: Iterable[str] = ()) -> Iterator[str]:
    """Write the plan's table, with the total and all downloads."""
    rows = [["network", "images", "weights", "to do", "there", "hours", "GB to write"]]
    rows += [
        [setup.name, setup.needs.images.state, setup.needs.network.partition(",")[0], *_numbers([setup])]
        for setup in setups
    ]
    rows += [[name, "-", "left out, see above", "0", "", "", ""] for name in left_out]
    rows.append(["total", "", "", *_numbers(setups)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(
            f"{cell:<{w}}" if i < 3 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
    downloads = dict.fromkeys(download for setup in setups for download in setup.needs.downloads)
    yield from (f"download: {download}" for download in downloads)


def _numbers(setups: Sequence[SetupPlan]) -> list[str]:
    hours, gigabytes = sum(setup.seconds for setup in setups) / 3600, sum(setup.to_write for setup in setups) / 1e9
    counts = [str(sum(setup.to_do for setup in setups)), str(sum(setup.done for setup in setups))]
    return [*counts, f"{hours:.2f}" if hours < 10 else f"{hours:.0f}", f"{gigabytes:.3f}"]


def _setup(setup: SetupPlan) -> Iterator[str]:
    yield f"network {setup.name}: {setup.needs.network}, kept as {checkpoint_path(setup.cfg)}"
    state, source = setup.needs.images.state, " ".join(setup.needs.images.source.split())
    yield f"  images: {source}" if source.startswith(state) else f"  images: {state}: {source}"
    yield f"  precision: {setup.pace.choice.precision}, {setup.pace.choice.reason}"


def _distinct(experiments: Sequence[Experiment]) -> int:
    """Count the explanations at most; another draw of the same images makes some of the same records."""
    most: Counter[str] = Counter()
    for experiment in experiments:
        most[experiment.records_key] = max(experiment.n_samples, most[experiment.records_key])
    return most.total()


def _sharing(requested: Requested) -> Iterable[str]:
    """Say which sweeps are made from the same records, a line for each group of sweeps."""
    asking: dict[str, dict[str, Experiment]] = {}
    for sweep, experiment in requested:
        asking.setdefault(experiment.records_key, {})[sweep] = experiment
    groups: dict[tuple[str, ...], list[str]] = {}
    for sweeps in asking.values():
        if len(sweeps) > 1:
            experiment = next(iter(sweeps.values()))
            groups.setdefault(tuple(sweeps), []).append(f"{experiment.setup} {experiment.explainer.name}")
    for names, methods in groups.items():
        yield f"  {', '.join(names)} share records: {', '.join(dict.fromkeys(methods))}"


def _methods(setup: SetupPlan) -> Iterable[str]:
    """Write a line for each method, and one more for each kind of disturbance it is run under."""
    ordered = sorted(setup.outlooks, key=_kind)
    for kind, group in groupby(ordered, key=_kind):
        same = list(group)
        skipped = sum((outlook.skipped for outlook in same), Counter[str]())
        parts = [f"{sum(o.to_do for o in same)} to do"]
        parts += [f"{n} there" for n in [sum(o.done for o in same)] if n]
        parts += [f"{n} of those to do failed before" for n in [sum(o.failed for o in same)] if n]
        parts += [f"{skipped.total()} skipped ({skipped.most_common(1)[0][0]})"] if skipped else []
        settings = f" ({len(same)} settings)" if len(same) > 1 else ""
        about = duration(setup.explaining(same))
        yield f"  {', '.join(filter(None, kind))}{settings}: {', '.join(parts)}; about {about}"


def _kind(outlook: Outlook) -> tuple[str, str, str]:
    experiment = outlook.experiment
    noise = f"noise {experiment.input_noise:g} on the image" if experiment.input_noise else ""
    changed = "network or target changed" if experiment.intervention.text else ""
    return experiment.explainer.name, noise, changed


def _estimate(plan: Plan) -> Iterable[str]:
    """Add up the hours; a dataset ends when its minutes are over."""
    total = 0.0
    for dataset, minutes in plan.minutes().items():
        needed = sum(setup.seconds for setup in plan.setups if setup.cfg.dataset.name == dataset)
        bounded = f", of which the profile allows {duration(60 * minutes)}" if needed > 60 * minutes else ""
        yield f"dataset {dataset}: about {duration(needed)}{bounded}"
        first = next(setup for setup in plan.setups if setup.cfg.dataset.name == dataset)
        if first.shows_early:
            shown = total + first.needs.training + first.explaining(first.first)
            yield f"  Table 1 with its rows of {first.name} is written after about {duration(shown)}"
        total += min(needed, 60 * minutes)
    yield f"estimate on this machine: {duration(total)}"
