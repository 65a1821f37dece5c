"""Searches for several goals are compared by their whole fronts: by the volume that these dominate.

A front's knee says little of the search: it lies where that front's own ends put it, so that a
front better everywhere may well have a knee that is worse by the first goal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from nasengine.objectives import hypervolume
from nasengine.studies.summary import Summary
from nasengine.trial import Metric

VOLUME = "front's hypervolume"
"""The metric by which fronts are compared; no estimator's metric can have that name."""

MOST = 3
"""Goals up to which a volume is computed in a moment."""

MARGIN = 0.1
"""How far beyond the worst of all fronts volume counts, as a share of their range."""


def with_volumes(summaries: Iterable[Summary]) -> list[Summary]:
    """Return runs with `VOLUME` among their values, where they have two to `MOST` goals.

    Each goal is scaled to the range of all the fronts, so that the volume of a run depends on
    what it is compared with: 1 is the whole box, which no front fills.
    """
    runs = list(summaries)
    columns = columns_of(runs)
    if not columns:
        return runs
    fronts = {index: points for index, run in enumerate(runs) if (points := _points(run, columns))}
    low, span = _range([point for points in fronts.values() for point in points])
    for index, points in fronts.items():
        scaled = [
            [(value - least) / wide for value, least, wide in zip(point, low, span, strict=True)]
            for point in points
        ]
        corner = [1 + MARGIN] * len(low)
        volume = hypervolume(scaled, corner) / math.prod(corner)
        run = runs[index]
        runs[index] = replace(
            run,
            values={**run.values, VOLUME: volume},
            metrics={**run.metrics, VOLUME: Metric(VOLUME, "", "max")},
        )
    return runs


def columns_of(runs: Sequence[Summary]) -> dict[str, str]:
    """Return goal to the metric that it is compared by; nothing where no fronts are compared.

    That is the goal's on the test split where all networks of all fronts have it.
    """
    searches = [run for run in runs if run.front]
    if not searches or not 2 <= len(searches[0].goals) <= MOST:
        return {}
    members = [network for run in searches for network in run.front]
    tests = searches[0].tests
    return {
        goal: test if (test := tests.get(goal, "")) and all(test in m for m in members) else goal
        for goal in searches[0].goals
    }


def _points(run: Summary, columns: dict[str, str]) -> list[list[float]]:
    """Return a front as losses: lower is better."""
    signs = [-run.metrics[goal].sign for goal in columns if run.front]
    return [
        [sign * network[name] for sign, name in zip(signs, columns.values(), strict=True)]
        for network in run.front
        if all(name in network for name in columns.values())
    ]


def _range(points: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Return the least of each goal, and how far the values reach; 1 where they do not vary."""
    columns = list(zip(*points, strict=True))
    return [min(c) for c in columns], [(max(c) - min(c)) or 1.0 for c in columns]
