"""What finished runs found, each with the settings that make it different from the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nasengine.errors import RunFolderError
from nasengine.trial import Metric, Trial

ABSENT = "-"
"""Stands where a run has no such setting, or no such value was measured."""


@dataclass(frozen=True)
class Summary:
    """What one finished run found.

    Parameters
    ----------
    folder
        The run's folder.
    setting
        What was varied, seed excepted.
    seed
        The seed.
    values
        The winner's measurements by metric.
    metrics
        The metrics, by name.
    goals
        Those optimised, the primary first.
    tests
        Goal to the metric that is the same on the test split, where its estimator knows one.
    trials, seconds
        What the search used, supernet training included.
    """

    folder: Path
    setting: Mapping[str, str]
    seed: int
    values: Mapping[str, float]
    metrics: Mapping[str, Metric]
    goals: tuple[str, ...]
    trials: int
    seconds: float
    tests: Mapping[str, str] = field(default_factory=dict)


def summarise(folder: Path, setting: Mapping[str, str]) -> Summary:
    """Read a finished run.

    Raises
    ------
    RunFolderError
        If it holds no finished run.
    """
    try:
        found = json.loads((folder / "best" / "metrics.json").read_text(encoding="utf-8"))
        spec = _identity(folder)["spec"]
        return Summary(
            folder,
            setting,
            spec["seed"],
            {name: m["value"] for name, m in found["searched"]["measurements"].items()},
            {
                name: Metric(name, about["unit"], about["direction"])
                for name, about in found["metrics"].items()
            },
            tuple(found["goals"]),
            found["trials"],
            found["seconds"],
            dict(found.get("tests", {})),  # Older runs do not say.
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{folder}: not a finished run ({error})") from error


def settings_of(folders: Sequence[Path]) -> list[dict[str, str]]:
    """Say of each run what makes it different from the others, seed and name apart.

    Raises
    ------
    RunFolderError
        If a folder holds no run.
    """
    specs = [_flat(_identity(folder)["spec"]) for folder in folders]
    keys = {key for spec in specs for key in spec} - {"seed", "name"}
    differing = sorted(k for k in keys if len({repr(spec.get(k)) for spec in specs}) > 1)
    shown = [k for k in differing if all(k in spec for spec in specs)]
    # What not all have (a strategy's own settings, an estimator) mostly follows from a name:
    # it is shown where it tells apart what else would look the same.
    rest = [k for k in differing if k not in shown]
    for key in sorted(rest, key=lambda k: not k.endswith(".name")):
        if _kinds(specs, [*shown, key]) > _kinds(specs, shown):
            shown.append(key)
    return [{key: _said(spec, key) for key in shown or ["strategy.name"]} for spec in specs]


def _kinds(specs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> int:
    return len({tuple(repr(spec.get(key, ABSENT)) for key in keys) for spec in specs})


def _said(spec: Mapping[str, Any], key: str) -> str:
    return ABSENT if key not in spec else str(spec[key]) or "''"


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    return {
        k: v
        for key, item in value.items()
        for k, v in _flat(item, f"{path}.{key}".lstrip(".")).items()
    }


def _identity(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "identity.json").read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{folder}: not a run's folder ({error})") from error


def summarise_references(folder: Path, trials: Mapping[str, Trial], like: Summary) -> list[Summary]:
    """Return reference networks as runs of no trial, with the metrics and goals of a real one."""
    first, *others = like.setting
    return [
        Summary(
            folder,
            {first: f"{name} (reference)", **dict.fromkeys(others, "")},
            like.seed,
            {metric: m.value for metric, m in trial.measurements.items()},
            like.metrics,
            like.goals,
            0,
            0.0,
            like.tests,
        )
        for name, trial in trials.items()
    ]
