"""How well does a cheap estimator rank what a dear one measures? Samples, correlations, a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nasengine.architecture import Architecture
from nasengine.errors import RunFolderError, SearchFailed
from nasengine.estimator import Estimator
from nasengine.files import read_json, write_json
from nasengine.moves import enumerate_all, sample
from nasengine.runs.execution import Job
from nasengine.runs.experiment import Experiment
from nasengine.runs.identity import identity
from nasengine.runs.measuring import measure
from nasengine.search import Search
from nasengine.statistics import agreement
from nasengine.studies.figure import write_figure
from nasengine.trial import Status

FORMAT = 2

DRAWS = 50
"""Draws for each sample that is wanted: architectures that compute the same are one."""


@dataclass
class Correlation:
    """Two estimators' values of the same random architectures.

    Parameters
    ----------
    first, second
        The estimators' keys: the cheap one, and the one that it is judged by.
    values
        Architecture to the two values.
    failed
        Reasons of those that could not be measured, with their number.
    """

    first: str
    second: str
    values: dict[Architecture, tuple[float, float]] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    def agreement(self) -> Mapping[str, float]:
        """Return Spearman, Kendall and the mean relative error.

        Raises
        ------
        SearchFailed
            If fewer than three architectures could be measured.
        """
        if len(self.values) < 3:
            listed = "".join(f"\n  {count} x {reason}" for reason, count in self.failed.items())
            raise SearchFailed(
                f"{len(self.values)} architectures were measured; 3 are needed{listed}"
            )
        return agreement(*zip(*self.values.values(), strict=True))


def measured_under(experiment: Experiment, estimators: Mapping[str, Estimator]) -> dict[str, Any]:
    """Return all that values of these estimators depend on, as JSON has it, to be kept with them.

    Parameters
    ----------
    experiment
        As the spec has it.
    estimators
        The two that measure.
    """
    kept = identity(experiment)
    measured_by = (*(f"estimators.{key}" for key in estimators), "space", "task")
    found: dict[str, Any] = {
        **{key: kept["spec"].get(key) for key in ("space", "task", "seed", "threads")},
        "estimators": {
            key: [type(e).__qualname__, e.model_dump(mode="json")] for key, e in estimators.items()
        },
        "device": experiment.device,
        "graph": kept["space"],
        "code": {
            k: v
            for k, v in kept["code"].items()
            if k.removeprefix("final.").startswith(measured_by)
        },
        "packages": kept["packages"],
    }
    read: dict[str, Any] = json.loads(json.dumps(found))
    return read


def correlate(
    search: Search,
    first: str,
    second: str,
    samples: int,
    path: Path | None = None,
    under: Mapping[str, Any] | None = None,
) -> Correlation:
    """Measure random architectures by two estimators.

    Parameters
    ----------
    search
        Holds both estimators.
    first, second
        Their keys.
    samples
        How many distinct architectures; all of the space where it has fewer.
    path
        A JSON file that keeps every value as it comes, and that is gone on with; None for none.
    under
        What the values depend on, from `measured_under`; kept with them.

    Raises
    ------
    RunFolderError
        If the file holds what was measured under something else, or is damaged.
    """
    found = Correlation(first, second)
    if path is not None and path.is_file():
        _read_values(path, found, search, dict(under or {}))
    alone = replace(search, estimators={key: search.estimators[key] for key in (first, second)})
    drawn = _draw(search, samples)
    with search.reporter.progress(f"{first} and {second}", len(drawn), 0) as progress:
        for number, architecture in enumerate(drawn):
            if architecture not in found.values:
                job = Job(f"sample-{number}", architecture, stop_early=False)
                measured = measure(alone, job)
                if measured.status is Status.COMPLETE:
                    values = (measured.measurements[key].value for key in (first, second))
                    found.values[architecture] = (next(values), next(values))
                else:
                    found.failed[measured.reason] = found.failed.get(measured.reason, 0) + 1
                if path is not None:
                    write_json(path, _file_of(found, dict(under or {})))
            progress.advance()
    return found


def _draw(search: Search, samples: int) -> list[Architecture]:
    rng = search.stream("correlate")
    drawn: dict[str, Architecture] = {}

    def take(architecture: Architecture) -> bool:
        drawn.setdefault(search.space.key(architecture), architecture)
        return len(drawn) == samples

    decisions, most = search.space.decisions, DRAWS * samples
    enough = any(take(sample(decisions, rng)) for _ in range(most))
    if not enough and search.space.size <= most:  # Chance has missed some, or there are no more.
        any(take(architecture) for architecture in enumerate_all(decisions))
    return list(drawn.values())


def _file_of(found: Correlation, under: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "of": [found.first, found.second],
        "under": under,
        "values": [[dict(a), list(pair)] for a, pair in found.values.items()],
    }


@dataclass(frozen=True)
class _Values:
    """A file of values."""

    format: int
    of: list[str]
    under: dict[str, Any]
    values: list[tuple[dict[str, str], tuple[float, float]]]


def _read_values(path: Path, found: Correlation, search: Search, under: dict[str, Any]) -> None:
    kept = read_json(path, _Values)
    if kept.format != FORMAT or kept.of != [found.first, found.second]:
        raise RunFolderError(f"{path}: holds values of other estimators; give another folder")
    other = [k for k in {**kept.under, **under} if kept.under.get(k) != under.get(k)]
    if other:
        raise RunFolderError(
            f"{path}: its values are of another {', '.join(other)}; give another folder"
        )
    for choices, pair in kept.values:
        found.values[search.space.architecture(choices, where=str(path))] = pair


def plot(found: Correlation, units: Sequence[str], path: Path) -> None:
    """Draw one point an architecture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.4), layout="constrained")
    axes = figure.add_subplot()
    first, second = zip(*found.values.values(), strict=True)
    axes.plot(first, second, "o", color="#1f4e79", alpha=0.6, markersize=4)
    labels = [
        f"{n} ({u})" if u else n for n, u in zip((found.first, found.second), units, strict=True)
    ]
    # A name is a name, not a formula: a dollar in it would have to be sound TeX.
    axes.set_xlabel(labels[0], parse_math=False)
    axes.set_ylabel(labels[1], parse_math=False)
    said = found.agreement()
    axes.set_title(
        f"{len(first)} architectures: Spearman {said['spearman']:.3f}, "
        f"Kendall {said['kendall']:.3f}",
        fontsize=10,
    )
    axes.grid(alpha=0.3)
    write_figure(figure, path)
