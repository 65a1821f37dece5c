"""Ablations: a grid of overrides and seeds at equal budget, and what each search found.

Every cell is an ordinary run folder under one parent. Running the same ablation again goes on:
complete cells are skipped, an interrupted one is resumed, a changed one refused. The references
are measured once a seed, under all that is varied but what is of the search alone.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasengine.errors import EstimationFailed, RunFolderError, SearchFailed, SpecError
from nasengine.files import make_folder, read_json, write_json
from nasengine.quantities import format_duration, format_quantity
from nasengine.reporter import Progress, Reporter
from nasengine.runs.experiment import Experiment
from nasengine.runs.run import measure_references, run
from nasengine.runs.run_folder import RunFolder
from nasengine.runs.session import check_first
from nasengine.runs.spec import override, read_toml
from nasengine.statistics import mean
from nasengine.studies.cell_spec import load_cell, load_references
from nasengine.studies.comparison import Row
from nasengine.studies.grid import Cell, cells, of_search, of_strategy, strategy_key, told_apart
from nasengine.studies.summary import Summary, summarise, summarise_references

REFERENCES = "references"
DESCRIPTION = "ablation.json"


@dataclass(frozen=True)
class Ablation:
    """A grid of runs that has been checked, and can be run or gone on with.

    Parameters
    ----------
    parent
        The folder of the cells' run folders.
    searches
        Every cell with its experiment.
    references
        What the references are measured under, with the experiment: they are measured once for
        all searches that differ in nothing else than what is of the search, such as its objectives.
    """

    parent: Path
    searches: Sequence[tuple[Cell, Experiment]]
    references: Sequence[tuple[Cell, Experiment]]

    @classmethod
    def load(
        cls,
        path: Path,
        assignments: Sequence[str],
        varied: Mapping[str, Sequence[Any]],
        parent: Path,
    ) -> Ablation:
        """Build every cell, and refuse all that can be refused before anything runs.

        Parameters
        ----------
        path, assignments
            The spec and its overrides.
        varied
            Key path to its values.
        parent
            Where the run folders are, or will be.

        Raises
        ------
        SpecError, PluginError
            If a cell's spec is wrong, or what is varied is overridden as well.
        RunFolderError
            If a cell has begun with another spec, or used more than the budget.
        """
        _refuse_varied(assignments, varied)
        Experiment.load(path, assignments)  # What is wrong with the spec itself is told first.
        table, _ = override(read_toml(path), assignments)
        grid = cells(table, varied, path.parent)
        searches = [(cell, load_cell(path, assignments, cell)) for cell in grid]
        references = [
            (cell, experiment)
            for cell in _apart_from_search(grid)
            if (experiment := load_references(path, assignments, cell)).references
        ]
        found = cls(parent, searches, references)
        found._check()
        return found

    def _check(self) -> None:
        for experiment in {_apart_from_seed(e): e for _, e in self.searches}.values():
            with tempfile.TemporaryDirectory() as scratch:
                check_first(experiment, Path(scratch))
        for cell, experiment in [*self.searches, *self.references]:
            if (self.parent / cell.name / "identity.json").is_file():
                with _held(self.parent / cell.name, experiment) as folder:
                    _check_budget(folder, experiment)

    @property
    def planned_rows(self) -> list[Row]:
        """The rows that there will be, without runs."""
        settings = [cell.setting for cell, _ in self.searches]
        settings += [
            {**setting, self._strategy_key: f"{name} (reference)"}
            for cell, experiment in self.references
            for setting in self._settings_beside(cell)
            for name in experiment.references
        ]
        return [Row(setting) for setting in {repr(s): s for s in settings}.values()]

    @property
    def _strategy_key(self) -> str:
        return strategy_key(self.searches[0][0].setting)

    def _settings_beside(self, cell: Cell) -> list[dict[str, str]]:
        """Return the settings, apart from strategies, of the searches that references stand beside.

        Each names rows of the references; it says nothing where a search has its strategy.
        """
        settings = [search.setting for search, _ in self.searches]
        found = [_without_strategy(s) for s in settings if cell.setting.items() <= s.items()]
        return list({repr(setting): setting for setting in found}.values())

    def run(
        self,
        reporter_for: Callable[[Path], Reporter],
        stop: threading.Event,
        command: Sequence[str] = (),
        overview: Reporter | None = None,
    ) -> list[Summary]:
        """Run every cell that is not complete, then measure the references.

        Parameters
        ----------
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
        make_folder(self.parent)
        self._write_description(command)
        overview = overview or Reporter()
        for note in dict.fromkeys(n for _, experiment in self.searches for n in experiment.notes):
            overview.note(note)
        with overview.progress("ablation", len(self.searches) + len(self.references)) as progress:
            found = self._run_searches(reporter_for, stop, overview, progress)
            for cell, experiment in self.references:
                reporter = reporter_for(self.parent / cell.name)
                found += self._measure(cell, experiment, reporter, stop, found)
                overview.note(f"{cell.name}: {', '.join(experiment.references)} measured")
                progress.advance()
        return found

    def _run_searches(
        self,
        reporter_for: Callable[[Path], Reporter],
        stop: threading.Event,
        overview: Reporter,
        progress: Progress,
    ) -> list[Summary]:
        found, took = [], list[tuple[Cell, float]]()
        for number, (cell, experiment) in enumerate(self.searches, start=1):
            began = time.monotonic()
            reporter = reporter_for(self.parent / cell.name)
            summary, ran = self._run_cell(cell, experiment, reporter, stop)
            found.append(summary)
            told = [f"cell {number} of {len(self.searches)}: {cell.name}", _found(summary)]
            if ran:
                took.append((cell, time.monotonic() - began))
                left = _time_left(took, [cell for cell, _ in self.searches[number:]])
                told.append(format_duration(took[-1][1]))
                told += [f"about {format_duration(left)} left"] if left else []
            else:
                told.append("complete before")
            overview.note("  ".join(filter(None, told)))
            progress.advance()
        return found

    def _run_cell(
        self, cell: Cell, experiment: Experiment, reporter: Reporter, stop: threading.Event
    ) -> tuple[Summary, bool]:
        """Return what a cell found, and whether it was run for it."""
        path, ran = self.parent / cell.name, True
        try:
            with _held(path, experiment) as folder:
                ran = not _complete(folder, experiment)
                if ran:
                    for note in experiment.notes:
                        reporter.note(note)
                    run(experiment, folder, reporter, stop)
        except (SearchFailed, EstimationFailed) as error:
            reporter.warn(f"{cell.name} failed: {error}")
            problem = " ".join(str(error).split())
            return Summary(path, cell.setting, cell.seed, {}, problem=problem), ran
        return summarise(path, cell.setting), ran

    def _measure(
        self,
        cell: Cell,
        experiment: Experiment,
        reporter: Reporter,
        stop: threading.Event,
        found: Sequence[Summary],
    ) -> list[Summary]:
        """Measure the references of a cell, beside each setting under which a search found some."""
        beside: dict[str, Summary] = {}
        for search in found:
            if search.goals and cell.setting.items() <= search.setting.items():
                beside.setdefault(repr(_without_strategy(search.setting)), search)
        if not beside:
            return []
        path, key = self.parent / cell.name, self._strategy_key
        with _held(path, experiment) as folder:
            trials = measure_references(experiment, folder, reporter, stop)
        return [
            summary
            for run in beside.values()
            for summary in summarise_references(
                path, trials, _without_strategy(run.setting), key, cell.seed, run
            )
        ]

    def _write_description(self, command: Sequence[str]) -> None:
        """Keep what the ablation consists of."""
        grid = [cell for cell, _ in self.searches]
        described = [
            {"folder": cell.name, "setting": dict(cell.setting), "seed": cell.seed} for cell in grid
        ]
        write_json(self.parent / DESCRIPTION, {"command": list(command), "cells": described})


