"""What a run's folder holds, read for a report: without torch, without anybody's code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nasengine.errors import InputError, RunFolderError
from nasengine.estimator import CostTable
from nasengine.history import History
from nasengine.objectives import Objective, Objectives
from nasengine.quantities import format_count, format_quantity, parse_quantity
from nasengine.runs.spec import read_toml
from nasengine.runs.storage import Storage
from nasengine.runs.verdict import Standing, Tie
from nasengine.trial import Measurement, Metric, Trial

Event = Mapping[str, Any]
"""A line of the log."""


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
        ``best/metrics.json``; empty before there is a result.
    environment
        ``environment.json``; empty where it is missing.
    resolved
        ``objectives.json``: the objectives with their limits in the metrics' units.
    log
        Kind to the lines of the log of that kind.
    tables
        Estimator's key to the cost table that the search used.
    """

    folder: Path
    spec: Mapping[str, Any]
    history: History
    references: Mapping[str, Trial]
    seconds: float
    finished: bool
    result: Mapping[str, Any]
    environment: Mapping[str, Any]
    resolved: Sequence[Mapping[str, Any]] = ()
    log: Mapping[str, list[Event]] = field(default_factory=dict)
    tables: Mapping[str, CostTable] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The run's name in its spec."""
        return str(self.spec.get("name", self.folder.name))

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Every metric by its full name; before there is a result, as far as they are known."""
        told = self.result.get("metrics", {})
        if told:
            return {name: Metric(name, m["unit"], m["direction"]) for name, m in told.items()}
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
            return Objectives(tuple(Objective(**table) for table in self.resolved))
        return Objectives(self._objectives({name: m.unit for name, m in self.metrics.items()}))

    def _objectives(self, units: Mapping[str, str]) -> tuple[Objective, ...]:
        found = []
        for metric, asked in self.spec.get("objectives", {}).items():
            table: Any = {"goal": asked} if isinstance(asked, str) else asked
            limits = {
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
        told = self.result.get("searched")
        best = self.objectives.best(self.history) if self._comparable else None
        if not told:
            return best
        measured = {
            name: Measurement(
                m["value"], {key: v for key, v in m.items() if key not in ("value", "unit")}
            )
            for name, m in told["measurements"].items()
        }
        trial = self.history[told["trial"]]
        return Trial(
            trial.number, trial.architecture, trial.key, trial.status, measured, "", trial.seconds
        )

    @cached_property
    def standings(self) -> list[Standing]:
        """How the winner stands to each reference; none where an earlier version wrote it."""
        told = self.result.get("verdict", ())
        return [Standing.from_json(item) for item in told if not isinstance(item, str)]

    @cached_property
    def tie(self) -> Tie | None:
        """The trials that share the best value, where there are several."""
        told = self.result.get("tie")
        return None if told is None else Tie(**told)

    @cached_property
    def verdict(self) -> list[str]:
        """Whether the search won, in sentences; as an earlier version wrote them."""
        told = [item for item in self.result.get("verdict", ()) if isinstance(item, str)]
        judged: list[Standing | Tie] = [*self.standings, *filter(None, [self.tie])]
        units = {name: metric.unit for name, metric in self.metrics.items()}
        return told + [item.said(units.get(item.metric, "")) for item in judged]

    @property
    def _comparable(self) -> bool:
        goals = self.objectives.goals
        return bool(goals) and all(
            goal.metric in trial.measurements for goal in goals for trial in self.history.complete
        )

    @property
    def decisions(self) -> dict[str, list[str]]:
        """Slot to its choices, as a gradient search kept them; empty where none did."""
        kept = _json(self.folder / "checkpoints" / "darts.json")
        decisions: dict[str, list[str]] = kept.get("fingerprint", {}).get("decisions", {})
        return dict(decisions)

    def text(self, metric: str, value: float) -> str:
        """Write a metric's value with its unit."""
        unit = self.metrics[metric].unit if metric in self.metrics else ""
        if not unit and abs(value) >= 1000:
            return format_count(value)
        return format_quantity(value, unit)

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
        raise RunFolderError(f"{folder}: not a run's folder (no history.sqlite)")
    storage = Storage(folder / "history.sqlite", read_only=True)
    try:
        ended = storage.fact("finished", False) if finished is None else finished
        result = _json(folder / "best" / "metrics.json")
        record = Record(
            folder,
            read_toml(folder / "spec.toml"),
            storage.history(),
            storage.references(),
            storage.fact("seconds", 0.0),
            ended,
            result if ended else {},
            _json(folder / "environment.json"),
            list(_json(folder / "objectives.json")),
            _log(folder / "log.jsonl"),
            {path.stem: CostTable(**_json(path)) for path in sorted(folder.glob("tables/*.json"))},
        )
        _check(record)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise RunFolderError(f"{folder}: damaged: {type(error).__name__}: {error}") from error
    finally:
        storage.close()
    return record


def _check(record: Record) -> None:
    """Read what is read on demand, so that damage is found here."""
    _ = record.metrics, record.objectives, record.winner, record.verdict


def _json(path: Path) -> Any:
    """Read a JSON file; an empty table where there is no file."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path}: damaged: {error}") from error


def _log(path: Path) -> dict[str, list[Event]]:
    """Read the log by kind; a line that a crash cut off is left out."""
    found: dict[str, list[Event]] = {}
    if not path.is_file():
        return found
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):
                event = json.loads(line)
                found.setdefault(str(event["kind"]), []).append(event)
    return found
