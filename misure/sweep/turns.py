"""Turns: what a worker is handed, and what it does with it; the network of a setup is loaded once by each process."""

from __future__ import annotations

import copy
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig

from misure.config import build, setup_name
from misure.errors import MisureError, set_up_messages
from misure.io.locks import Lock
from misure.io.reading import user_path
from misure.models.compute import Precision, default_device
from misure.sweep.executors import UnfitError
from misure.sweep.experiment import Experiment
from misure.sweep.images import available
from misure.sweep.journal import CannotWriteError, Journal
from misure.sweep.networks import checkpoint_path, needs_no_training
from misure.sweep.recorder import Recorder, RunCounts
from misure.sweep.records import RecordStore
from misure.sweep.setup import Setup, described, keep_volume_scores, prepare

PATIENCE = 60.0
"""Seconds that a file of another host may take to be seen here: network file systems keep their listings that long."""

_PAUSE = 0.5


@dataclass(frozen=True)
class Turn:
    """Samples of an experiment that are explained together; a turn is not cut, because its batch decides rounding.

    Attributes:
        experiment: With all that was measured settled, so that every worker computes the same.
        ranks: Of the samples, in their order.
    """

    experiment: Experiment
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Ready:
    """A setup that a worker has trained and surveyed: what the others have to find as well.

    Attributes:
        name: The setup's.
        outputs: Absolute path of the outputs folder.
        weights: Fingerprint of the network's weights.
        images: Fingerprint of the images.
        precision: Of its passes.
        device: Type of the device that it runs on.
        cfg: A run configuration, with absolute paths.
    """

    name: str
    outputs: str
    weights: str
    images: str
    precision: Precision
    device: str
    cfg: DictConfig = field(compare=False)

    @property
    def store(self) -> RecordStore:
        """Where its records go."""
        return RecordStore(Path(self.outputs) / "records")

    def described(self) -> Setup:
        """Describe the setup from files alone, which may take a while to be seen here; its network is loaded later.

        Raises:
            MisureError: If its files do not come.
        """
        if self in _recorders:
            return _recorders[self].setup
        path, until = checkpoint_path(self.cfg).with_suffix(".json"), time.monotonic() + PATIENCE
        while not path.exists() and time.monotonic() < until:
            time.sleep(_PAUSE)
        return described(self.cfg, build(self.cfg.dataset.val), self.precision)


@dataclass
class Tally:
    """What became of turns.

    Attributes:
        counts: Of their samples.
        taken: What other runs work on, and so was left to them.
        units: Identities of what has a record now.
        seconds: That it took.
    """

    counts: RunCounts = field(default_factory=RunCounts)
    taken: list[Turn] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    seconds: float = 0.0


_recorders: dict[Ready, Recorder] = {}
"""That of the setup that this process works on."""


def at_work(ready: Ready) -> Recorder:
    """Return this process's recorder of a setup; one that it worked on before is let go.

    Raises:
        UnfitError: If there is no GPU here as where it was prepared, or other images or weights, or none.
        CannotWriteError: If the outputs folder cannot be written.
    """
    if ready not in _recorders:
        _recorders.clear()
        _begin(ready.cfg)
        try:
            _check_device(ready)
            setup = ready.described()
            check_same(setup, ready)
            _ = setup.model  # where it cannot be loaded that is no failure of the samples
        except CannotWriteError:
            raise
        except MisureError as error:
            raise UnfitError(f"{socket.gethostname()}: {error}") from error
        _recorders[ready] = Recorder(ready.store, setup)
    return _recorders[ready]


def _check_device(ready: Ready) -> None:
    """Raise a MisureError if a setup that was prepared on a GPU would be explained on a CPU, a hundred times slower."""
    if ready.device == "cuda" and default_device().type != ready.device:
        raise MisureError("no GPU can be used here, where others have one")


def explain_turns(
    ready: Ready, turns: Sequence[Turn], deadline: float, recorder_of: Callable[[Ready], Recorder] = at_work
) -> Tally:
    """Explain the samples of turns one after the other, and keep their records in the outputs folder.

    Args:
        ready: Their setup.
        turns: Each is begun unless the time is over.
        deadline: Seconds since the epoch.
        recorder_of: Gives the setup's recorder; by default that of this process.

    Raises:
        CannotWriteError: If records cannot be written.
        UnfitError: If the setup cannot be explained here.
    """
    tally = Tally()
    recorder, started = replace(recorder_of(ready), counts=tally.counts), time.monotonic()
    for turn in turns:
        if time.time() > deadline:
            tally.counts.left += len(turn.ranks)
            continue
        taken = _explain(recorder, turn)
        samples = recorder.samples(turn.experiment)
        tally.units += [recorder.unit(turn.experiment, samples[r]).id for r in turn.ranks if r not in taken]
        tally.taken += [Turn(turn.experiment, taken)] if taken else []
    tally.seconds = time.monotonic() - started
    return tally


