"""From a spec to objects: the space, the task, the strategy, the estimators, the search."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from nasengine.architecture import Architecture, given_architecture
from nasengine.errors import SpaceError, SpecError
from nasengine.estimator import Estimator
from nasengine.objectives import Objectives
from nasengine.plugin import Plugin
from nasengine.plugin_name import PluginName
from nasengine.reporter import Reporter
from nasengine.runs import devices
from nasengine.runs.composition import Builder, in_file, in_part, swap
from nasengine.runs.feasibility import check_limits
from nasengine.runs.goals import (
    ReferenceValue,
    known_metrics,
    nearest_reference,
    objectives_of,
)
from nasengine.runs.limits_together import check_together
from nasengine.runs.spec import GoalTable, Spec, Table, check_spec, override, read_toml
from nasengine.search import Budget, Search
from nasengine.space import SearchSpace
from nasengine.strategy import Strategy
from nasengine.task import Task


@dataclass(frozen=True)
class Experiment:
    """A checked spec and what it composes.

    Parameters
    ----------
    spec
        The spec.
    folder
        What its relative paths are relative to.
    space, task, strategy, estimators, final
        The plugins; `final` holds the estimators for the winner and the references alone.
    notes
        What the user should know of how the spec was read.
    searches
        Whether architectures are searched; else they are only measured, by whatever estimators,
        and the strategy is not asked whether these suit it.
    source
        The file that the spec was read from, for errors.
    """

    spec: Spec
    folder: Path
    space: SearchSpace
    task: Task
    strategy: Strategy
    estimators: Mapping[str, Estimator]
    final: Mapping[str, Estimator]
    notes: tuple[str, ...] = ()
    searches: bool = True
    source: Path | None = None

    @classmethod
    def load(cls, path: Path, assignments: Iterable[str] = ()) -> Experiment:
        """Read a spec and build what it names.

        Parameters
        ----------
        path
            The TOML file.
        assignments
            Overrides, ``key.path=value``. Overriding a plugin's name swaps the plugin: settings
            of the old one that the new one does not have are dropped, with a note.

        Raises
        ------
        SpecError, PluginError
            With every problem of the spec, each named by the file and its key's path.
        """
        with in_file(path):
            found = cls.from_table(read_toml(path), path.parent.resolve(), assignments)
            return replace(found, source=path)

    @classmethod
    def from_table(
        cls, table: Mapping[str, Any], folder: Path, assignments: Iterable[str] = ()
    ) -> Experiment:
        """Build an experiment from the tables of a spec; see `load`."""
        tables, paths = override(table, assignments)
        notes = [note for path in paths for note in swap(tables, path, paths, folder)]
        made = Builder(folder)
        try:
            spec = check_spec(tables)
        except SpecError as error:
            made.refuse(error, tables)
        space = made(SearchSpace, spec.space, "space")
        task = made(Task, spec.task, "task")
        strategy = made(Strategy, spec.strategy, "strategy")
        estimators = made.estimators(spec.estimators, "estimators")
        final = made.estimators(spec.final.estimators, "final.estimators")
        made.raise_if_any()
        both = set(estimators) & set(final)
        if both:
            raise SpecError(f"final.estimators: {', '.join(sorted(both))} stands in estimators too")
        return cls(spec, folder, space, task, strategy, estimators, final, tuple(notes))

    @property
    def all_estimators(self) -> dict[str, Estimator]:
        """The estimators of every trial and those of the winner and the references alone."""
        return {**self.estimators, **self.final}

    def resolved(self) -> Table:
        """Return the spec's tables with every default filled in and paths made absolute."""
        spec = self.spec
        tables: Table = {
            "name": spec.name,
            "seed": spec.seed,
            "device": spec.device,
            "threads": spec.threads,
            "references": list(self.references),
            "start": [dict(architecture) for architecture in self.start] or None,
            "space": self._table(spec.space["name"], self.space),
            "task": self._table(spec.task["name"], self.task),
            "strategy": self._table(spec.strategy["name"], self.strategy),
            "estimators": self._tables(spec.estimators, self.estimators),
            "objectives": {
                metric: goal if isinstance(goal, str) else goal.model_dump(exclude_none=True)
                for metric, goal in spec.objectives.items()
            },
            "budget": spec.budget.model_dump(exclude_none=True),
            "execution": spec.execution.model_dump(exclude_none=True),
        }
        if "data" in spec.task and isinstance(spec.task["data"], dict):
            name = str(spec.task["data"].get("name"))
            tables["task"]["data"] = {"name": self._located(name), **tables["task"]["data"]}
        if self.final:
            tables["final"] = {"estimators": self._tables(spec.final.estimators, self.final)}
        return {key: value for key, value in tables.items() if value is not None}

    def completed(self, spec: Any) -> Any:
        """Return a run's spec, as `resolved` gave it, with the settings that plugins got since.

        Of those that this experiment leaves to their defaults.
        """
        return _completed(
            spec,
            {
                "space": self.space,
                "task": self.task,
                "strategy": self.strategy,
                "estimators": self.estimators,
                "final": {"estimators": self.final},
            },
        )

    def _tables(self, given: Mapping[str, Table], built: Mapping[str, Estimator]) -> Table:
        return {key: self._table(given[key].get("name", key), e) for key, e in built.items()}

    def _table(self, name: str, plugin: Plugin) -> Table:
        return {"name": self._located(name), **_plain(plugin)}

    def _located(self, name: str) -> str:
        return str(PluginName.parse(name).located(self.folder))

    @property
    def references(self) -> tuple[str, ...]:
        """Names of the reference networks to measure beside the winner.

        Raises
        ------
        SpecError
            If the spec names one that the space does not have.
        """
        known = self.space.references()
        if self.spec.references is None:
            return tuple(known)[:2]
        for name in self.spec.references:
            if name not in known:
                with in_file(self.source):
                    near = nearest_reference(name, known)
                    raise SpecError(f"references: no network {name!r}; {near}")
        return self.spec.references

    @cached_property
    def start(self) -> tuple[Architecture, ...]:
        """The architectures that the search begins with; a file of them is read once.

        Raises
        ------
        ArchitectureError, SpecError
            If one is none that can be searched, or the same as another, or there are more than the
            budget has trials.
        """
        found: dict[str, Architecture] = {}
        for index, given in enumerate(self.spec.start):
            where = f"start.{index}"
            if isinstance(given, str):
                choices = given_architecture(given, self.space, where=where, folder=self.folder)
                where = f"{where}, {given!r:.80}"
            else:
                choices = Architecture(given)
            # References may hold blocks that no search proposes.
            made = self.space.architecture(choices, where)
            if (key := self.space.key(made)) in found:
                raise SpecError(f"{where}: computes the same as start.{list(found).index(key)}")
            found[key] = made
        trials = self.spec.budget.trials
        if trials is not None and trials < len(found):
            raise SpecError(f"start: {len(found)} architectures, and budget.trials allows {trials}")
        return tuple(found.values())

    @property
    def device(self) -> str:
        """The device that ``auto`` stands for, or the spec's own.

        Raises
        ------
        SpecError
            If it is not there.
        """
        return devices.resolved(self.spec.device, "device")

    def worker_devices(self) -> tuple[str, ...]:
        """Return the devices that worker processes run on, in turn.

        Raises
        ------
        SpecError
            As of `devices.beside`.
        """
        asked = self.spec.execution.devices
        return (self.device,) if asked is None else devices.beside(self.device, asked)

    def search(
        self,
        folder: Path,
        reporter: Reporter | None = None,
        stop: threading.Event | None = None,
        reference_value: ReferenceValue | None = None,
    ) -> Search:
        """Return the search, checked by its strategy and its estimators.

        Parameters
        ----------
        folder
            Where it may keep files.
        reporter
            Told what happens.
        stop
            Set to ask it to stop.
        reference_value
            Gives a reference network's measured value, for limits relative to one; by default
            it is measured here, by the one estimator that is needed.

        Raises
        ------
        SpecError, SpaceError
            If parts do not fit together, each problem named by its key.
        """
        with in_file(self.source):
            search = Search(
                self.space,
                self.task,
                self.estimators,
                Objectives(()),
                self.spec.seed,
                self.device,
                folder,
                Budget(self.spec.budget.trials, self.spec.budget.seconds),
                reporter or Reporter(),
                stop or threading.Event(),
                self.start,
            )
            return self._checked(search, reference_value)

    def _checked(self, search: Search, reference_value: ReferenceValue | None) -> Search:
        """Return the search with its objectives, once every part has agreed to it."""
        if self.searches and not self.space.decisions:
            raise SpaceError(
                f"space: {type(self.space).__name__} has no slot, so nothing to search: "
                f"graph.slot(name, source, choices) makes one; graph.width(name, options) makes "
                f"channels that are searched"
            )
        self._check_outputs(search)
        self.worker_devices()  # Refused here, not when a worker starts.
        objectives = objectives_of(self.spec.objectives, search, reference_value)
        search = replace(search, objectives=objectives)
        # What is measured at the end stands beside what was measured of every trial.
        at_end = replace(search, estimators=self.all_estimators)
        parts: list[tuple[str, Strategy | Estimator, Search]] = [
            *([("strategy", self.strategy, search)] if self.searches else []),
            *((f"estimators.{key}", each, search) for key, each in self.estimators.items()),
            *((f"final.estimators.{key}", each, at_end) for key, each in self.final.items()),
        ]
        problems = [problem for part in parts for problem in _problems(*part)]
        if problems:
            raise SpecError("\n".join(problems))
        return search

    def for_measuring(self, estimators: Mapping[str, Estimator]) -> Experiment:
        """Return an experiment that only measures, by these estimators: nothing is wanted."""
        wanted = {next(iter(estimators)): "min"}
        spec = self.spec.model_copy(update={"objectives": wanted})
        return replace(self, spec=spec, estimators=estimators, final={}, searches=False)

    def _check_outputs(self, search: Search) -> None:
        end = next(node.name for node in self.space.graph.nodes if node.kind == "output")
        self.task.check_outputs(search.shapes.out[end])

    def check_ahead(self, search: Search) -> list[str]:
        """Refuse data that are not there, and limits that nothing in the space can meet.

        To be called before anything is trained.

        Parameters
        ----------
        search
            From `search`.

        Returns
        -------
        What there is to say beside: of limits that every network meets, of what cannot be chosen.

        Raises
        ------
        SpecError
            Naming each such limit, with the range that exists, or those that exclude each other.
        DataError
            Naming the file or folder.
        """
        self.task.check_data()
        given = {
            metric: wanted.model_dump(exclude_none=True)
            for metric, wanted in self.spec.objectives.items()
            if isinstance(wanted, GoalTable)
        }
        with in_file(self.source):
            metrics = known_metrics(search)
            notes = check_limits(search, metrics, given) + check_together(search, metrics)
        notes += [
            f"objectives.{goal.metric}: {goal.goal!r}, and of {goal.metric} "
            f"{'more' if goal.goal == 'min' else 'less'} is better: the worst is searched for"
            for goal in search.objectives.goals
            if goal.goal != metrics[goal.metric].direction
        ]
        if self.searches and self.space.size == 1:
            name = type(self.space).__name__
            notes = [f"space: {name} holds one architecture: there is nothing to choose", *notes]
        if self.searches and 0 < len(search.start) == search.budget.trials:
            notes.append("start: it is all of budget.trials, and the strategy proposes nothing")
        return [*notes, *devices.unlike(self.worker_devices())]


def _problems(where: str, part: Strategy | Estimator, search: Search) -> list[str]:
    try:
        with in_part(where):
            part.check(search)
    except SpecError as error:
        return [str(error)]
    return []


def _completed(kept: Any, now: Any) -> Any:
    """Return a kept table with what it lacks of a plugin's settings, as far as none is given."""
    if not isinstance(kept, Mapping):
        return kept
    if isinstance(now, Mapping):
        return {**kept, **{key: _completed(kept[key], now[key]) for key in now if key in kept}}
    if not isinstance(now, BaseModel):
        return kept
    names = {field.alias or name: name for name, field in type(now).model_fields.items()}
    return {
        **kept,
        **_plain({k: getattr(now, n) for k, n in names.items() if n not in now.model_fields_set}),
        **{k: _completed(kept[k], getattr(now, n)) for k, n in names.items() if k in kept},
    }


def _plain(value: Any) -> Any:
    """Turn a plugin's settings into TOML's values: no None, paths as text, tuples as lists."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields.items()
        return _plain({field.alias or name: getattr(value, name) for name, field in fields})
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value.resolve())
    return value
