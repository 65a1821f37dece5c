"""What a run's folder holds, read for a report: without torch, without anybody's code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nasengine.errors import InputError, RunFolderError
from nasengine.estimator import CostTable, read_cost_table
from nasengine.history import History
from nasengine.objectives import Objective, Objectives
from nasengine.quantities import format_count, format_quantity, parse_quantity
from nasengine.runs.run_files import (
    Environment,
    Result,
    no_run,
    read_environment,
    read_objectives,
    read_result,
    read_spec,
)
from nasengine.runs.storage import Storage
from nasengine.runs.verdict import Standing, Tie
from nasengine.trial import Metric, Trial

from .events import Log, read_log


@dataclass(frozen=True)
class Record:
    """A run as its folder tells it, finished or not.

    Parameters
    ----------
    folder
        The run's folder.
    spec
        The resolved spec.
    history
        Every trial so far.
    references
        The reference networks measured so far, by name.
    seconds
        Seconds of search so far.
    finished
        Whether the run has ended.
    result
        ``best/metrics.json``; None before there is a result.
    environment
        ``environment.json``; empty where it is missing.
    resolved
        ``objectives.json``: the objectives with their limits in the metrics' units.
    log
        ``log.jsonl``; empty where it is missing.
    tables
        Estimator's key to the cost table that the search used.
    """

    folder: Path
    spec: Mapping[str, Any]
    history: History
    references: Mapping[str, Trial]
    seconds: float
    finished: bool
    result: Result | None
    environment: Environment
    resolved: tuple[Objective, ...] = ()
    log: Log = field(default_factory=Log)
    tables: Mapping[str, CostTable] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The run's name in its spec."""
        return str(self.spec.get("name", self.folder.name))

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Every metric by its full name; before there is a result, as far as they are known."""
        if self.result is not None:
            return self.result.known_metrics
        measured = [t.measurements for t in [*self.references.values(), *self.history]]
        names = dict.fromkeys(name for found in measured for name in found)
        goals = {item.metric: item.goal or "min" for item in self._objectives(units={})}
        return {
            name: Metric(
                name,
                self.tables[name].unit if name in self.tables else "",
                goals.get(name, "min"),
            )
            for name in names
        }

    @cached_property
    def objectives(self) -> Objectives:
        """The goals and limits; those of the spec where the run did not come to resolve them."""
        if self.resolved:
            return Objectives(self.resolved)
        return Objectives(self._objectives({name: m.unit for name, m in self.metrics.items()}))

    def _objectives(self, units: Mapping[str, str]) -> tuple[Objective, ...]:
        found = []
        for metric, asked in self.spec.get("objectives", {}).items():
            table: Any = {"goal": asked} if isinstance(asked, str) else asked
            limits: dict[str, Any] = {
                key: self._limit(metric, table[key], units.get(metric, ""))
                for key in ("at_most", "at_least")
                if key in table and units
            }
            found.append(Objective(metric, table.get("goal"), **limits))
        return tuple(found)

    def _limit(self, metric: str, given: Any, unit: str) -> float | None:
        with suppress(InputError, KeyError):
            quantity = parse_quantity(given, where=metric)
            reference = quantity.reference
            value = self.references[reference].value(metric) if reference else None
            return quantity.to(unit, where=metric, reference_value=value)
        return None

    @property
    def goals(self) -> list[str]:
        """The metrics that are optimised, the primary first."""
        return [goal.metric for goal in self.objectives.goals if goal.metric in self.metrics]

    @cached_property
    def winner(self) -> Trial | None:
        """The best trial, with its final measurements where the run is finished."""
        if self.result is None:
            return self.objectives.best(self.history) if self._comparable else None
        trial = self.history[self.result.searched.trial]
        return replace(trial, measurements=self.result.measurements, reason="")

    @property
    def slots(self) -> Mapping[str, int]:
        """Decision to how many slots share it, as far as it is known."""
        if self.result is not None:
            return self.result.slots
        return self.log.decisions[-1].slots if self.log.decisions else {}

    @property
    def channels(self) -> Mapping[str, int]:
        """Width to the channels that the winner has by it, as far as it is known."""
        if self.result is not None:
            return self.result.channels
        told = self.log.decisions[-1].channels if self.log.decisions else {}
        chosen = {} if self.winner is None else self.winner.architecture
        return {
            width: counts[chosen[width]]
            for width, counts in told.items()
            if chosen.get(width) in counts
        }

    @cached_property
    def standings(self) -> list[Standing]:
        """How the winner stands to each reference; none where an earlier version wrote it."""
        return [item for item in self._told if isinstance(item, Standing)]

    @property
    def tie(self) -> Tie | None:
        """The trials that share the best value, where there are several."""
        return None if self.result is None else self.result.tie

    @cached_property
    def verdict(self) -> list[str]:
        """Whether the search won, in sentences; as an earlier version wrote them."""
        told = [item for item in self._told if isinstance(item, str)]
        judged: list[Standing | Tie] = [*self.standings, *filter(None, [self.tie])]
        units = {name: metric.unit for name, metric in self.metrics.items()}
        return told + [item.said(units.get(item.metric, "")) for item in judged]

    @property
    def _told(self) -> tuple[Standing | str, ...]:
        return () if self.result is None else self.result.verdict

    @property
    def _comparable(self) -> bool:
        goals = self.objectives.goals
        return bool(goals) and all(
            goal.metric in trial.measurements for goal in goals for trial in self.history.complete
        )

    def text(self, metric: str, value: float) -> str:
        """Write a metric's value with its unit."""
        unit = self.metrics[metric].unit if metric in self.metrics else ""
        if not unit and abs(value) >= 1000:
            return format_count(value)
        return format_quantity(value, unit)

    @property
    def delivered(self) -> list[Path]:
        """The files of ``best/``; of a run that goes on, they are of an earlier winner."""
        if self.result is None:
            return []
        return [path for path in sorted(self.folder.glob("best/*")) if path.is_file()]

    def file(self, *parts: str) -> bytes | None:
        """Return a file of the folder; None if there is none."""
        with suppress(OSError):
            return self.folder.joinpath(*parts).read_bytes()
        return None


