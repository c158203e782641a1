"""The driver of a run: hands turns to workers, in rounds, as far as the time goes, and counts what becomes of them."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

from tqdm import tqdm

from misure.errors import MisureError
from misure.sweep.executors import Crew, UnfitError
from misure.sweep.experiment import Experiment
from misure.sweep.journal import reason_of
from misure.sweep.pace import Pace
from misure.sweep.plan import images_per_step, rounds
from misure.sweep.recorder import Recorder, RunCounts
from misure.sweep.records import Outcome, Unit
from misure.sweep.turns import PATIENCE, Tally, Turn

_ENOUGH_TO_JUDGE = 5.0  # seconds of estimated work after which estimates are corrected by what it really took

_PAUSE = 0.2  # seconds between looks at what another run works on

_DEATHS = 3
"""Workers that may end while they work on a turn: one may be pushed out by another program, three are the turn's."""

_DEATHS_IN_A_ROW = 12
"""Workers that may end without any that works on or finishes: then it is the machines, and not what they work on."""

_BACK_OFF = 0.1
"""Seconds before what a worker did not finish is handed out again, doubled by each worker that ends in a row: a machine
on which all workers end at once would otherwise take everything from those that work."""

_LONGEST_BACK_OFF = 60.0

_TASKS_A_WORKER = 4
"""Tasks that each worker gets of a run at least, so that none is left with a long one while the others have ended."""


@dataclass(frozen=True)
class Task:
    """What is handed to a worker in one piece.

    Attributes:
        turns: In their order.
        seconds: Estimated.
    """

    turns: tuple[Turn, ...]
    seconds: float

    @property
    def n_samples(self) -> int:
        """Of all its turns."""
        return _samples_in(self.turns)