def _explain(recorder: Recorder, turn: Turn) -> tuple[int, ...]:
    """Explain the samples that no other run works on or has explained since; return the ranks of the others."""
    experiment, store = turn.experiment, recorder.store
    samples = recorder.samples(experiment)
    units = {rank: recorder.unit(experiment, samples[rank]) for rank in turn.ranks}
    claims: dict[int, Lock] = {}
    try:
        claims.update((rank, claim) for rank, unit in units.items() if (claim := store.claim(unit)).take())
        open_ = [rank for rank in claims if not store.outcome(units[rank], experiment.needs_maps(rank)).complete]
        recorder.counts.present += len(claims) - len(open_)
        recorder.explain(experiment, [samples[rank] for rank in open_])
    finally:
        for claim in claims.values():
            claim.release()
    return tuple(rank for rank in turn.ranks if rank not in claims)


def make_ready(cfg: DictConfig, experiment: Experiment) -> Ready:
    """Train a network where it is not trained, load it, and find what can be explained of it.

    Args:
        cfg: A run configuration, see :func:`portable`.
        experiment: One on the setup, for the samples that are drawn.

    Raises:
        MisureError: If the setup cannot be had.
    """
    _recorders.clear()
    _begin(cfg)
    offline = available(cfg).offline or {}
    for images in (cfg.dataset.train, cfg.dataset.val):  # what could be downloaded was, by one process: fetch_ahead
        images.update(offline)
    journal, stage = Journal(Path(cfg.outputs)), partial(_stage, cfg)
    with stage("loading" if needs_no_training(cfg) else "training"):
        setup = prepare(cfg)
    journal.use(cfg.profile.name, cfg.dataset.name, cfg.model.name, setup.info.fingerprint, setup.dataset.fingerprint)
    with stage("survey"):
        setup.samples(experiment.sampling, experiment.cfg.seed, experiment.compute)
    fingerprints = setup.info.fingerprint, setup.dataset.fingerprint
    precision = setup.precision(experiment.compute)
    ready = Ready(setup.name, str(cfg.outputs), *fingerprints, precision, default_device().type, cfg)
    _recorders[ready] = Recorder(ready.store, setup)
    return ready


def score_volumes(ready: Ready) -> None:
    """Score the validation volumes of a setup from its predictions, unless that was done.

    Raises:
        MisureError: If a library is missing or the scores cannot be written.
    """
    with _stage(ready.cfg, "volume scores"):
        keep_volume_scores(ready.cfg, at_work(ready).setup)


def portable(cfg: DictConfig) -> DictConfig:
    """Return a run configuration that means the same in every working directory."""
    cfg = copy.deepcopy(cfg)
    for key in ("outputs", "data_root", "checkpoint"):
        cfg[key] = cfg[key] and str(user_path(cfg[key]).absolute())
    return cfg


def check_same(setup: Setup, ready: Ready) -> None:
    """Raise a MisureError unless a setup is the one that was prepared, maybe on another machine."""
    for kind, found, made in (
        ("weights", setup.info.fingerprint, ready.weights),
        ("images", setup.dataset.fingerprint, ready.images),
    ):
        if found != made:
            raise MisureError(
                f"{ready.name}: other {kind} than were prepared are found (images now: {setup.dataset.source}): "
                "outputs and data_root have to be folders that all machines share, under the same paths, and what one "
                "of them alone can download has to be there before (misure prepare)"
            )


def _stage(cfg: DictConfig, name: str) -> AbstractContextManager[None]:
    return Journal(Path(cfg.outputs)).stage(cfg.profile.name, name, setup_name(cfg))


def _begin(cfg: DictConfig) -> None:
    """Make a process speak and compute as the others of its run."""
    set_up_messages()
    if (threads := cfg.runner.threads) is not None and threads != torch.get_num_threads():
        torch.set_num_threads(int(threads))
