"""From a spec to objects: the space, the task, the strategy, the estimators, the search."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from nasengine.errors import PluginError, SpaceError, SpecError, did_you_mean
from nasengine.estimator import Estimator
from nasengine.objectives import Objective, Objectives
from nasengine.plugin import Plugin
from nasengine.quantities import Quantity, parse_quantity
from nasengine.reporter import Reporter
from nasengine.runs.composition import Builder, swap
from nasengine.runs.engine import by_effort, full_name, measure
from nasengine.runs.execution import Job
from nasengine.runs.limits_together import check_limits
from nasengine.runs.spec import GoalTable, Spec, Table, check_spec, override, read_toml
from nasengine.search import Budget, Search
from nasengine.space import SearchSpace
from nasengine.strategy import Strategy
from nasengine.task import Task
from nasengine.trial import Metric, Status

T = TypeVar("T")

ReferenceValue = Callable[[str, str], float | None]
"""Returns (reference network, metric) as measured, for limits such as ``60% of unet``; None
before it is measured: the limit is left out."""


def not_yet_measured(reference: str, metric: str) -> float | None:  # noqa: ARG001
    """Give no reference's value: limits relative to what is timed or trained are left out."""
    return None


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
        with _in_file(path):
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
        estimators = {
            key: made(Estimator, {"name": key, **settings}, f"estimators.{key}")
            for key, settings in spec.estimators.items()
        }
        final = {
            key: made(Estimator, {"name": key, **settings}, f"final.estimators.{key}")
            for key, settings in spec.final.estimators.items()
        }
        made.raise_if_any()
        both = set(estimators) & set(final)
        if both:
            raise SpecError(f"final.estimators: {', '.join(sorted(both))} stands in estimators too")
        return cls(
            spec,
            folder,
            _sure(space),
            _sure(task),
            _sure(strategy),
            {key: _sure(e) for key, e in estimators.items()},
            {key: _sure(e) for key, e in final.items()},
            tuple(notes),
        )

    @property
    def all_estimators(self) -> dict[str, Estimator]:
        """The estimators of every trial and those of the winner and the references alone."""
        return {**self.estimators, **self.final}

    def resolved(self) -> Table:
        """Return the spec's tables with every default filled in and paths made absolute."""

        def table(name: str, plugin: Plugin) -> Table:
            return {"name": self._located(name), **_plain(plugin)}

        spec = self.spec
        tables: Table = {
            "name": spec.name,
            "seed": spec.seed,
            "device": spec.device,
            "threads": spec.threads,
            "references": list(self.references),
            "space": table(spec.space["name"], self.space),
            "task": table(spec.task["name"], self.task),
            "strategy": table(spec.strategy["name"], self.strategy),
            "estimators": {
                key: table(spec.estimators[key].get("name", key), estimator)
                for key, estimator in self.estimators.items()
            },
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
            tables["final"] = {
                "estimators": {
                    key: table(spec.final.estimators[key].get("name", key), estimator)
                    for key, estimator in self.final.items()
                }
            }
        return {key: value for key, value in tables.items() if value is not None}

    def _located(self, name: str) -> str:
        """Make a plugin's file absolute, so that the resolved spec can be read from anywhere."""
        source, colon, attribute = name.rpartition(":")
        if not source.endswith(".py"):
            return name
        return f"{(self.folder / source).resolve()}{colon}{attribute}"

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
                with _in_file(self.source):
                    near = _nearest_reference(name, known)
                    raise SpecError(f"references: no network {name!r}; {near}")
        return self.spec.references

    @property
    def device(self) -> str:
        """The device that ``auto`` stands for, or the spec's own.

        Raises
        ------
        SpecError
            If it is not there.
        """
        import torch

        if self.spec.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        if self.spec.device.startswith("cuda") and not torch.cuda.is_available():
            raise SpecError(f"device: {self.spec.device!r} is asked for, and torch finds no CUDA")
        return self.spec.device

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
        with _in_file(self.source):
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
            )
            return self._checked(search, reference_value)

    def _checked(self, search: Search, reference_value: ReferenceValue | None) -> Search:
        """Return the search with its objectives, once every part has agreed to it."""
        if self.searches and not self.space.decisions:
            raise SpaceError(
                f"space: {type(self.space).__name__} has no slot, so nothing to search: "
                f"graph.slot(name, source, choices) makes one"
            )
        self._check_outputs(search)
        metrics = known_metrics(search)
        objectives = self._objectives(metrics, self._reference_values(search, reference_value))
        search = replace(search, objectives=objectives)
        parts: list[tuple[str, Strategy | Estimator]] = [
            *([("strategy", self.strategy)] if self.searches else []),
            *((f"estimators.{key}", estimator) for key, estimator in self.estimators.items()),
            *((f"final.estimators.{key}", estimator) for key, estimator in self.final.items()),
        ]
        problems = [p for where, part in parts for p in _problems(where, part, search)]
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

    def _objectives(
        self, metrics: Mapping[str, Metric], reference_value: ReferenceValue
    ) -> Objectives:
        items = []
        for name, wanted in self.spec.objectives.items():
            if name not in metrics:
                near = _nearest_metric(name, metrics)
                raise SpecError(f"objectives.{name}: no such metric; {near}")
            table = wanted if isinstance(wanted, GoalTable) else GoalTable(goal=wanted)
            where = f"objectives.{name}"
            if table.goal is None and table.at_most is None and table.at_least is None:
                raise SpecError(f"{where}: a goal, at_most or at_least is needed")
            limits = [
                None
                if given is None
                else self._limit(given, f"{where}.{key}", metrics[name], name, reference_value)
                for key, given in (("at_most", table.at_most), ("at_least", table.at_least))
            ]
            if table.goal is not None or limits != [None, None]:
                items.append(Objective(name, table.goal, *limits))
        objectives = Objectives(tuple(items))
        if not objectives.goals:
            raise SpecError('objectives: one with a goal ("max" or "min") is needed')
        return objectives

    def _limit(
        self,
        given: float | str,
        where: str,
        metric: Metric,
        name: str,
        reference_value: ReferenceValue,
    ) -> float | None:
        quantity: Quantity = parse_quantity(given, where=where, unit=metric.unit)
        if not quantity.reference:
            return quantity.to(metric.unit, where=where)
        known = self.space.references()
        if quantity.reference not in known:
            near = _nearest_reference(quantity.reference, known)
            raise SpecError(f"{where}: no reference network {quantity.reference!r}; {near}")
        value = reference_value(quantity.reference, name)
        if value is None:
            return None
        return quantity.to(metric.unit, where=where, reference_value=value)

    def check_limits(self, search: Search) -> list[str]:
        """Refuse limits that nothing in the space can meet, before anything is trained.

        Parameters
        ----------
        search
            From `search`.

        Returns
        -------
        What there is to say of the other limits, such as that every network meets one.

        Raises
        ------
        SpecError
            Naming each such limit, with the range that exists, or those that exclude each other.
        """
        given = {
            metric: wanted.model_dump(exclude_none=True)
            for metric, wanted in self.spec.objectives.items()
            if isinstance(wanted, GoalTable)
        }
        with _in_file(self.source):
            notes = check_limits(search, known_metrics(search), given)
        if self.searches and self.space.size == 1:
            name = type(self.space).__name__
            notes = [f"space: {name} holds one architecture: there is nothing to choose", *notes]
        return notes

    def _reference_values(self, search: Search, given: ReferenceValue | None) -> ReferenceValue:
        """Return what gives a reference's values: what is counted is counted at once."""
        measured = self._measured(search)

        def value(reference: str, metric: str) -> float | None:
            counted = self.estimators[metric.partition(".")[0]].counts
            return measured(reference, metric) if counted or not given else given(reference, metric)

        return value

    def _measured(self, search: Search) -> ReferenceValue:
        """Measure a reference by the one estimator that a relative limit is about."""

        def value(reference: str, metric: str) -> float:
            key = metric.partition(".")[0]
            alone = replace(search, estimators={key: self.estimators[key]})
            job = Job(f"reference-{reference}", self.space.reference(reference))
            measured = measure(alone, job)
            if measured.status is not Status.COMPLETE:
                raise SpecError(
                    f"objectives.{metric}: {reference} could not be measured: {measured.reason}"
                )
            return measured.measurements[metric].value

        return value