@dataclass
class Runner:
    """Has experiments on a setup explained.

    Attributes:
        recorder: Of the setup; names its samples and records, and explains none itself.
        pace: Measured speed of the network, for the time left.
        explain: Explains turns that begin before a time in seconds since the epoch; any worker can call it.
        crew: The workers.
        deadline: Seconds since the epoch at which to end; what does not fit before it is left for another run.
        counts: What became of the samples.
    """

    recorder: Recorder
    pace: Pace
    explain: Callable[[Sequence[Turn], float], Tally]
    crew: Crew = field(default_factory=Crew)
    deadline: float = math.inf
    counts: RunCounts = field(default_factory=RunCounts)
    _queue: deque[Task] = field(default_factory=deque, init=False, repr=False)
    _running: dict[Future[Tally], Task] = field(default_factory=dict, init=False, repr=False)
    _taken: list[Turn] = field(default_factory=list, init=False, repr=False)
    _before: dict[str, tuple[Unit, Outcome]] = field(default_factory=dict, init=False, repr=False)
    _deaths: Counter[tuple[str, tuple[int, ...]]] = field(default_factory=Counter, init=False, repr=False)
    _deaths_in_a_row: int = field(default=0, init=False)
    _not_before: float = field(default=0.0, init=False)
    _estimated: float = field(default=0.0, init=False)
    _spent: float = field(default=0.0, init=False)
    _is_over: bool = field(default=False, init=False)
    _asked: set[str] = field(default_factory=set, init=False, repr=False)
    _unfit: set[str] = field(default_factory=set, init=False, repr=False)

    def run(self, experiments: Sequence[Experiment]) -> None:
        """Have every pending sample explained, in rounds, while the time lasts.

        A sample that fails is recorded with its reason, and the others go on; so is one whose worker ends three times.
        Nothing that comes after what does not fit into the time is tried, so that holes are at the end of the plan and
        not where methods are slow.

        Raises:
            CannotWriteError: If records cannot be written.
            MisureError: If the workers cannot do anything, or what they wrote is not seen here.
        """
        self._queue.extend(self._tasks(self._pending(experiments)))
        promised: list[str] = []
        total = max(min(sum(task.seconds for task in self._queue), self._time_left() * self.crew.workers), 1e-9)
        bar_format = "{desc}: {percentage:3.0f}%|{bar:24}| {elapsed} spent, {remaining} left"
        with tqdm(total=total, bar_format=bar_format, desc="explaining") as bar:
            try:
                while self._queue or self._running or self._taken:
                    self._hand_out()
                    for task, tally in self._finished():
                        bar.set_description_str(task.turns[-1].experiment.label)
                        bar.update(task.seconds)
                        promised += tally.units
                    self._look_at_taken()
            finally:
                for future in self._running:
                    future.cancel()
        if not self.crew.is_this_process:
            self._check_seen(promised)

    def _pending(self, experiments: Sequence[Experiment]) -> list[Turn]:
        """Choose the samples that need work, and note which of the others another profile made."""
        turns = [(e, self._new(self._units(e, r))) for e, r in rounds(experiments, images_per_step(experiments))]
        asked = [(unit, e.needs_maps(rank)) for e, units in turns for rank, unit in units]
        outcomes = iter(self.recorder.store.outcomes(asked))
        pending, from_others = list[Turn](), dict[str, list[Unit]]()
        for experiment, units in turns:
            open_ = list[int]()
            for (rank, unit), outcome in zip(units, outcomes, strict=False):
                if not outcome.complete:
                    open_.append(rank)
                    self._before[unit.id] = unit, outcome
                elif outcome.profile != (profile := str(experiment.cfg.profile.name)):
                    from_others.setdefault(profile, []).append(unit)
            self.counts.present += len(units) - len(open_)
            pending += [Turn(experiment, tuple(open_))] if open_ else []
        for profile, units_of_others in from_others.items():
            self.recorder.store.serve(profile, units_of_others)
        return pending

    def _new(self, units: list[tuple[int, Unit]]) -> list[tuple[int, Unit]]:
        """Leave out what an experiment before has asked for: one of a later place has its samples and more."""
        new = [(rank, unit) for rank, unit in units if unit.id not in self._asked]
        self._asked.update(unit.id for _, unit in new)
        return new

    def _units(self, experiment: Experiment, ranks: Sequence[int]) -> list[tuple[int, Unit]]:
        samples = self.recorder.samples(experiment)
        return [(r, self.recorder.unit(experiment, samples[r])) for r in ranks if r < len(samples)]

    def _tasks(self, turns: Sequence[Turn]) -> Iterator[Task]:
        """Put turns together, in their order, to tasks that are worth the start of a job where workers are jobs."""
        estimates = [self._seconds_of(turn) for turn in turns]
        enough = min(self.crew.seconds_a_task, sum(estimates) / (_TASKS_A_WORKER * self.crew.workers))
        together, seconds = list[Turn](), 0.0
        for turn, estimate in zip(turns, estimates, strict=True):
            together.append(turn)
            seconds += estimate
            if seconds >= enough:
                yield Task(tuple(together), seconds)
                together, seconds = [], 0.0
        if together:
            yield Task(tuple(together), seconds)

    def _hand_out(self) -> None:
        """Keep workers busy with what fits into the time."""
        while self._queue and len(self._running) < self.crew.in_flight and time.monotonic() >= self._not_before:
            task = self._queue.popleft()
            waiting = sum(other.seconds for other in self._running.values()) / self.crew.workers
            self._is_over = self._is_over or self._corrected(waiting + task.seconds) > self._time_left()
            if self._is_over:
                for left in (task, *self._queue):
                    self.counts.left += left.n_samples
                self._queue.clear()
                return
            self._running[self.crew.executor.submit(self.explain, task.turns, self.deadline)] = task

    def _time_left(self) -> float:
        return self.deadline - time.time()

    def _corrected(self, seconds: float) -> float:
        return seconds * self._spent / self._estimated if self._estimated >= _ENOUGH_TO_JUDGE else seconds

    def _finished(self) -> Iterator[tuple[Task, Tally]]:
        """Wait for workers, and yield what they have finished."""
        waits = self._taken or (self._queue and len(self._running) < self.crew.in_flight)
        if not self._running:
            time.sleep(_PAUSE if waits else 0)
        done, _ = wait(self._running, timeout=_PAUSE if waits else None, return_when=FIRST_COMPLETED)
        for future in done:
            task = self._running.pop(future)
            try:
                tally = future.result()
            except MisureError:
                raise
            except Exception as error:  # samples fail inside the worker, so this is its own end
                if self.crew.is_this_process:
                    raise
                if isinstance(error, UnfitError) and str(error) not in self._unfit:
                    self._unfit.add(str(error))
                    tqdm.write(f"a worker cannot do its part, others have to: {error}")
                self._bury(task, reason_of(error))
                continue
            self._deaths_in_a_row = 0
            self.counts.add(tally.counts)
            self._taken += tally.taken
            taken = _samples_in(tally.taken) / task.n_samples
            self._estimated += task.seconds * (1 - taken)
            self._spent += tally.seconds
            yield task, tally

    def _look_at_taken(self) -> None:
        """Find what other runs had taken and left, or do not finish in time."""
        taken, self._taken = self._taken, []
        for turn in taken:
            open_, closed = self._settled(turn)
            self.counts.reasons.update(outcome.reason for outcome in closed if outcome.status == "failed")
            self.counts.present += sum(outcome.complete for outcome in closed)
            left = [Turn(turn.experiment, open_)] if open_ else []
            if self._time_left() < 0:
                self.counts.left += len(open_)
            elif any(self._is_free(unit) for _, unit in self._units(turn.experiment, open_)):
                self._queue.extend(map(self._task_of, left))
            else:
                self._taken += left

    def _is_free(self, unit: Unit) -> bool:
        if free := (claim := self.recorder.store.claim(unit)).take():
            claim.release()
        return free

    def _task_of(self, turn: Turn) -> Task:
        return Task((turn,), self._seconds_of(turn))

    def _seconds_of(self, turn: Turn) -> float:
        return len(turn.ranks) * self.pace.explaining(turn.experiment)

    def _settled(self, turn: Turn) -> tuple[tuple[int, ...], list[Outcome]]:
        """Return the ranks of those samples of a turn that this run has no record of yet, and the others' outcomes."""
        open_, closed = list[int](), list[Outcome]()
        for rank, unit in self._units(turn.experiment, turn.ranks):
            outcome = self.recorder.store.outcome(unit, turn.experiment.needs_maps(rank))
            is_of_this_run = outcome.status and outcome != self._before[unit.id][1]
            open_ += [] if is_of_this_run else [rank]
            closed += [outcome] if is_of_this_run else []
        return tuple(open_), closed

    def _bury(self, task: Task, reason: str) -> None:
        """Have a task whose worker ended done by another one, without the turn that ends every worker.

        Raises:
            MisureError: If workers end one after the other.
        """
        self._deaths_in_a_row += 1
        self._not_before = time.monotonic() + min(_BACK_OFF * 2**self._deaths_in_a_row, _LONGEST_BACK_OFF)
        if self._deaths_in_a_row >= _DEATHS_IN_A_ROW and not self._running:
            raise MisureError(f"{self._deaths_in_a_row} workers ended one after the other, the last with: {reason}")
        left = list[Turn]()
        for turn in task.turns:
            open_, closed = self._settled(turn)
            left += [Turn(turn.experiment, open_)] if open_ else []
            self.counts.done += sum(outcome.status == "done" for outcome in closed)
            self.counts.skipped += sum(outcome.status == "skipped" for outcome in closed)
            self.counts.reasons.update(outcome.reason for outcome in closed if outcome.status == "failed")
        again = [self._task_of(turn) for turn in left[1:]]
        if left:  # turns are done in their order, so it ended in the first that is not done
            again = [*self._tried_again(left[0], reason), *again]
        self._queue.extend(again)

    def _tried_again(self, turn: Turn, reason: str) -> list[Task]:
        key = (turn.experiment.records_key, turn.ranks)
        self._deaths[key] += self._was_begun(turn)
        if self._deaths[key] < _DEATHS:
            return [self._task_of(turn)]
        if len(turn.ranks) > 1:
            return [self._task_of(Turn(turn.experiment, (rank,))) for rank in turn.ranks]
        sample = self.recorder.samples(turn.experiment)[turn.ranks[0]]
        told = f"{_DEATHS} workers ended while they explained it, the last with: {reason}"
        self.recorder.fail(turn.experiment, sample, told)
        self.counts.reasons[told] += 1
        return []

    def _was_begun(self, turn: Turn) -> bool:
        """Say whether a worker that has ended had begun a turn, by the claims it left; they are removed."""
        claims = [self.recorder.store.claim(unit) for _, unit in self._units(turn.experiment, turn.ranks)]
        left = [claim for claim in claims if claim.path.exists()]
        for claim in left:
            if claim.take():
                claim.release()
        return bool(left)

    def _check_seen(self, promised: Sequence[str]) -> None:
        """Wait until all that workers have recorded is seen here: network file systems list late.

        Raises:
            MisureError: If it does not come.
        """
        units = [(self._before[unit][0], False) for unit in promised]
        until = time.monotonic() + PATIENCE
        while units:
            outcomes = self.recorder.store.outcomes(units)
            units = [asked for asked, outcome in zip(units, outcomes, strict=True) if not outcome.status]
            if units and time.monotonic() > until:
                raise MisureError(
                    f"{len(units)} records that workers have written are not in {self.recorder.store.folder}: it has "
                    "to be a folder that all machines share"
                )
            time.sleep(_PAUSE if units else 0)


def _samples_in(turns: Sequence[Turn]) -> int:
    return sum(len(turn.ranks) for turn in turns)
