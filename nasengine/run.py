"""A whole run: search, references, result, in one folder, resumable at any moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from nasengine.engine import Engine, best_or_fail, measure
from nasengine.errors import SpecError
from nasengine.experiment import Experiment
from nasengine.history import History
from nasengine.objectives import Objectives
from nasengine.reporter import Reporter
from nasengine.run_folder import RunFolder
from nasengine.search import Search
from nasengine.trial import Status, Trial


@dataclass(frozen=True)
class Outcome:
    """What a run found.

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
    SearchFailed
        If no trial could be measured in full.
    """
    from nasengine.result import deliver

    with threads(experiment.spec.threads):
        folder.storage.set_fact("finished", False)
        search = _search(experiment, folder, reporter or Reporter(), stop)
        engine = Engine(search, experiment.strategy, folder.storage)
        history = engine.run()
        seconds = engine.seconds
        winner = best_or_fail(search, history)
        final = replace(search, estimators={**search.estimators, **experiment.final})
        engine.search = final
        references = engine.measure_references(experiment.references)
        winner = _measure_finally(final, winner, folder)
        front = search.objectives.front(history)
        outcome = Outcome(final, history, winner, references, front, seconds)
        for problem in deliver(outcome, folder.path):
            search.reporter.warn(problem)
        folder.storage.set_fact("finished", True)
        return outcome


def measure_references(
    experiment: Experiment,
    folder: RunFolder,
    reporter: Reporter | None = None,
    stop: threading.Event | None = None,
) -> dict[str, Trial]:
    """Measure the references alone, by all estimators, the final ones included."""
    with threads(experiment.spec.threads):
        search = _search(experiment, folder, reporter or Reporter(), stop)
        final = replace(search, estimators={**search.estimators, **experiment.final})
        engine = Engine(final, experiment.strategy, folder.storage)
        return engine.measure_references(experiment.references)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run torch on so many CPU threads inside; None leaves it as it is."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _search(
    experiment: Experiment, folder: RunFolder, reporter: Reporter, stop: threading.Event | None
) -> Search:
    """Return the search; limits relative to a reference use its kept measurements."""

    def reference_value(name: str, metric: str) -> float:
        done = folder.storage.references()
        if name not in done:
            provisional = replace(
                experiment.search(folder.path, reporter, stop, reference_value=lambda *_: 1.0),
                objectives=Objectives(()),
            )
            engine = Engine(provisional, experiment.strategy, folder.storage)
            done = engine.measure_references([name])
        if metric not in done[name].measurements:
            raise SpecError(
                f"objectives.{metric}: relative to {name}, which could not be measured: "
                f"{done[name].reason}"
            )
        return done[name].value(metric)

    return experiment.search(folder.path, reporter, stop, reference_value)


def _measure_finally(final: Search, winner: Trial, folder: RunFolder) -> Trial:
    """Measure what only the winner and the references are measured by; kept with the run."""
    if not set(final.estimators) - {name.partition(".")[0] for name in winner.measurements}:
        return winner
    kept = folder.storage.final(winner.number)
    status, found, reason = measure(
        final,
        winner.architecture,
        f"trial-{winner.number}",
        stop_at_limits=False,
        known={**winner.measurements, **kept},
    )
    folder.storage.set_final(winner.number, found)
    if status is not Status.COMPLETE:
        final.reporter.warn(f"the winner could not be measured in full: {reason}")
    return replace(winner, measurements=found)
