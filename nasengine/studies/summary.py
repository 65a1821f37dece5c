"""What finished runs found, references and failed searches among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path

from nasengine.errors import RunFolderError
from nasengine.history import History
from nasengine.runs.own_code import command_on
from nasengine.runs.run_files import read_environment, read_result, read_spec
from nasengine.runs.storage import Storage
from nasengine.trial import Metric, Status, Trial

ABSENT = "-"
"""Stands where a run has no such setting, or no such value was measured."""

UNMEASURED = tuple(
    status.value for status in (Status.INFEASIBLE, Status.SCREENED, Status.FAILED, Status.LOST)
)
"""How a trial ends that is not measured in full."""


@dataclass(frozen=True)
class Summary:
    """What one run found.

    Parameters
    ----------
    folder
        The run's folder.
    setting
        What was varied, seed excepted.
    seed
        The seed.
    values
        The winner's measurements by metric; none where the run failed.
    metrics
        The metrics, by name.
    goals
        Those optimised, the primary first.
    trials, seconds
        What the search used, supernet training included.
    tests
        Goal to the metric that is the same on the test split, where its estimator knows one.
    counted
        The metrics without chance: measured again, they are the same.
    ended
        How many trials ended in which way: ``complete``, or one of `UNMEASURED`.
    budget
        What the search was allowed: ``trials``, ``seconds``, or both.
    machine
        What it ran on.
    problem
        Why it has no values, or not all.
    front
        With several goals, the measurements by metric of each network of the front.
    """

    folder: Path
    setting: Mapping[str, str]
    seed: int
    values: Mapping[str, float]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    goals: tuple[str, ...] = ()
    trials: int = 0
    seconds: float = 0.0
    tests: Mapping[str, str] = field(default_factory=dict)
    counted: frozenset[str] = frozenset()
    ended: Mapping[str, int] = field(default_factory=dict)
    budget: Mapping[str, float] = field(default_factory=dict)
    machine: str = ""
    problem: str = ""
    front: Sequence[Mapping[str, float]] = ()


def summarise(folder: Path, setting: Mapping[str, str]) -> Summary:
    """Read a finished run.

    Raises
    ------
    RunFolderError
        If it holds no finished run.
    """
    spec = read_spec(folder)
    with _history(folder) as storage:
        history = storage.history()
        if not len(history) and storage.references():
            raise RunFolderError(f"{folder}: holds reference networks alone, and no trial")
        if not storage.fact("finished", bool, False):
            raise RunFolderError(f"{folder}: not finished; {command_on(folder, 'resume')}")
    found = read_result(folder)
    front = found.front if len(found.goals) > 1 else ()
    return Summary(
        folder,
        setting,
        spec.get("seed", 0),
        {name: measured.value for name, measured in found.measurements.items()},
        found.known_metrics,
        found.goals,
        found.trials,
        found.seconds,
        found.tests,
        frozenset(found.counted),
        _ended(history),
        spec.get("budget", {}),
        _machine(folder),
        front=[{name: m.value for name, m in one.measurements.items()} for one in front],
    )


def summarise_failed(folder: Path, setting: Mapping[str, str], problem: str) -> Summary:
    """Read a run that ended without a network: what it was allowed, and spent.

    Parameters
    ----------
    folder, setting
        As of `summarise`.
    problem
        Why it has none.
    """
    spec = read_spec(folder)
    with _history(folder) as storage:
        history, seconds = storage.history(), storage.seconds
    return Summary(
        folder,
        setting,
        spec.get("seed", 0),
        {},
        trials=len(history),
        seconds=seconds,
        ended=_ended(history),
        budget=spec.get("budget", {}),
        machine=_machine(folder),
        problem="; ".join(" ".join(line.split()) for line in problem.splitlines()),
    )


def _history(folder: Path) -> AbstractContextManager[Storage]:
    return closing(Storage(folder / "history.sqlite", read_only=True))


def _ended(history: History) -> Mapping[str, int]:
    return Counter(trial.status.value for trial in history)


def _machine(folder: Path) -> str:
    about = read_environment(folder)
    device = about.device_name or about.processor or "?"
    threads = f"{about.threads or '?'} thread{'s' * (about.threads != 1)}"
    return f"{about.host or '?'} ({device}, {threads})"


def summarise_references(
    folder: Path,
    trials: Mapping[str, Trial],
    setting: Mapping[str, str],
    key: str,
    seed: int,
    like: Summary,
) -> list[Summary]:
    """Return reference networks as runs of no trial.

    Parameters
    ----------
    folder
        Where they were measured.
    trials
        The measured networks by name.
    setting, key
        What they were measured under, and the key at which a search has its strategy's name.
    seed
        The seed that they were measured under.
    like
        A run with the metrics and goals that they are held against.
    """
    return [
        Summary(
            folder,
            {**setting, key: f"{name} (reference)"},
            seed,
            {metric: m.value for metric, m in trial.measurements.items()},
            like.metrics,
            like.goals,
            tests=like.tests,
            machine=_machine(folder),
            problem=trial.reason,
        )
        for name, trial in trials.items()
    ]
