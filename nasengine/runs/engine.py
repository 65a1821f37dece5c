"""The loop: propose, measure, record. It knows contracts only.

A trial is recorded as begun before it is measured and as ended before it is announced, so that
whatever happens in between is known when the run is resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from nasengine.architecture import Architecture
from nasengine.errors import (
    ArchitectureError,
    Interrupted,
    NasengineError,
    RunFolderError,
    SearchFailed,
    StorageError,
)
from nasengine.history import History
from nasengine.reporter import Progress
from nasengine.runs.execution import Executor, InProcess, Job, Measured
from nasengine.runs.failures import said
from nasengine.runs.going_on import held_against
from nasengine.runs.measuring import measure_on
from nasengine.runs.storage import Storage
from nasengine.search import Search
from nasengine.strategy import Strategy
from nasengine.trial import Status, Trial

MAX_ATTEMPTS = 3
"""How often a trial that took the process down with it is begun before it counts as failed."""


def _left_behind(folder: Path) -> str:
    """Say what an attempt left in its folder: files with their sizes and times."""
    if not folder.is_dir():
        return ""
    stats = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    return ";".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in stats)


def _kept_history(storage: Storage, search: Search) -> History:
    """Read the trials so far, and hold them to the search that goes on from them."""
    history = storage.history()
    goals = [goal.metric for goal in search.objectives.goals]
    for trial in history:
        where = f"{storage.path}: damaged: trial {trial.number}"
        search.space.architecture(trial.architecture, where)
        lacking = [name for name in goals if name not in trial.measurements]
        if lacking and trial.status is Status.COMPLETE:
            raise RunFolderError(f"{where}: complete without {lacking[0]}")
    return history


class Engine:
    """Runs a search until its budget is spent or its strategy has nothing more to propose.

    Parameters
    ----------
    search
        The parts.
    strategy
        Asked for architectures.
    storage
        Where trials are kept; what it holds already is gone on from.
    executor
        Measures; by default in this process, one at a time.
    clock
        Seconds, monotonic.
    """

    def __init__(
        self,
        search: Search,
        strategy: Strategy,
        storage: Storage,
        executor: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.search = search
        self.strategy = strategy
        self.storage = storage
        self.executor = executor or InProcess(lambda job: measure_on(search, job))
        self.history = _kept_history(storage, search)
        self._clock = clock
        self._spent_before = storage.seconds
        self._started: float | None = None
        self._under_way: dict[str, Trial] = {}
        self._shown = Progress()

    @property
    def seconds(self) -> float:
        """Seconds of search so far, interrupted parts included."""
        running = 0.0 if self._started is None else self._clock() - self._started
        return self._spent_before + running

    def run(self) -> History:
        """Search; returns the history.

        Raises
        ------
        Interrupted
            If a signal asked for it; everything is saved.
        """
        waiting = [trial for trial in self.history if trial.status is Status.RUNNING]
        if not waiting and self._spent():
            return self.history
        self._started = self._clock()
        try:
            with self._progress() as self._shown:
                while True:
                    self._begin_what_can_be(waiting)
                    if not self._under_way:
                        break
                    job, measured = self.executor.wait()
                    self._end(job, measured)
        except (Interrupted, KeyboardInterrupt, NasengineError):
            # What the user, the disk or the strategy did is no attempt of the candidate's.
            with suppress(StorageError):
                for trial in self._under_way.values():
                    self.storage.forget_attempt(trial.number)
            raise
        finally:
            self._spent_before, self._started = self.seconds, None
            self.storage.set_seconds(self.seconds)
        return self.history

    def _progress(self) -> AbstractContextManager[Progress]:
        """Show how many trials there are to go; not where time may end them before."""
        budget = self.search.budget
        if budget.trials is None or budget.seconds is not None:
            return nullcontext(Progress())
        ended = sum(trial.status is not Status.RUNNING for trial in self.history)
        return self.search.reporter.progress("trials", budget.trials, ended)

    def measure_references(self, names: Iterable[str]) -> dict[str, Trial]:
        """Measure reference networks that are not measured yet, by all estimators."""
        done = self.storage.references()
        for name in names:
            if name in done and done[name].status is Status.COMPLETE:
                continue
            self.search.pause_point()
            architecture = self.search.space.reference(name)
            key = self.search.space.key(architecture)
            trial = Trial(-1, architecture, key, reference=name)
            if before := done.get(name):
                # One that failed is tried again with all the time that it may take.
                spent = before.seconds if before.status is Status.RUNNING else 0.0
                trial = replace(trial, measurements=before.measurements, seconds=spent)
            keep = partial(self._keep_reference, trial)
            job = _job(trial, stop_early=False, final=True)
            done[name] = keep(self._measured(job, keep))
            self.search.reporter.trial(done[name])
        return {name: done[name] for name in names}

    def _keep_reference(self, trial: Trial, measured: Measured) -> Trial:
        """Keep what was measured of a reference, to the end or not."""
        kept = _as_measured(trial, measured)
        self.storage.set_reference(kept)
        return kept

    def _measured(self, job: Job, keep: Callable[[Measured], object]) -> Measured:
        """Measure to the end, and keep what is measured on the way."""
        measured = self.executor.measure(job)
        while measured.status is Status.RUNNING:
            keep(measured)
            job = job.after(measured)
            measured = self.executor.measure(job)
        return measured

    def measure_finally(self, winner: Trial) -> Trial:
        """Measure what the winner and the references alone are measured by; kept with the run.

        And what was recorded of the others, and could not be measured of the winner.
        """
        known = {**winner.measurements, **self.storage.final(winner.number)}
        job = Job(winner.label, winner.architecture, stop_early=False, final=True, known=known)

        def keep(so_far: Measured) -> None:
            self.storage.set_final(winner.number, so_far.measurements)

        measured = self._measured(job, keep)
        keep(measured)
        if measured.status is not Status.COMPLETE:
            self.search.reporter.warn(f"the winner is not measured in full: {measured.reason}")
        return replace(winner, measurements=measured.measurements)

    def _begin_what_can_be(self, waiting: list[Trial]) -> None:
        """Give every free worker a trial: those left running by an earlier process first."""
        while self.executor.free > 0:
            if waiting and waiting[0].number >= len(self.history) and self._spent():
                waiting.clear()  # More were proposed than there is time for.
            if waiting:
                self._begin(waiting.pop(0))
                continue
            if self._spent():
                return
            self.search.pause_point()
            for architecture in self._proposed()[: self._left()]:
                waiting.append(self._next(architecture, len(waiting)))
            if not waiting:
                return

    def _proposed(self) -> list[Architecture]:
        """Return what the spec starts with, then ask the strategy, and check what it answers.

        Raises
        ------
        SearchFailed
            If it raises, or proposes what is no architecture of the space.
        """
        if given := self.search.start[len(self.history) :]:
            return list(given)
        try:
            proposals = self.strategy.propose(self.history, self.executor.free, self.search)
            if isinstance(proposals, (Mapping, str)) or not isinstance(proposals, Iterable):
                kind = type(proposals).__name__
                raise SearchFailed(
                    f"strategy: propose has to return a list of architectures, not {kind}"
                )
            return [self.search.space.architecture(a, "a proposal") for a in proposals]
        except ArchitectureError as error:
            raise SearchFailed(f"strategy: {error}") from error
        except NasengineError:
            raise
        except Exception as error:
            raise SearchFailed(f"strategy: {said(error, self.search, self.strategy)}") from error

    def _left(self) -> int | None:
        trials = self.search.budget.trials
        return None if trials is None else max(0, trials - len(self.history))

    def _spent(self) -> bool:
        seconds = self.search.budget.seconds
        return self._left() == 0 or (seconds is not None and self.seconds >= seconds)

    def _next(self, architecture: Architecture, ahead: int) -> Trial:
        return Trial(len(self.history) + ahead, architecture, self.search.space.key(architecture))

    def _begin(self, trial: Trial) -> None:
        twin = self._measured_before(trial)
        left_behind = _left_behind(self.search.folder / "trials" / trial.label)
        attempts = self.storage.begin(trial, left_behind, self.seconds)
        self.history.record(trial)
        self._under_way[trial.label] = trial
        job = _job(trial)
        if twin is not None:
            told = f"as trial {twin.number}"
            self._end(job, Measured(twin.status, twin.measurements, told, trial.seconds))
        elif attempts > MAX_ATTEMPTS:
            told = f"the process died {MAX_ATTEMPTS} times at the same point of measuring it"
            self._end(job, Measured(Status.FAILED, trial.measurements, told, trial.seconds))
        else:
            self.executor.begin(job)

    def _measured_before(self, trial: Trial) -> Trial | None:
        """Return the ended trial that a strategy proposes again; it is not measured twice.

        One that is lost says nothing of the candidate: the machine failed.
        """
        if trial.key not in self.history.keys:
            return None
        unknown = (Status.RUNNING, Status.LOST)
        ended = (t for t in self.history if t.key == trial.key and t.status not in unknown)
        return next(ended, None)

    def _end(self, job: Job, measured: Measured) -> None:
        """Record how a trial ended, or ask its screens, keep what it has and measure it further."""
        trial = self._under_way.pop(job.label)
        if measured.status is Status.RUNNING:
            others = [t for t in [*self.history, *self._under_way.values()] if t.key != trial.key]
            measured = held_against(self.search, measured, trial.measurements, others)
        trial = _as_measured(trial, measured)
        if trial.status is Status.RUNNING:
            self.storage.keep_measured(trial)
            self._under_way[job.label] = trial
            self.executor.begin(job.after(measured))
            return
        self.storage.finish(trial, self.seconds)
        self.history.record(trial)
        self.search.reporter.trial(trial)
        self._shown.advance()


def _job(trial: Trial, *, stop_early: bool = True, final: bool = False) -> Job:
    """Return what is left to be measured of a trial."""
    return Job(
        trial.label, trial.architecture, stop_early, final, trial.measurements, trial.seconds
    )


def _as_measured(trial: Trial, measured: Measured) -> Trial:
    """Return a trial with what was measured of it."""
    return replace(
        trial,
        status=measured.status,
        measurements=measured.measurements,
        reason=measured.reason,
        seconds=measured.seconds,
    )
