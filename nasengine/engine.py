"""The loop: propose, measure, record. It knows contracts only.

A trial is recorded as begun before it is measured and as ended before it is announced, so that
whatever happens in between is known when the run is resumed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from nasengine.architecture import Architecture
from nasengine.errors import EstimationFailed, InputError, Interrupted, SearchFailed, StorageError
from nasengine.estimator import Candidate, Estimator
from nasengine.history import History
from nasengine.search import Search
from nasengine.storage import Storage
from nasengine.strategy import Strategy
from nasengine.trial import Measurement, Status, Trial

MAX_ATTEMPTS = 3
"""How often a trial that took the process down with it is begun before it counts as failed."""


def full_name(key: str, metric: str, primary: str) -> str:
    """Name a metric in the history: the estimator's key for its primary one, else ``key.metric``.

    Examples
    --------
    >>> full_name("iou", "iou", "iou"), full_name("quality", "precision", "iou")
    ('iou', 'quality.precision')
    """
    return key if metric == primary else f"{key}.{metric}"


def measure(
    search: Search,
    architecture: Architecture,
    label: str,
    *,
    stop_at_limits: bool = True,
    known: Mapping[str, Measurement] | None = None,
) -> tuple[Status, dict[str, Measurement], str]:
    """Measure one architecture with every estimator, the cheap ones first.

    Parameters
    ----------
    search
        The search.
    architecture
        What to measure; a reference may hold baselines.
    label
        Names the candidate's folder and seeds its randomness.
    stop_at_limits
        Whether a broken limit ends the measuring as infeasible, before the dearer estimators.
    known
        Measurements that need not be made again.

    Returns
    -------
    How it ended, what was measured, and the reason where it is not complete.

    Raises
    ------
    InputError, StorageError
        What is nobody's fault but the user's or the disk's is not a candidate's failure.
    """
    found = dict(known or {})
    for key, estimator in by_effort(search.estimators):
        if key in found:
            continue
        search.pause_point()
        try:
            found.update(
                _measured_by(key, estimator, Candidate(architecture, search, label, found))
            )
        except (InputError, StorageError):
            raise
        except EstimationFailed as error:
            return Status.FAILED, found, f"{key}: {error}"
        except (Exception, SystemExit) as error:  # noqa: BLE001 the candidate's code may raise anything
            return Status.FAILED, found, f"{key}: {type(error).__name__}: {error}"
        broken = search.objectives.violations(found)
        if broken and stop_at_limits:
            return Status.INFEASIBLE, found, _say_broken(search, broken, found)
    return Status.COMPLETE, found, ""


def by_effort(estimators: Mapping[str, Estimator]) -> list[tuple[str, Estimator]]:
    """Order estimators so that cheap ones run first; otherwise as in the spec."""
    return sorted(estimators.items(), key=lambda item: item[1].effort)


def _measured_by(key: str, estimator: Estimator, candidate: Candidate) -> dict[str, Measurement]:
    primary = estimator.metrics(candidate.search)[0].name
    measured = estimator.measure(candidate, candidate.search)
    for name, measurement in measured.items():
        if not math.isfinite(measurement.value):
            raise EstimationFailed(f"{name} is {measurement.value}")
    return {full_name(key, name, primary): m for name, m in measured.items()}


def _say_broken(search: Search, broken: Iterable[str], found: Mapping[str, Measurement]) -> str:
    return "; ".join(
        f"{limit.metric} is {found[limit.metric].value:g}, {limit.asked()} is asked"
        for limit in search.objectives.limits
        if limit.metric in broken
    )


def _left_behind(folder: Path) -> str:
    """Say what an attempt left in its folder: files with their sizes and times."""
    if not folder.is_dir():
        return ""
    stats = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    return ";".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in stats)


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
    clock
        Seconds, monotonic.
    """

    def __init__(
        self,
        search: Search,
        strategy: Strategy,
        storage: Storage,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.search = search
        self.strategy = strategy
        self.storage = storage
        self.history = storage.history()
        self._clock = clock
        self._spent_before = storage.fact("seconds", 0.0)
        self._started = clock()

    @property
    def seconds(self) -> float:
        """Seconds of search so far, interrupted parts included."""
        return self._spent_before + self._clock() - self._started

    def run(self) -> History:
        """Search; returns the history.

        Raises
        ------
        SearchFailed
            If not one trial could be measured in full.
        Interrupted
            If a signal asked for it; everything is saved.
        """
        try:
            for trial in [t for t in self.history if t.status is Status.RUNNING]:
                self._measure(trial)
            while not self._spent():
                self.search.pause_point()
                count = self._left()
                proposals = self.strategy.propose(self.history, 1, self.search)
                if not proposals:
                    break
                for architecture in proposals[:count]:
                    self._measure(self._next(architecture))
        finally:
            self.storage.set_fact("seconds", self.seconds)
        return self.history

    def measure_references(self, names: Iterable[str]) -> dict[str, Trial]:
        """Measure reference networks that are not measured yet, by the same estimators."""
        done = self.storage.references()
        for name in names:
            if name not in done or done[name].status is Status.FAILED:
                architecture = self.search.space.reference(name)
                started = self._clock()
                status, found, reason = measure(
                    self.search, architecture, f"reference-{name}", stop_at_limits=False
                )
                done[name] = Trial(
                    -1,
                    architecture,
                    self.search.space.key(architecture),
                    status,
                    found,
                    reason,
                    self._clock() - started,
                    name,
                )
                self.storage.finish_reference(done[name])
                self.search.reporter.trial(done[name])
        return {name: done[name] for name in names}

    def _left(self) -> int | None:
        trials = self.search.budget.trials
        return None if trials is None else max(0, trials - len(self.history))

    def _spent(self) -> bool:
        seconds = self.search.budget.seconds
        return self._left() == 0 or (seconds is not None and self.seconds >= seconds)

    def _next(self, architecture: Architecture) -> Trial:
        return Trial(len(self.history), architecture, self.search.space.key(architecture))

    def _measure(self, trial: Trial) -> None:
        label = f"trial-{trial.number}"
        attempts = self.storage.begin(trial, _left_behind(self.search.folder / "trials" / label))
        self.history.record(trial)
        if attempts > MAX_ATTEMPTS:
            reason = f"the process died {MAX_ATTEMPTS} times at the same point of measuring it"
            self._end(replace(trial, status=Status.FAILED, reason=reason))
            return
        started = self._clock()
        try:
            status, found, reason = measure(self.search, trial.architecture, label)
        except Interrupted:
            self.storage.forget_attempt(trial.number)
            raise
        self._end(
            replace(
                trial,
                status=status,
                measurements=found,
                reason=reason,
                seconds=self._clock() - started,
            )
        )

    def _end(self, trial: Trial) -> None:
        self.storage.finish(trial)
        self.history.record(trial)
        self.search.reporter.trial(trial)


def best_or_fail(search: Search, history: History) -> Trial:
    """Return the best trial.

    Raises
    ------
    SearchFailed
        If no trial is complete, with the reasons counted.
    """
    best = search.objectives.best(history)
    if best is not None:
        return best
    reasons: dict[str, int] = {}
    for trial in history:
        said = f"{trial.status.value}: {trial.reason}"
        reasons[said] = reasons.get(said, 0) + 1
    listed = "".join(f"\n  {count} x {reason}" for reason, count in reasons.items())
    raise SearchFailed(f"no network: none of {len(history)} trials is complete{listed}")
