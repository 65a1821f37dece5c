"""Ablations: a grid of overrides and seeds at equal budget, and the table that compares them.

Every cell is an ordinary run folder under one parent. Running the same ablation again goes on:
complete cells are skipped, an interrupted one is resumed, a changed one refused.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nasengine.errors import InputError, NasengineError, SpecError
from nasengine.files import write_json
from nasengine.reporter import Reporter
from nasengine.runs.experiment import Experiment
from nasengine.runs.goals import not_yet_measured
from nasengine.runs.run import measure_references, run
from nasengine.runs.run_folder import RunFolder
from nasengine.runs.spec import Table, parse_value, read_toml
from nasengine.studies.summary import Summary, summarise, summarise_references

RANDOM = "random"


@dataclass(frozen=True)
class Cell:
    """One run of an ablation.

    Parameters
    ----------
    setting
        What is varied, seed excepted: key path to value as text.
    seed
        The seed.
    overrides
        Key path to value; a table replaces the table there.
    shared_name
        Whether another cell's setting is written alike in a folder's name.
    """

    setting: Mapping[str, str]
    seed: int
    overrides: Mapping[str, Any]
    shared_name: bool = False

    @property
    def name(self) -> str:
        """The name of the cell's folder; a digest of the setting is added where it is shared."""
        parts = [f"{key.rpartition('.')[2]}={value}" for key, value in self.setting.items()]
        plain = re.sub(r"[^A-Za-z0-9_.=-]+", "-", "_".join([*parts, f"seed={self.seed}"]))
        if not self.shared_name:
            return plain
        return f"{plain}_{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]}"


def parse_vary(texts: Iterable[str]) -> dict[str, list[Any]]:
    """Read ``key=a,b,c`` and ``key=0..4``.

    Raises
    ------
    SpecError
        If one has no key or no value.

    Examples
    --------
    >>> parse_vary(["strategy.name=darts,random", "seed=0..2"])
    {'strategy.name': ['darts', 'random'], 'seed': [0, 1, 2]}
    """
    varied: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        numbers = re.fullmatch(r"\s*(\d+)\.\.(\d+)\s*", values)
        if not equals or not key.strip() or not values.strip():
            raise SpecError(f"--vary {text!r}: key=a,b,c or key=0..4 is needed")
        varied[key.strip()] = (
            list(range(int(numbers[1]), int(numbers[2]) + 1))
            if numbers
            else [parse_value(value.strip()) for value in values.split(",")]
        )
        if not varied[key.strip()]:
            raise SpecError(f"--vary {text!r}: an empty range")
    return varied


def cells(table: Table, varied: Mapping[str, Sequence[Any]]) -> list[Cell]:
    """Return every cell of the grid; random search at the same budget is always among them.

    Parameters
    ----------
    table
        The spec.
    varied
        Key path to its values; a table (a whole strategy, say) replaces the table there.

    Raises
    ------
    SpecError
        If a value of a key is given twice.
    """
    varied = dict(varied)
    seeds = varied.pop("seed", [table.get("seed", 0)])
    key = "strategy" if "strategy" in varied else "strategy.name"
    named = [v.get("name") if isinstance(v, Mapping) else v for v in varied.get(key, [])]
    if not named:
        named = [table.get("strategy", {}).get("name")]
        varied[key] = list(named)
    if RANDOM not in named:
        varied[key] = [*varied[key], {"name": RANDOM} if key == "strategy" else RANDOM]
    grid = []
    for values in itertools.product(*varied.values()):
        setting = dict(zip(varied, values, strict=True))
        for seed in seeds:
            said = {path: _said(value) for path, value in setting.items()}
            grid.append(Cell(said, seed, {**setting, "seed": seed}))
    return _told_apart(grid)


def _told_apart(grid: Sequence[Cell]) -> list[Cell]:
    """Give every cell a folder of its own."""
    for cell, count in Counter((*cell.setting.values(), cell.seed) for cell in grid).items():
        if count > 1:
            raise SpecError(f"ablation: {', '.join(map(str, cell))} (the seed last) is given twice")
    # Letters of either case are one to some file systems.
    names = Counter(cell.name.lower() for cell in grid)
    return [replace(cell, shared_name=names[cell.name.lower()] > 1) for cell in grid]