@dataclass(frozen=True)
class _DescribedCell:
    folder: str


@dataclass(frozen=True)
class _Description:
    """What is read of an ablation's own description."""

    cells: tuple[_DescribedCell, ...]


def runs_of(folder: Path) -> list[Path]:
    """Return the run folders of an ablation's cells; of any other folder, that one itself.

    Raises
    ------
    RunFolderError
        If the ablation's description is damaged.
    """
    path = folder / DESCRIPTION
    if not os.path.isfile(path):  # noqa: PTH113 no name makes it raise
        return [folder]
    # A name alone: a description leads to no folder elsewhere.
    return [folder / Path(cell.folder).name for cell in read_json(path, _Description).cells]


def _time_left(took: Sequence[tuple[Cell, float]], cells: Sequence[Cell]) -> float:
    """Expect of each cell what its setting has taken so far, else what all have."""
    alike = [[s for done, s in took if done.setting == cell.setting] for cell in cells]
    return sum(mean(seconds or [s for _, s in took]) for seconds in alike)


def _found(summary: Summary) -> str:
    """Say what a search found by its first goal, and after how many trials."""
    goal = next(iter(summary.goals), "")
    if goal not in summary.values:
        return "failed" if summary.problem else ""
    value = format_quantity(summary.values[goal], summary.metrics[goal].unit)
    return f"best {goal} {value} of {summary.trials} trials"


