"""An ablation as it runs: the references, then every cell that is not complete."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nasengine.errors import EstimationFailed, SearchFailed, SpecError
from nasengine.files import make_folder
from nasengine.quantities import format_duration, format_quantity
from nasengine.reporter import Progress, Reporter
from nasengine.runs.experiment import Experiment
from nasengine.runs.run import measure_references, run
from nasengine.runs.run_folder import RunFolder
from nasengine.statistics import mean
from nasengine.studies.ablation import Ablation, without_strategy
from nasengine.studies.cell_folder import held, is_complete
from nasengine.studies.cell_spec import references_of_limits
from nasengine.studies.grid import Cell
from nasengine.studies.summary import (
    Summary,
    summarise,
    summarise_failed,
    summarise_references,
)
from nasengine.trial import Status, Trial


def run_ablation(
    ablation: Ablation,
    reporter_for: Callable[[Path], Reporter],
    stop: threading.Event,
    command: Sequence[str] = (),
    overview: Reporter | None = None,
) -> list[Summary]:
    """Measure the references, then run every cell that is not complete.

    Parameters
    ----------
    ablation
        What to run, or to go on with.
    reporter_for
        Gives the reporter of a cell, from its folder.
    stop
        Set to ask for a stop.
    command
        Kept with the description.
    overview
        Told of each cell, in a line, and how far all of them are.

    Returns
    -------
    What each search found, then the references; what failed is among them, with its reason.

    Raises
    ------
    Interrupted
        If `stop` was set; running the same ablation again goes on.
    StorageError
        If the disk refuses.
    """
    make_folder(ablation.parent)
    ablation.write_description(command)
    overview = overview or Reporter()
    for note in dict.fromkeys(n for _, experiment in ablation.searches for n in experiment.notes):
        overview.note(note)
    cells = len(ablation.references) + len(ablation.searches)
    with overview.progress("ablation", cells) as progress:
        running = _Running(ablation, reporter_for, stop, overview, progress)
        measured = running.measure_references()
        found = running.run_searches(measured)
    return found + [row for one in measured for row in one.beside(found, ablation.strategy_key)]


@dataclass(frozen=True)
class _Measured:
    """The references of a cell as they were measured in its folder."""

    cell: Cell
    folder: Path
    trials: Mapping[str, Trial]

    def is_under(self, setting: Mapping[str, str]) -> bool:
        """Say whether what a setting varies apart from the search is what these have."""
        return self.cell.setting.items() <= setting.items()

    def beside(self, found: Sequence[Summary], key: str) -> list[Summary]:
        """Return these as runs, beside each setting under which a search found some."""
        like: dict[str, Summary] = {}
        for search in found:
            if search.goals and self.is_under(search.setting):
                like.setdefault(repr(without_strategy(search.setting)), search)
        return [
            summary
            for one in like.values()
            for summary in summarise_references(
                self.folder, self.trials, without_strategy(one.setting), key, self.cell.seed, one
            )
        ]


@dataclass(frozen=True)
class _Running:
    """An ablation with whom it tells what, and who may stop it."""

    ablation: Ablation
    reporter_for: Callable[[Path], Reporter]
    stop: threading.Event
    overview: Reporter
    progress: Progress

    def measure_references(self) -> list[_Measured]:
        """Measure the references that are not; a limit of a search may be relative to one."""
        measured = []
        for cell, experiment in self.ablation.references:
            path = self.ablation.folder(cell)
            with held(path, experiment) as folder:
                trials = measure_references(experiment, folder, self.reporter_for(path), self.stop)
            measured.append(_Measured(cell, path, trials))
            self.overview.note(f"{cell.name}: {', '.join(map(_told, trials.values()))}")
            self.progress.advance()
        return measured

    def run_searches(self, measured: Sequence[_Measured]) -> list[Summary]:
        """Run every cell that is not complete; what failed has its reason."""
        found, took = [], list[tuple[Cell, float]]()
        searches = self.ablation.searches
        for number, (cell, experiment) in enumerate(searches, start=1):
            began = time.monotonic()
            summary, ran = self._run_cell(cell, experiment, measured)
            found.append(summary)
            told = [f"cell {number} of {len(searches)}: {cell.name}", _found(summary)]
            if ran:
                took.append((cell, time.monotonic() - began))
                left = _time_left(took, [cell for cell, _ in searches[number:]])
                told.append(format_duration(took[-1][1]))
                told += [f"about {format_duration(left)} left"] if left else []
            else:
                told.append("complete before")
            self.overview.note("  ".join(filter(None, told)))
            self.progress.advance()
        return found

    def _run_cell(
        self, cell: Cell, experiment: Experiment, measured: Sequence[_Measured]
    ) -> tuple[Summary, bool]:
        """Return what a cell found, and whether it was run for it."""
        path = self.ablation.folder(cell)
        reporter = self.reporter_for(path)
        with held(path, experiment) as folder:
            if is_complete(folder, experiment):
                return summarise(path, cell.setting), False
            folder.write_spec(experiment)  # With the budget that it has from now on.
            for note in experiment.notes:
                reporter.note(note)
            _share_references(cell, experiment, folder, measured)
            try:
                run(experiment, folder, reporter, self.stop)
            # A spec is refused here by what had to be measured for it: a reference, for its limits.
            except (SearchFailed, EstimationFailed, SpecError) as error:
                reporter.warn(f"{cell.name} failed: {error}")
                return summarise_failed(path, cell.setting, str(error)), True
        return summarise(path, cell.setting), True


def _share_references(
    cell: Cell, experiment: Experiment, folder: RunFolder, measured: Sequence[_Measured]
) -> None:
    """Give a search the references that its limits are relative to, as all others have them.

    Where each measures them for itself, each has limits of its own: a latency varies.
    """
    under = [one for one in measured if one.cell.seed == cell.seed and one.is_under(cell.setting)]
    shared = {name: trial for one in under for name, trial in _complete(one.trials).items()}
    own = _complete(folder.storage.references())
    for name in references_of_limits(experiment) & shared.keys() - own.keys():
        folder.storage.set_reference(shared[name])


def _complete(references: Mapping[str, Trial]) -> dict[str, Trial]:
    return {name: t for name, t in references.items() if t.status is Status.COMPLETE}


def _time_left(took: Sequence[tuple[Cell, float]], cells: Sequence[Cell]) -> float:
    """Expect of each cell what its setting has taken so far, else what all have."""
    alike = [[s for done, s in took if done.setting == cell.setting] for cell in cells]
    return sum(mean(seconds or [s for _, s in took]) for seconds in alike)


def _told(reference: Trial) -> str:
    return f"{reference.reference} {'not measured in full' if reference.reason else 'measured'}"


def _found(summary: Summary) -> str:
    """Say what a search found by its first goal, and after how many trials."""
    goal = next(iter(summary.goals), "")
    if goal not in summary.values:
        return "failed" if summary.problem else ""
    value = format_quantity(summary.values[goal], summary.metrics[goal].unit)
    return f"best {goal} {value} of {summary.trials} trials"