def _said(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    further = ",".join(f"{key}={item}" for key, item in value.items() if key != "name")
    return f"{value.get('name', '')}{f'({further})' if further else ''}"


def load_cell(path: Path, assignments: Sequence[str], cell: Cell) -> Experiment:
    """Build a cell's experiment; references are measured in a run of their own.

    Raises
    ------
    SpecError, PluginError
        If the spec does not take the cell's values, or a key path leads through a value.
    """
    table = read_toml(path)
    overrides = [*assignments, "references=[]"]
    for key, value in cell.overrides.items():
        if isinstance(value, Mapping):
            _place(table, key, value)
        else:
            overrides.append(f"{key}={json.dumps(value)}")
    table.pop("ablation", None)
    return Experiment.from_table(table, path.parent.resolve(), overrides)


def _place(table: Table, path: str, value: Mapping[str, Any]) -> None:
    """Put a table in the place of the one at a key path."""
    *keys, last = path.split(".")
    place: Any = table
    for key in keys:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise SpecError(f"ablation.vary.{path}: {key!r} is a value, not a table")
    place[last] = dict(value)


def run_ablation(
    path: Path,
    assignments: Sequence[str],
    grid: Sequence[Cell],
    parent: Path,
    reporter_for: Callable[[Path], Reporter],
    stop: threading.Event,
) -> list[Summary]:
    """Run every cell that is not complete, and the references once.

    Parameters
    ----------
    path, assignments
        The spec and its overrides.
    grid
        The cells.
    parent
        The folder of the cells' run folders.
    reporter_for
        Gives the reporter of a cell, from its folder.
    stop
        Set to ask for a stop.

    Raises
    ------
    Interrupted
        If `stop` was set; running the same ablation again goes on.
    SpecError, PluginError
        If a cell's spec is wrong: before anything runs, for all cells.
    """
    base = Experiment.load(path, assignments)
    experiments = [load_cell(path, assignments, cell) for cell in grid]
    with tempfile.TemporaryDirectory() as scratch:
        for experiment in {_apart_from_seed(e): e for e in experiments}.values():
            search = experiment.search(Path(scratch), reference_value=not_yet_measured)
            experiment.check_limits(search)
    parent.mkdir(parents=True, exist_ok=True)
    summaries = []
    for number, (cell, experiment) in enumerate(zip(grid, experiments, strict=True)):
        folder = parent / cell.name
        reporter = reporter_for(folder)
        reporter.note(f"cell {number + 1} of {len(grid)}: {cell.name}")
        try:
            _run_cell(experiment, folder, reporter, stop)
        except InputError:
            raise
        except NasengineError as error:
            reporter.warn(f"{cell.name} failed and is left out: {error}")
            continue
        summaries.append(summarise(folder, cell.setting))
    if base.references and summaries:
        folder = parent / "references"
        with _held(folder, base) as run_folder:
            trials = measure_references(base, run_folder, reporter_for(folder), stop)
        summaries += summarise_references(folder, trials, summaries[0])
    return summaries


def _apart_from_seed(experiment: Experiment) -> str:
    return json.dumps({**experiment.resolved(), "seed": 0}, sort_keys=True)


def _run_cell(
    experiment: Experiment, folder: Path, reporter: Reporter, stop: threading.Event
) -> None:
    with _held(folder, experiment) as run_folder:
        if not run_folder.storage.fact("finished", False):
            run(experiment, run_folder, reporter, stop)


def _held(folder: Path, experiment: Experiment) -> RunFolder:
    if not (folder / "identity.json").is_file():
        return RunFolder.create_at(folder, experiment, ["nasengine", "ablate"])
    run_folder = RunFolder(folder)
    try:
        run_folder.check_identity(experiment)
    except InputError:
        run_folder.close()
        raise
    return run_folder


def write_description(parent: Path, grid: Sequence[Cell], command: Sequence[str]) -> None:
    """Keep what an ablation consists of."""
    write_json(
        parent / "ablation.json",
        {
            "command": list(command),
            "cells": [{"folder": c.name, "setting": dict(c.setting), "seed": c.seed} for c in grid],
        },
    )
