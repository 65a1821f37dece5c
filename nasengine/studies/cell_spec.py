"""The spec of a cell: the file's, under what the cell varies; and that of its references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from nasengine.errors import SpecError
from nasengine.metric_names import estimator_of
from nasengine.quantities import parse_quantity
from nasengine.runs.composition import in_file, swap
from nasengine.runs.experiment import Experiment
from nasengine.runs.spec import GoalTable, Table, key_of, override, read_toml, table_at
from nasengine.studies.grid import RANDOM, Cell, lacks


def load_cell(path: Path, assignments: Sequence[str], cell: Cell) -> Experiment:
    """Build a cell's experiment; references are measured in runs of their own.

    An override of a setting that the cell's strategy does not have is left out, with a note.

    Raises
    ------
    SpecError, PluginError
        If the spec does not take the cell's values, or a key path leads through a value.
    """
    with in_file(path):
        tables, notes = _composed(path, assignments, cell)
        tables["references"] = []
        experiment = Experiment.from_table(tables, path.parent.resolve())
        return replace(experiment, notes=tuple(notes), source=path)


def load_references(path: Path, assignments: Sequence[str], cell: Cell) -> Experiment:
    """Build the experiment that measures the references, whatever search the spec has.

    Nothing that `of_search` names is of the spec's: where all else is alike, so is what they are
    measured by.

    Raises
    ------
    SpecError, PluginError
        As of `load_cell`.
    """
    with in_file(path):
        tables, _ = _composed(path, assignments, cell)
        tables["strategy"] = {"name": RANDOM}
        tables["objectives"] = {next(iter(tables["estimators"])): "min"}
        tables["budget"] = {"trials": 1}
        tables.pop("start", None)
        return replace(Experiment.from_table(tables, path.parent.resolve()), source=path)


def references_of_limits(experiment: Experiment) -> set[str]:
    """Return the references that limits are relative to, of what is measured and not counted."""
    limits = [
        (f"objectives.{metric}", limit)
        for metric, goal in experiment.spec.objectives.items()
        if isinstance(goal, GoalTable) and not experiment.estimators[estimator_of(metric)].counts
        for limit in (goal.at_most, goal.at_least)
        if limit is not None
    ]
    return {parse_quantity(limit, where=where).reference for where, limit in limits} - {""}


def _composed(path: Path, assignments: Sequence[str], cell: Cell) -> tuple[Table, list[str]]:
    """Return the spec's tables with overrides and a cell's values, and what was dropped."""
    tables = read_toml(path)
    for key, value in cell.overrides.items():
        if isinstance(value, Mapping):
            _place(tables, key, value)
    assignments, notes = _fitting(assignments, tables, cell, path.parent.resolve())
    tables, asked = override(tables, assignments)
    before = _strategy_name(tables)
    for key, value in cell.overrides.items():
        if not isinstance(value, Mapping):
            _place(tables, key, value)
    kept = [*asked, *_paths(cell)]
    changed = before != _strategy_name(tables) or "strategy" in cell.overrides
    swapped = [*asked, *cell.overrides, *(["strategy.name"] if changed else [])]
    for name in dict.fromkeys(swapped):
        notes += swap(tables, name, kept, path.parent.resolve())
    return tables, notes


def _fitting(
    assignments: Sequence[str], tables: Table, cell: Cell, folder: Path
) -> tuple[list[str], list[str]]:
    """Return the overrides without what the cell's strategy does not have, and notes on that."""
    overridden, _ = override(tables, assignments)
    strategy = cell.overrides.get("strategy.name", overridden.get("strategy"))
    fitting = [a for a in assignments if not lacks(strategy, key_of(a), folder)]
    name = strategy.get("name") if isinstance(strategy, Mapping) else strategy
    left_out = [a for a in assignments if a not in fitting]
    return fitting, [f"--set {a!r} is left out: {name!r} has no such setting" for a in left_out]


def _strategy_name(tables: Table) -> Any:
    strategy = tables.get("strategy")
    return strategy.get("name") if isinstance(strategy, Mapping) else None


def _paths(cell: Cell) -> list[str]:
    """Return the key paths of a cell's values, of those in tables as well."""
    return [
        path
        for key, value in cell.overrides.items()
        for path in ([f"{key}.{name}" for name in value] if isinstance(value, Mapping) else [key])
    ]


def _place(tables: Table, path: str, value: Any) -> None:
    """Put a value, or a table in the place of another, at a key path."""
    *keys, last = path.split(".")
    try:
        table_at(tables, keys)[last] = deepcopy(value)
    except SpecError as error:
        raise SpecError(f"ablation.vary.{path}: {error}") from error