def _nearest_metric(name: str, metrics: Mapping[str, Metric]) -> str:
    """Say which metrics there are, first the one of that name; never a test metric."""
    own = sorted((full for full, m in metrics.items() if m.name == name), key=len)
    untested = [full for full in metrics if not full.rpartition(".")[2].startswith("test_")]
    listed = ", ".join(sorted(metrics))
    if own:
        return f"did you mean {own[0]!r}? Allowed: {listed}"
    guess, close, _ = did_you_mean(name, untested).partition("?")
    return f"{guess}? Allowed: {listed}" if close else f"allowed: {listed}"


def _nearest_reference(name: str, known: Iterable[str]) -> str:
    names = [*known]
    return did_you_mean(name, names) if names else "the space has no reference networks"


def known_metrics(search: Search) -> dict[str, Metric]:
    """Return every metric that a search's estimators measure, by its full name."""
    found = {}
    for key, estimator in by_effort(search.estimators):
        with _in_part(f"estimators.{key}"):
            metrics = estimator.metrics(search)
        for metric in metrics:
            found[full_name(key, metric.name, metrics[0].name)] = metric
    return found


def _sure(value: T | None) -> T:
    assert value is not None  # `Builder.raise_if_any` came before.
    return value


def _problems(where: str, part: Strategy | Estimator, search: Search) -> list[str]:
    try:
        with _in_part(where):
            part.check(search)
    except SpecError as error:
        return [str(error)]
    return []


@contextmanager
def _in_file(path: Path | None) -> Iterator[None]:
    """Put the file's name before every line of what is wrong with the spec."""
    try:
        yield
    except (SpecError, PluginError, SpaceError) as error:
        text = str(error)
        if path is None or text.startswith(f"{path}:"):
            raise
        raise type(error)(f"{path}: " + text.replace("\n", f"\n{path}: ")) from error


@contextmanager
def _in_part(where: str) -> Iterator[None]:
    """Put the key of the part that refuses before what it says."""
    try:
        yield
    except SpecError as error:
        text = str(error)
        if text.startswith(where.partition(".")[0]):
            raise
        raise SpecError(f"{where}: {text}") from error


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
