"""A run's time against the number of its workers, with a load that takes the same on every machine."""

from __future__ import annotations

import copy
import os
import shutil
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import pandas as pd
from omegaconf import DictConfig
from torch import Tensor

from misure.bench.measurement import Page, document, frame_table, hardware_name
from misure.errors import MisureError
from misure.explainers.base import SaliencyMaps
from misure.explainers.baselines import PredictionMap
from misure.models.wrapper import FrozenNetwork
from misure.sweep.announcement import only_planned
from misure.sweep.executors import crew_of
from misure.sweep.experiment import Experiment
from misure.sweep.networks import checkpoint_path
from misure.sweep.pace import settled_pace
from misure.sweep.recorder import Recorder
from misure.sweep.runner import Runner
from misure.sweep.turns import explain_turns, make_ready, portable
from misure.target import TargetBatch


@dataclass(frozen=True, kw_only=True)
class Sleep(PredictionMap):
    """Waits as long as a device would take, and gives the prediction itself."""

    name: ClassVar[str] = "sleep"

    for_seconds: float = 1.0

    def saliency_maps(self, network: FrozenNetwork, images: Tensor, targets: TargetBatch) -> SaliencyMaps:
        """Wait, and return the regions."""
        time.sleep(self.for_seconds)
        return super().saliency_maps(network, images, targets)


def scale_workers(cfg: DictConfig) -> str:
    """Time runs of ``workers.units`` explanations a worker, for each of ``workers.counts`` workers.

    All is as in a run but the explaining: the plan, the network, its metrics, the records.

    Returns:
        The page, which is also written to ``bench/workers-<runner>.md`` and ``.csv`` in the outputs folder; empty if
        only the plan is asked for.

    Raises:
        MisureError: If the setup or the workers cannot be had.
    """
    counts, units, seconds = list(cfg.workers.counts), int(cfg.workers.units), float(cfg.workers.seconds)
    if only_planned(cfg, f"{units} units of {seconds:g} s for each of {counts} workers"):
        return ""
    place = Path(cfg.outputs, "bench", f"workers-{os.getpid()}").absolute()
    try:
        rows = [_measured(_configured(cfg, count, place / str(count)), units, seconds) for count in counts]
    finally:
        shutil.rmtree(place, ignore_errors=True)
    frame = pd.DataFrame(rows)
    frame.insert(4, "efficiency", frame["s taken"].iloc[0] / frame["s taken"])
    name = str(cfg.runner.executor._target_).rpartition(".")[2]
    notes = [
        f"Hardware: {hardware_name('cpu')}, {os.cpu_count()} threads.",
        f"{units} explanations a worker that wait {seconds:g} s each, all else as in a run; they had begun before.",
        "efficiency: seconds that the first line's workers take for as many units each, as a share of these.",
        "overhead: what a unit takes besides: predictions for its metrics, on this processor, its record, its way.",
        "first call: from nothing to the result of an empty call; first explanation: of a network that is trained.",
    ]
    page = Page(f"workers-{name}", document(f"Workers: {name}", notes, frame_table(frame)), frame)
    return page.write(Path(cfg.outputs) / "bench")


def _configured(cfg: DictConfig, workers: int, place: Path) -> DictConfig:
    own = copy.deepcopy(cfg)
    own.checkpoint = str(checkpoint_path(cfg))
    own.runner.workers, own.runner.images_per_step, own.outputs = workers, 1, str(place)
    return portable(own)


def _measured(cfg: DictConfig, each: int, seconds: float) -> dict[str, float]:
    """Measure one number of workers."""
    experiment, started = Experiment.of(cfg), time.perf_counter()
    with crew_of(cfg) as crew:
        crew.executor.submit(os.getpid).result()
        first_call = time.perf_counter() - started
        pace = crew.executor.submit(settled_pace, cfg).result()
        ready = crew.executor.submit(make_ready, cfg, experiment).result()
        recorder = Recorder(ready.store, ready.described())
        runner = Runner(recorder, pace, partial(explain_turns, ready), crew)
        experiment = pace.pinned(experiment)
        first = _seconds_of(runner, replace(experiment, explainer=Sleep(for_seconds=0), n_samples=1))
        _seconds_of(runner, replace(experiment, explainer=Sleep(for_seconds=seconds / 2), n_samples=4 * crew.workers))
        units = each * crew.workers
        taken = _seconds_of(runner, replace(experiment, explainer=Sleep(for_seconds=seconds), n_samples=units))
    return {
        "workers": crew.workers,
        "units": units,
        "s a unit": seconds,
        "s taken": taken,
        "overhead, s a unit": taken / each - seconds,
        "first call, s": first_call,
        "first explanation, s": first,
    }


def _seconds_of(runner: Runner, experiment: Experiment) -> float:
    before, started = runner.counts.done, time.perf_counter()
    runner.run([experiment])
    if (made := runner.counts.done - before) < experiment.n_samples:
        raise MisureError(
            f"{made} of {experiment.n_samples} units were explained: choose images that all show the class"
        )
    return time.perf_counter() - started
