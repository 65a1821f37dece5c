"""The JSON files of a run's folder: what each holds, and how it is read."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nasengine.errors import RunFolderError
from nasengine.files import parse_json, read_json
from nasengine.objectives import Objective
from nasengine.runs.spec import read_toml
from nasengine.runs.verdict import Standing, Tie
from nasengine.trial import Direction, Measurement, Metric, check_details

FORMAT = 1
"""Of a run's folder, as ``identity.json`` says it."""


def no_run(path: Path, reason: str) -> RunFolderError:
    """Return the error of a folder that holds no run; it names the runs of one that holds some."""
    if not os.path.exists(path):  # noqa: PTH110 no name makes it raise
        return RunFolderError(f"{path}: no such folder")
    runs = sorted(str(found.parent) for found in path.glob("*/identity.json"))
    held = f"; it holds runs, as {runs[0]}" if runs else ""
    return RunFolderError(f"{path}: not a run's folder ({reason}){held}")


@dataclass(frozen=True)
class _Versioned:
    format: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class _Identity(_Versioned):
    spec: dict[str, Any]
    space: str
    code: dict[str, dict[str, str] | str]
    """Key's path to the file's name and its digest; earlier ones: the file's name to its digest."""
    packages: dict[str, str]


def read_identity(folder: Path) -> dict[str, Any]:
    """Return what a run began with.

    Raises
    ------
    RunFolderError
        If the file is damaged, or of a later format.
    """
    path = folder / "identity.json"
    written = read_json(path, _Versioned).format
    if written > FORMAT:
        raise RunFolderError(
            f"{path}: written by a later nasengine (format {written}, this one reads {FORMAT})"
        )
    return asdict(read_json(path, _Identity))


@dataclass(frozen=True)
class _Plugin:
    name: str


@dataclass(frozen=True)
class _Goal:
    goal: Direction | None = None
    at_most: float | str | None = None
    at_least: float | str | None = None
    among_best: float | str | None = None


@dataclass(frozen=True)
class _Spec:
    """A spec, as far as it is told of a run without building its parts."""

    name: str
    space: _Plugin
    task: _Plugin
    strategy: _Plugin
    objectives: dict[str, Direction | _Goal]
    budget: dict[str, float] = field(default_factory=dict)
    seed: int = 0


def read_spec(folder: Path) -> dict[str, Any]:
    """Return the tables of a run's resolved spec.

    Raises
    ------
    SpecError
        If it cannot be read.
    RunFolderError
        If it is damaged.
    """
    path = folder / "spec.toml"
    tables = read_toml(path)
    try:
        parse_json(json.dumps(tables, default=str), _Spec)
    except ValueError as error:
        raise RunFolderError(f"{path}: damaged: {error}") from error
    return tables


@dataclass(frozen=True)
class Environment:
    """What a run began on: ``environment.json``; empty where it is not known."""

    command: list[str] = field(default_factory=list)
    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    system: str = ""
    processor: str = ""
    host: str = ""
    device: str = ""
    device_name: str = ""
    threads: int = 0


def read_environment(folder: Path) -> Environment:
    """Return what a run began on; an empty one where the file is missing."""
    path = folder / "environment.json"
    return read_json(path, Environment) if path.is_file() else Environment()


def read_objectives(folder: Path) -> tuple[Objective, ...]:
    """Return the goals and limits of a run, in the metrics' units."""
    return read_json(folder / "objectives.json", tuple[Objective, ...])


class _Measured(BaseModel):
    """A value; what explains it stands beside it."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="allow", frozen=True)

    value: float
    unit: str

    @model_validator(mode="after")
    def _check(self) -> _Measured:
        check_details(self.model_extra or {})
        return self


@dataclass(frozen=True)
class _About:
    unit: str
    direction: Direction


@dataclass(frozen=True)
class _Searched:
    trial: int
    measurements: dict[str, _Measured]


@dataclass(frozen=True)
class Result:
    """What a run delivered: ``best/metrics.json``, as far as it is read again.

    Parameters
    ----------
    goals
        The metrics that were optimised, the primary first.
    metrics
        Unit and direction of every metric, by full name.
    trials, seconds
        What the search took.
    searched
        The winner.
    tests
        Goal to the metric that is the same on the test split; earlier versions do not say.
    counted
        The metrics without chance.
    slots
        Decision to how many slots share it; earlier versions do not say.
    channels
        Width to the channels that the winner has by it; earlier versions had no widths.
    verdict
        How the winner stands to each reference; earlier versions wrote sentences.
    tie
        The trials that share the best value, where there are several.
    front
        The networks that no other dominates.
    """

    goals: tuple[str, ...]
    metrics: dict[str, _About]
    trials: int
    seconds: float
    searched: _Searched
    tests: dict[str, str] = field(default_factory=dict)
    counted: tuple[str, ...] = ()
    slots: dict[str, int] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)
    verdict: tuple[Standing | str, ...] = ()
    tie: Tie | None = None
    front: tuple[_Searched, ...] = ()

    @property
    def known_metrics(self) -> dict[str, Metric]:
        """The metrics by full name."""
        return {name: Metric(name, m.unit, m.direction) for name, m in self.metrics.items()}

    @property
    def measurements(self) -> dict[str, Measurement]:
        """The winner's measurements."""
        found = self.searched.measurements.items()
        return {name: Measurement(m.value, m.model_extra or {}) for name, m in found}


def read_result(folder: Path) -> Result:
    """Return what a run delivered.

    Raises
    ------
    RunFolderError
        If the file is missing or damaged.
    """
    path = folder / "best" / "metrics.json"
    found = read_json(path, Result)
    unknown = [name for name in found.goals if name not in found.metrics]
    if unknown:
        raise RunFolderError(f"{path}: damaged: goals: {unknown[0]!r:.80} is none of its metrics")
    return found
