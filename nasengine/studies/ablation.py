"""Ablations: a grid of overrides and seeds at equal budget, and what each search found.

Every cell is an ordinary run folder under one parent. Running the same ablation again goes on:
complete cells are skipped, an interrupted one is resumed, a changed one refused. The references
are measured once a seed, under all that is varied but what is of the search alone.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasengine.errors import SpecError, did_you_mean
from nasengine.files import read_json, write_json
from nasengine.runs.experiment import Experiment
from nasengine.runs.session import check_first
from nasengine.runs.spec import key_of, override, read_toml
from nasengine.studies.cell_folder import check_budget, has_begun, held
from nasengine.studies.cell_spec import load_cell, load_references
from nasengine.studies.comparison import Row
from nasengine.studies.grid import (
    Cell,
    cells,
    lacks,
    of_search,
    of_strategy,
    setting_of_strategy,
    settings_of,
    strategy_key,
    told_apart,
)

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
            If a cell's spec is wrong, what is varied is overridden as well, or no strategy has a
            setting that is overridden.
        RunFolderError
            If a cell has begun with another spec, or used more than the budget.
        """
        _refuse_varied(assignments, varied)
        table, _ = override(read_toml(path), assignments)
        own, folder = table.get("strategy"), path.parent
        fitting = [a for a in assignments if not lacks(own, key_of(a), folder)]
        Experiment.load(path, fitting)  # What is wrong with the spec itself is told first.
        grid = cells(table, varied, folder)
        _refuse_unknown([a for a in assignments if a not in fitting], grid, folder)
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
            if has_begun(path := self.folder(cell)):
                with held(path, experiment) as folder:
                    check_budget(folder, experiment)

    @property
    def planned_rows(self) -> list[Row]:
        """The rows that there will be, without runs."""
        settings = [cell.setting for cell, _ in self.searches]
        settings += [
            {**setting, self.strategy_key: f"{name} (reference)"}
            for cell, experiment in self.references
            for setting in self._settings_beside(cell)
            for name in experiment.references
        ]
        return [Row(setting) for setting in {repr(s): s for s in settings}.values()]

    @property
    def strategy_key(self) -> str:
        """The key that strategies are varied by."""
        return strategy_key(self.searches[0][0].setting)

    def _settings_beside(self, cell: Cell) -> list[dict[str, str]]:
        """Return the settings, apart from strategies, of the searches that references stand beside.

        Each names rows of the references; it says nothing where a search has its strategy.
        """
        settings = [search.setting for search, _ in self.searches]
        found = [without_strategy(s) for s in settings if cell.setting.items() <= s.items()]
        return list({repr(setting): setting for setting in found}.values())

    def folder(self, cell: Cell) -> Path:
        """Return where a cell's run is."""
        return self.parent / cell.name

    def write_description(self, command: Sequence[str]) -> None:
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


def _refuse_varied(assignments: Sequence[str], varied: Mapping[str, Sequence[Any]]) -> None:
    """Refuse an override of what is varied: it would change nothing."""
    for assignment in assignments:
        path = key_of(assignment)
        if path in varied or path.removesuffix(".name") in varied:
            raise SpecError(f"--set {assignment!r}: {path} is varied; give --vary its values")


def _refuse_unknown(assignments: Sequence[str], grid: Sequence[Cell], folder: Path) -> None:
    """Refuse an override of a setting that no strategy has."""
    strategies = [cell.overrides[strategy_key(cell.overrides)] for cell in grid]
    for assignment in assignments:
        key = key_of(assignment)
        if all(lacks(strategy, key, folder) for strategy in strategies):
            known = {name for each in strategies for name in settings_of(each, folder) or ()}
            near = did_you_mean(setting_of_strategy(key), known)
            raise SpecError(f"--set {assignment!r}: no strategy of the ablation has it; {near}")


def without_strategy(setting: Mapping[str, str]) -> dict[str, str]:
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
