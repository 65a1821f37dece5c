"""Goals and limits: which trial is better, which is feasible, which are on the front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nasengine.trial import Direction, Measurement, Trial


@dataclass(frozen=True)
class Objective:
    """What is wanted of one metric.

    Parameters
    ----------
    metric
        A metric's full name: ``iou``, ``latency``, ``iou.precision``.
    goal
        ``max`` or ``min``; None for a limit alone.
    at_most, at_least
        Limits in the metric's unit; None for none.
    """

    metric: str
    goal: Direction | None = None
    at_most: float | None = None
    at_least: float | None = None

    def violation(self, value: float) -> float:
        """Return by how much a value breaks the limits, relative to them; 0 when it keeps them.

        Examples
        --------
        >>> Objective("latency", at_most=5.0).violation(6.0)
        0.2
        """
        over = 0.0
        if self.at_most is not None and not value <= self.at_most:
            over = max(over, (value - self.at_most) / (abs(self.at_most) or 1.0))
        if self.at_least is not None and not value >= self.at_least:
            over = max(over, (self.at_least - value) / (abs(self.at_least) or 1.0))
        return math.inf if math.isnan(value) else over


@dataclass(frozen=True)
class Objectives:
    """All goals and limits of a search.

    Parameters
    ----------
    items
        In the order of the spec; the first with a goal is the primary one.
    """

    items: tuple[Objective, ...]

    @property
    def goals(self) -> tuple[Objective, ...]:
        """The objectives that are optimised."""
        return tuple(item for item in self.items if item.goal is not None)

    @property
    def limits(self) -> tuple[Objective, ...]:
        """The objectives that have a limit."""
        return tuple(i for i in self.items if i.at_most is not None or i.at_least is not None)

    def losses(self, trial: Trial) -> tuple[float, ...]:
        """Return the goals as values to be minimised, in order."""
        return tuple(
            trial.value(goal.metric) * (-1.0 if goal.goal == "max" else 1.0) for goal in self.goals
        )

    def violations(self, measurements: Mapping[str, Measurement]) -> dict[str, float]:
        """Return the limits that are broken, by metric, among those measured so far."""
        broken = {
            limit.metric: limit.violation(measurements[limit.metric].value)
            for limit in self.limits
            if limit.metric in measurements
        }
        return {metric: amount for metric, amount in broken.items() if amount > 0}

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """Return the complete trial that is best by the only goal, or the front's knee.

        The knee is the point of the front nearest to the ideal one, each goal scaled to the
        front's own range; ties go to the earlier trial.
        """
        front = self.front(trials)
        if not front:
            return None
        points = [self.losses(trial) for trial in front]
        low = [min(column) for column in zip(*points, strict=True)]
        span = [
            max(column) - least or 1.0
            for column, least in zip(zip(*points, strict=True), low, strict=True)
        ]

        def distance(index: int) -> tuple[float, int]:
            scaled = [(v - least) / s for v, least, s in zip(points[index], low, span, strict=True)]
            return math.hypot(*scaled), front[index].number

        return front[min(range(len(front)), key=distance)]

    def front(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return the complete trials that no other dominates, the earliest of equals."""
        complete = [t for t in trials if t.reason == "" and t.status.value == "complete"]
        points = [self.losses(trial) for trial in complete]
        kept = non_dominated(points)
        return [complete[index] for index in kept]


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Say whether a is no worse than b everywhere and better somewhere (lower is better)."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(
        x < y for x, y in zip(a, b, strict=True)
    )


def non_dominated(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices of the points that no other dominates, the first of equal ones.

    Examples
    --------
    >>> non_dominated([(1, 2), (2, 1), (2, 2), (1, 2)])
    [0, 1]
    """
    kept: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (tuple(points[i]), i)):
        point = points[index]
        if not any(
            dominates(points[other], point) or tuple(points[other]) == tuple(point)
            for other in kept
        ):
            kept.append(index)
    return sorted(kept)


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Return the volume that points dominate, up to a reference point (lower is better).

    By slicing along the first coordinate (While et al. 2006); meant for fronts of up to some
    hundred points and two to four goals.

    Examples
    --------
    >>> hypervolume([(0.0, 1.0), (1.0, 0.0)], (2.0, 2.0))
    3.0
    """
    inside = sorted(
        {tuple(p) for p in points if all(v < r for v, r in zip(p, reference, strict=True))}
    )
    if not inside:
        return 0.0
    if len(reference) == 1:
        return float(reference[0] - inside[0][0])
    total = 0.0
    for index, point in enumerate(inside):
        end = inside[index + 1][0] if index + 1 < len(inside) else reference[0]
        if end > point[0]:
            slab = [p[1:] for p in inside[: index + 1]]
            total += (end - point[0]) * hypervolume(slab, reference[1:])
    return total
