"""What finished runs found, each with the settings that make it different from the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nasengine.errors import RunFolderError, SpecError
from nasengine.history import History
from nasengine.runs.run_files import read_environment, read_identity, read_result, read_spec
from nasengine.runs.spec import read_toml
from nasengine.runs.storage import Storage
from nasengine.trial import Metric, Status, Trial

ABSENT = "-"
"""Stands where a run has no such setting, or no such value was measured."""

UNMEASURED = tuple(
    status.value for status in (Status.INFEASIBLE, Status.SCREENED, Status.FAILED, Status.LOST)
)
"""How a trial ends that is not measured in full."""

NO_SETTING = frozenset({"seed", "name", "references", "execution.isolate"})
"""Keys of a spec that change nothing of what a search finds, and the seed, which makes no row."""


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
            raise RunFolderError(f"{folder}: not finished; nasengine resume {folder}")
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
        problem=" ".join(problem.split()),
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


def _tables(folder: Path) -> dict[str, Any]:
    try:
        return read_toml(folder / "spec.toml")
    except SpecError as error:
        raise RunFolderError(f"{folder}: not a run's folder: {error}") from error


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


def settings_of(folders: Sequence[Path]) -> list[dict[str, str]]:
    """Say of each run what makes it different from the others, seed and name apart.

    The budget is such a setting, and so are the files of own code.

    Raises
    ------
    RunFolderError
        If a folder holds no run.
    """
    specs = [{**_flat(_tables(folder)), **_code(folder)} for folder in folders]
    keys = {key for spec in specs for key in spec} - NO_SETTING
    differing = sorted(k for k in keys if len({repr(spec.get(k)) for spec in specs}) > 1)
    shown = [k for k in differing if all(k in spec for spec in specs)]
    # What not all have (a strategy's own settings, an estimator) mostly follows from a name:
    # it is shown where it tells apart what else would look the same.
    rest = [k for k in differing if k not in shown]
    for key in sorted(rest, key=lambda k: not k.endswith(".name")):
        if _kinds(specs, [*shown, key]) > _kinds(specs, shown):
            shown.append(key)
    return [{key: _value_text(spec, key) for key in shown or ["strategy.name"]} for spec in specs]


def _kinds(specs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> int:
    return len({tuple(repr(spec.get(key, ABSENT)) for key in keys) for spec in specs})


def _value_text(spec: Mapping[str, Any], key: str) -> str:
    return ABSENT if key not in spec else str(spec[key]) or "''"


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    return {
        k: v
        for key, item in value.items()
        for k, v in _flat(item, f"{path}.{key}".lstrip(".")).items()
    }


def _code(folder: Path) -> dict[str, str]:
    """Return the digests of own code by the key of what it is: it may change, its name kept."""
    kept = read_identity(folder)["code"] if (folder / "identity.json").is_file() else {}
    return {f"{key}.code": str(digest)[:8] for key, digest in _flat(kept).items() if key}