def _refuse_varied(assignments: Sequence[str], varied: Mapping[str, Sequence[Any]]) -> None:
    """Refuse an override of what is varied: it would change nothing."""
    for assignment in assignments:
        path = assignment.partition("=")[0].strip()
        if path in varied or path.removesuffix(".name") in varied:
            raise SpecError(f"--set {assignment!r}: {path} is varied; give --vary its values")


def _without_strategy(setting: Mapping[str, str]) -> dict[str, str]:
    """Return a setting with nothing where it has what is the strategy's."""
    return {key: "" if of_strategy(key) else value for key, value in setting.items()}


def _apart_from_search(grid: Sequence[Cell]) -> list[Cell]:
    """Return the cells of all that is varied but the search, for what searches nothing."""
    found = {}
    for cell in grid:
        setting = {k: v for k, v in cell.setting.items() if not of_search(k)}
        overrides = {k: v for k, v in cell.overrides.items() if not of_search(k)}
        found[repr(setting), cell.seed] = Cell(setting, cell.seed, overrides, REFERENCES)
    return told_apart(list(found.values()))


def _apart_from_seed(experiment: Experiment) -> str:
    return json.dumps({**experiment.resolved(), "seed": 0}, sort_keys=True)


def _held(path: Path, experiment: Experiment) -> RunFolder:
    """Return a run's folder, made where there is none; refuse one of another spec."""
    if not (path / "identity.json").is_file():
        return RunFolder.create_at(path, experiment, ["nasengine", "ablate"])
    folder = RunFolder(path)
    try:
        folder.check_identity(experiment)
    except BaseException:
        folder.close()
        raise
    return folder


def _check_budget(folder: RunFolder, experiment: Experiment) -> None:
    """Refuse a run that had another budget, unless going on with it makes the budgets equal.

    More trials go on where fewer ended; what a gradient search did with its seconds is done.

    Raises
    ------
    RunFolderError
        Naming both budgets.
    """
    kept, asked = _kept_budget(folder), experiment.spec.budget.model_dump(exclude_none=True)
    used, most = len(folder.storage.history()), asked.get("trials")
    goes_on = kept.get("seconds") == asked.get("seconds") and (most is None or used <= most)
    if kept == asked or goes_on:
        return
    was, now = (", ".join(f"{k} = {v}" for k, v in b.items()) for b in (kept, asked))
    raise RunFolderError(
        f"{folder.path}: has had a budget of {was} (trials so far: {used}), now {now} is "
        f"asked; only runs at equal budget are compared: give the same, or another folder by "
        f"--into"
    )


def _kept_budget(folder: RunFolder) -> Mapping[str, Any]:
    budget: Mapping[str, Any] = read_toml(folder.path / "spec.toml").get("budget", {})
    return budget


def _complete(folder: RunFolder, experiment: Experiment) -> bool:
    """Say whether a run is finished at the budget that is asked; else it has that from now on."""
    if _kept_budget(folder) == experiment.spec.budget.model_dump(exclude_none=True):
        return folder.storage.fact("finished", bool, False)
    folder.write_spec(experiment)
    return False
