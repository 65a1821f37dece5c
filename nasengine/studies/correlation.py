"""How well does a cheap estimator rank what a dear one measures? Samples, correlations, a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nasengine.architecture import Architecture
from nasengine.errors import RunFolderError, SearchFailed
from nasengine.files import write_json
from nasengine.moves import sample
from nasengine.runs.engine import measure
from nasengine.runs.execution import Job
from nasengine.search import Search
from nasengine.statistics import agreement
from nasengine.trial import Status

FORMAT = 1


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


def correlate(
    search: Search, first: str, second: str, samples: int, path: Path | None
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

    Raises
    ------
    RunFolderError
        If the file is of another comparison.
    """
    found = Correlation(first, second)
    if path is not None and path.is_file():
        _read(path, found, search)
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
                    write_json(path, _as_json(found, search))
            progress.advance()
    return found


def _draw(search: Search, samples: int) -> list[Architecture]:
    rng = search.stream("correlate")
    drawn: dict[str, Architecture] = {}
    for _ in range(50 * samples):
        architecture = sample(search.space.decisions, rng)
        drawn.setdefault(search.space.key(architecture), architecture)
        if len(drawn) == samples:
            break
    return list(drawn.values())


def _as_json(found: Correlation, search: Search) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "estimators": _settings(found, search),
        "values": [[dict(a), list(pair)] for a, pair in found.values.items()],
    }


def _settings(found: Correlation, search: Search) -> dict[str, Any]:
    return {
        key: json.loads(search.estimators[key].model_dump_json())
        for key in (found.first, found.second)
    }


def _read(path: Path, found: Correlation, search: Search) -> None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["estimators"] != _settings(found, search):
            raise RunFolderError(f"{path}: holds values of other estimators; give another file")
        for choices, (a, b) in content["values"]:
            found.values[search.space.architecture(choices, where=str(path))] = (a, b)
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path}: damaged: {error!r}") from error


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
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    said = found.agreement()
    axes.set_title(
        f"{len(first)} architectures: Spearman {said['spearman']:.3f}, "
        f"Kendall {said['kendall']:.3f}",
        fontsize=10,
    )
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
