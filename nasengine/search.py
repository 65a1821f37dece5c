"""What strategies and estimators may know of the search that they serve."""

from __future__ import annotations

import csv
import io
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from nasengine.census import census_of
from nasengine.errors import DataError, Interrupted, RunFolderError, SpecError, did_you_mean
from nasengine.files import make_folder, read_json, write_atomically, write_json
from nasengine.objectives import Objective, Objectives
from nasengine.randomness import stream
from nasengine.reporter import Reporter

if TYPE_CHECKING:
    from nasengine.architecture import Architecture
    from nasengine.estimator import CostTable, Estimator
    from nasengine.shapes import Shapes
    from nasengine.space import SearchSpace
    from nasengine.task import Splits, Task


_REMEMBERED = 100_000
"""Architectures of which it is remembered whether they keep the limits."""


@dataclass(frozen=True)
class Budget:
    """When a search ends, whichever comes first; None for no such limit.

    Parameters
    ----------
    trials
        Trials that a strategy may have measured (references not counted).
    seconds
        Seconds of search, training of supernets included, summed over interrupted parts.
    """

    trials: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Search:
    """One search: its parts, its seed, its device, its folder.

    Parameters
    ----------
    space, task, estimators, objectives
        The parts; estimators by their key in the spec.
    seed
        From the spec; every random stream derives from it.
    device
        ``cpu``, ``cuda``, ``cuda:1``.
    folder
        The run's folder; strategies keep checkpoints in ``checkpoints``.
    budget
        When it ends.
    reporter
        Told what happens.
    stop
        Set by the first SIGINT, SIGTERM or SIGHUP; see `pause_point`.
    start
        Architectures that are the first trials, before a strategy proposes any.
    """

    space: SearchSpace
    task: Task
    estimators: Mapping[str, Estimator]
    objectives: Objectives
    seed: int
    device: str
    folder: Path
    budget: Budget = Budget()
    reporter: Reporter = field(default_factory=Reporter)
    stop: threading.Event = field(default_factory=threading.Event)
    start: tuple[Architecture, ...] = ()
    _loaded: list[tuple[Task, int, Splits]] = field(default_factory=list, repr=False, compare=False)
    """Samples of a task and a seed, shared by all that `dataclasses.replace` makes of a search."""

    def stream(self, *labels: str | int) -> random.Random:
        """Return a random stream for one purpose, from the spec's seed."""
        return stream(self.seed, *labels)

    @property
    def splits(self) -> Splits:
        """The task's samples, loaded once.

        Raises
        ------
        DataError
            If the data cannot be used.
        RunFolderError
            If they are not the data that the run began with.
        """
        for task, seed, splits in self._loaded:
            if task is self.task and seed == self.seed:
                return splits
        splits = self._load()
        self._loaded.append((self.task, self.seed, splits))
        return splits

    def _load(self) -> Splits:
        with self.reporter.progress("reading the data", 1) as progress:
            splits = self.task.load(self.seed)
            progress.advance(samples=sum(map(len, splits.parts.values())))
        self._check_samples(splits)
        self._check_same(splits)
        for doubt in splits.doubts:
            self.reporter.warn(doubt)
        return splits

    def _check_samples(self, splits: Splits) -> None:
        """Hold to the contract what may come from anyone's code."""
        # One output is a binary problem.
        classes = max(self.task.outputs, 2)
        for name, samples in splits.parts.items():
            try:
                samples.check(
                    self.task.input_shape, classes, self.task.targets, ignores=self.task.ignores
                )
            except DataError as error:
                raise DataError(f"the {name} split: {error}") from error

    def _check_same(self, splits: Splits) -> None:
        """Keep a digest of the data, and hold a resumed run to it."""
        path = self.folder / "data.json"
        digests = {name: samples.digest() for name, samples in splits.parts.items()}
        if not path.is_file():
            # First, so that a run with a digest has all of it.
            self._keep_names(splits)
            counted = census_of(self.task, splits)
            self.reporter.record("data", {"splits": counted, "facts": splits.facts})
            write_json(path, digests)
            return
        before = read_json(path, dict[str, str])
        changed = [name for name in {*before, *digests} if before.get(name) != digests.get(name)]
        if changed:
            raise RunFolderError(
                f"{self.folder}: the data changed since the run began: {', '.join(sorted(changed))}"
            )

    def _keep_names(self, splits: Splits) -> None:
        """Write which sample is in which split."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("split", "name"))
        for split, samples in splits.parts.items():
            table.writerows((split, name) for name in samples.names)
        write_atomically(self.folder / "splits.csv", text.getvalue())

    @property
    def shapes(self) -> Shapes:
        """Shapes of every node for the task's input."""
        return self.space.shapes(self.task.input_shape)

    @property
    def checkpoints(self) -> Path:
        """Where strategies keep their checkpoints."""
        return make_folder(self.folder / "checkpoints")

    def has_cost_table(self, key: str) -> bool:
        """Say whether an estimator's cost table is at hand: counted, or timed in this run."""
        estimator = self.estimators[key]
        return estimator.has_table and (estimator.counts or self._table_file(key).is_file())

    def _table_file(self, key: str) -> Path:
        return self.folder / "tables" / f"{key}.json"

    def cost_table(self, key: str) -> CostTable:
        """Return an estimator's cost table; measured once a run, kept in its folder.

        Raises
        ------
        SpecError
            If there is no such estimator, or it has no table, or one that is incomplete.
        """
        from nasengine.estimator import read_cost_table

        if key not in self.estimators:
            raise SpecError(f"no estimator {key!r}; {did_you_mean(key, self.estimators)}")
        tables: dict[str, CostTable] = self._tables
        if key not in tables:
            path = self._table_file(key)
            if path.is_file():
                tables[key] = read_cost_table(path)
                if problem := _not_of(tables[key], self.space):
                    raise RunFolderError(f"{path}: damaged: {problem}")
            else:
                tables[key] = self._made_table(key)
                make_folder(path.parent)
                write_json(path, tables[key].to_json())
            tables[key] = replace(tables[key], graph=self.space.graph)
        return tables[key]

    def _made_table(self, key: str) -> CostTable:
        """Return the table that an estimator makes; one's own may have forgotten a choice."""
        made = self.estimators[key].table(self)
        if problem := _not_of(made, self.space):
            raise SpecError(f"estimators.{key}: its cost table is incomplete: {problem}")
        return made

    def excess(self, architecture: Architecture) -> float:
        """Return by how much an architecture breaks the limits that are counted from tables.

        What is known of it before anything is measured; 0 where it keeps them, and where no limit
        is of that kind. Summed, each relative to its limit.
        """
        if not self._counted:
            return 0.0
        if architecture not in self._excesses:
            if len(self._excesses) >= _REMEMBERED:
                self._excesses.clear()
            self._excesses[architecture] = sum(
                limit.violation(table.predict(architecture)) for limit, table in self._counted
            )
        return self._excesses[architecture]

    @cached_property
    def _counted(self) -> list[tuple[Objective, CostTable]]:
        """The limits that are counted, with what counts them."""
        return [
            (limit, self.cost_table(limit.metric))
            for limit in self.objectives.limits
            if (estimator := self.estimators.get(limit.metric)) is not None
            and estimator.counts
            and estimator.has_table
        ]

    @cached_property
    def _excesses(self) -> dict[Architecture, float]:
        return {}

    @cached_property
    def _tables(self) -> dict[str, CostTable]:
        return {}

    def pause_point(self) -> None:
        """Stop here if a signal asked for it; to be called where everything is saved.

        Raises
        ------
        Interrupted
            If the run was asked to stop.
        """
        if self.stop.is_set():
            raise Interrupted


def _not_of(table: CostTable, space: SearchSpace) -> str:
    """Say why a table is not of a space's slots, choices and widths; empty where it is."""
    from nasengine.estimator import row_key

    slots = {slot.name: slot for slot in space.graph.slots}
    for name in dict.fromkeys([*slots, *table.widths]):
        if name in slots and table.decisions.get(name) != slots[name].decision:
            return f"it is not of the slot {name!r}"
        own = [tuple(slots[name].candidates)] if name in slots else []
        widths = [space.graph.widths.get(width) for width in table.widths.get(name, ())]
        if None in widths:
            return f"{name!r} is of other widths"
        keys = map(row_key, product(*own, *(width.choices for width in widths if width)))
        lacking = [key for key in keys if key not in table.costs.get(name, {})]
        if lacking:
            what = "slot" if name in slots else "node"
            return f"{what} {name!r} lacks {', '.join(map(repr, lacking))}"
    return ""