def read_record(folder: Path, *, finished: bool | None = None) -> Record:
    """Read a run's folder, also while the run goes on.

    Parameters
    ----------
    folder
        The run's folder.
    finished
        Whether the run has ended, where the caller knows better than the folder.

    Raises
    ------
    RunFolderError
        If it holds no run, or its history, spec or result is damaged.
    """
    if not os.path.isfile(folder / "history.sqlite"):  # noqa: PTH113 no name makes it raise
        raise no_run(folder, "no history.sqlite")
    storage = Storage(folder / "history.sqlite", read_only=True)
    try:
        ended = storage.fact("finished", bool, False) if finished is None else finished
        return _checked(
            Record(
                folder,
                read_spec(folder),
                storage.history(),
                storage.references(),
                storage.seconds,
                ended,
                read_result(folder) if ended else None,
                read_environment(folder),
                read_objectives(folder) if (folder / "objectives.json").is_file() else (),
                read_log(folder / "log.jsonl"),
                {path.stem: read_cost_table(path) for path in sorted(folder.glob("tables/*.json"))},
            )
        )
    finally:
        storage.close()


def _checked(record: Record) -> Record:
    """Refuse files that are sound each by itself, and do not belong together."""
    asked, given = {item.metric for item in record.resolved}, record.spec.get("objectives", {})
    # A screen of 100% asks for nothing, and is not among what was resolved.
    needed = {metric for metric, wanted in given.items() if [*wanted] != ["among_best"]}
    if record.resolved and not needed <= asked <= set(given):
        raise RunFolderError(
            f"{record.folder / 'objectives.json'}: damaged: of {', '.join(sorted(asked))!s:.80}, "
            f"not of the spec's objectives"
        )
    if record.result is not None:
        number = record.result.searched.trial
        if not 0 <= number < len(record.history):
            path = record.folder / "best" / "metrics.json"
            raise RunFolderError(f"{path}: damaged: searched.trial: there is no trial {number}")
    return record
