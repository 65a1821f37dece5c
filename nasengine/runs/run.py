"""A whole run: search, references, result, in one folder, resumable at any moment."""

from __future__ import annotations

import shlex
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nasengine.errors import SpecError, StorageError
from nasengine.files import write_json
from nasengine.graph import SpaceGraph
from nasengine.history import History
from nasengine.machine import threads
from nasengine.metric_names import is_primary
from nasengine.objectives import Objectives
from nasengine.quantities import format_duration, format_quantity
from nasengine.reporter import Reporter
from nasengine.runs.best import best_or_fail
from nasengine.runs.engine import Engine
from nasengine.runs.execution import Executor, InProcess, Job, Measured
from nasengine.runs.experiment import Experiment
from nasengine.runs.goals import known_metrics, not_yet_measured
from nasengine.runs.measuring import measure_on
from nasengine.runs.run_folder import RunFolder
from nasengine.runs.workers import Workers
from nasengine.search import Search
from nasengine.trial import Status, Trial


@dataclass(frozen=True, repr=False)
class Outcome:
    """What a run found; printed as a line.

    Parameters
    ----------
    search
        The search as it ran.
    history
        Every trial.
    winner
        The best trial, with what the final estimators measured of it.
    references
        The reference networks, by name, measured by the same estimators.
    front
        The trials that no other dominates.
    seconds
        Seconds of search, training of supernets included, references not.
    """

    search: Search
    history: History
    winner: Trial
    references: dict[str, Trial]
    front: list[Trial]
    seconds: float

    @property
    def folder(self) -> Path:
        """The run's folder; the result is in its ``best``."""
        return self.search.folder

    def __repr__(self) -> str:
        metrics = known_metrics(self.search)
        values = [
            f"{name} {format_quantity(found.value, metrics[name].unit)}"
            for name, found in self.winner.measurements.items()
            if is_primary(name) and name in metrics
        ]
        beside = f"; beside {', '.join(self.references)}" if self.references else ""
        return (
            f"<Outcome in {self.folder}: trial {self.winner.number} of {len(self.history)}, "
            f"{', '.join(values)}{beside}>"
        )


def run(
    experiment: Experiment,
    folder: RunFolder,
    reporter: Reporter | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Search, measure the references, deliver; goes on with whatever the folder holds.

    Raises
    ------
    Interrupted
        If `stop` was set; everything is saved, and calling this again goes on.
    SpecError
        If a limit is one that nothing in the space can meet.
    SearchFailed
        If no trial could be measured in full.
    """
    from nasengine.runs.result import deliver

    with _engine(experiment, folder, reporter, stop) as engine:
        engine.search.reporter.record("decisions", _decisions(engine.search.space.graph))
        folder.storage.set_fact("finished", False)
        if not len(engine.history):
            for note in experiment.check_ahead(engine.search):
                engine.search.reporter.note(note)
        else:
            engine.search.reporter.note(_so_far(engine))
        history = engine.run()
        seconds = engine.seconds
        winner = best_or_fail(engine.search, history)
        references = engine.measure_references(experiment.references)
        if experiment.final or engine.search.estimators.keys() - winner.measurements.keys():
            winner = engine.measure_finally(winner)
        final = _with_final(experiment, engine.search)
        front = engine.search.objectives.front(history)
        outcome = Outcome(final, history, winner, references, front, seconds)
        for problem in deliver(outcome, folder.path):
            final.reporter.warn(problem)
        _report(folder, final.reporter)
        folder.storage.set_fact("finished", True)
        return outcome


def _decisions(graph: SpaceGraph) -> dict[str, Any]:
    """Tell what is decided, for who reads the folder without the space."""
    return {
        "slots": Counter(slot.decision for slot in graph.slots),
        "channels": {name: dict(width.options) for name, width in graph.widths.items()},
    }


def _so_far(engine: Engine) -> str:
    """Say where a run that goes on is."""
    ended = sum(trial.status is not Status.RUNNING for trial in engine.history)
    trials = engine.search.budget.trials
    of = "" if trials is None else f" of {trials}"
    return f"so far: {ended}{of} trials, {format_duration(engine.seconds)} of search"


def _report(folder: RunFolder, reporter: Reporter) -> None:
    """Write the report; a run is worth more than a page about it."""
    from nasengine.report import write_report

    try:
        write_report(folder.path, finished=True)
    except StorageError:
        raise  # What the disk refuses is never passed over.
    except Exception as error:  # noqa: BLE001 whatever went wrong, the run's result stands
        reporter.warn(
            f"no report: {type(error).__name__}: {error}; to try again: "
            f"nasengine report {shlex.quote(str(folder.path))}"
        )


@contextmanager
def _engine(
    experiment: Experiment,
    folder: RunFolder,
    reporter: Reporter | None,
    stop: threading.Event | None,
) -> Iterator[Engine]:
    """Make the engine of a run."""
    with threads(experiment.spec.threads):
        search = _search(experiment, folder, reporter or Reporter(), stop)
        with _engine_of(search, experiment, folder) as engine:
            yield engine


@contextmanager
def _engine_of(search: Search, experiment: Experiment, folder: RunFolder) -> Iterator[Engine]:
    """Make the engine of a search, with the executor that the spec asks for."""
    # Worker processes hold what they measure against these.
    objectives = [asdict(item) for item in search.objectives.items]
    write_json(folder.path / "objectives.json", objectives)
    search.reporter.begin(known_metrics(_with_final(experiment, search)))
    executor = _executor(experiment, search)
    try:
        yield Engine(search, experiment.strategy, folder.storage, executor)
    finally:
        executor.close()


def _with_final(experiment: Experiment, search: Search) -> Search:
    """Return a search that measures by the final estimators too."""
    return replace(search, estimators=experiment.all_estimators)


def _executor(experiment: Experiment, search: Search) -> Executor:
    execution = experiment.spec.execution
    if execution.isolated:
        return Workers(
            search.folder,
            execution.workers,
            execution.timeout,
            search.reporter,
            search.stop,
            experiment.worker_devices(),
        )
    return InProcess(measurer(experiment, search))


def measurer(experiment: Experiment, search: Search) -> Callable[[Job], Measured]:
    """Return what measures the jobs of a run, by the final estimators too where one asks."""
    final = _with_final(experiment, search)
    return lambda job: measure_on(final if job.final else search, job)


def measure_references(
    experiment: Experiment,
    folder: RunFolder,
    reporter: Reporter | None = None,
    stop: threading.Event | None = None,
) -> dict[str, Trial]:
    """Measure the references alone, by all estimators, the final ones included."""
    with _engine(experiment, folder, reporter, stop) as engine:
        return engine.measure_references(experiment.references)


def _search(
    experiment: Experiment, folder: RunFolder, reporter: Reporter, stop: threading.Event | None
) -> Search:
    """Return the search; limits relative to a reference use its kept measurements."""

    def reference_value(name: str, metric: str) -> float:
        reference = folder.storage.references().get(name)
        if reference is None or reference.status is not Status.COMPLETE:
            # Before there are limits.
            unlimited = experiment.search(folder.path, reporter, stop, not_yet_measured)
            unlimited = replace(unlimited, objectives=Objectives(()))
            with _engine_of(unlimited, experiment, folder) as engine:
                reference = engine.measure_references([name])[name]
        if metric not in reference.measurements:
            raise SpecError(
                f"objectives.{metric}: relative to {name}, which could not be measured: "
                f"{reference.reason}"
            )
        return reference.value(metric)

    return experiment.search(folder.path, reporter, stop, reference_value)
