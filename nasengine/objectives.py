"""Goals and limits: which trial is better, which is feasible, which are on the front."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from nasengine.screen import Screen
from nasengine.trial import Direction, Measurement, Status, Trial


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
    screen
        Which share of the trials goes on to what is measured after it; None for all.
    """

    metric: str
    goal: Direction | None = None
    at_most: float | None = None
    at_least: float | None = None
    screen: Screen | None = None

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

    def asked(self, write: Callable[[float], str] = "{:g}".format) -> str:
        """Say the limits; `write` writes a value.

        Examples
        --------
        >>> Objective("latency", at_most=5.0).asked()
        'at most 5'
        """
        said = [(self.at_most, "at most"), (self.at_least, "at least")]
        return " and ".join(f"{words} {write(limit)}" for limit, words in said if limit is not None)


@dataclass(frozen=True)
class Objectives:
    """All goals and limits of a search.

    Parameters
    ----------
    items
        In the order of the spec; the first with a goal is the primary one.
    """

    items: tuple[Objective, ...]

    @cached_property
    def goals(self) -> tuple[Objective, ...]:
        """The objectives that are optimised."""
        return tuple(item for item in self.items if item.goal is not None)

    @cached_property
    def limits(self) -> tuple[Objective, ...]:
        """The objectives that have a limit."""
        return tuple(i for i in self.items if i.at_most is not None or i.at_least is not None)

    @cached_property
    def screens(self) -> dict[str, Screen]:
        """What decides, by metric, whether a trial is measured further."""
        return {item.metric: item.screen for item in self.items if item.screen is not None}

    def bars(self, others: Iterable[Trial]) -> dict[str, float]:
        """Return what a trial has to reach to go on, by metric, given other trials."""
        found: dict[str, float] = {}
        if not self.screens:
            return found
        # By key: what was proposed again was not measured again.
        networks = {trial.key: trial.measurements for trial in others if trial.measurements}
        for metric, screen in self.screens.items():
            bar = screen.bar([m[metric].value for m in networks.values() if metric in m])
            if bar is not None:
                found[metric] = bar
        return found

    @property
    def recommendation(self) -> str:
        """What `best` is: ``best``, ``best under limits``, or the front's ``knee``."""
        if len(self.goals) > 1:
            return "knee"
        return "best under limits" if self.limits else "best"

    def losses(self, trial: Trial) -> tuple[float, ...]:
        """Return the goals as values to be minimised, in order; what is not a number is worst."""
        return tuple([_loss(trial.value(goal.metric), goal.goal) for goal in self.goals])

    def standing(self, trial: Trial) -> tuple[float, ...]:
        """Return a measured trial's place as a tuple to be minimised, feasibility first.

        A feasible trial's is 0 and its losses; another's, which may have been measured only in
        part, is the sum of what it breaks. With one goal this orders all trials; with several, a
        trial that dominates another comes before it (Deb 2000). One that a screen held back keeps
        the limits: it comes between, the sooner the later the screen, then the better it did there.
        """
        if trial.status is Status.COMPLETE:
            return (0.0, *self.losses(trial))
        if trial.status is Status.SCREENED:
            return (self._short_of(trial.measurements),)
        broken = sum(self.violations(trial.measurements).values()) or math.inf
        return (len(self.screens) + broken,)

    def _short_of(self, measurements: Mapping[str, Measurement]) -> float:
        """Return how far from the last screen a trial was held back, in screens."""
        further = sum(metric not in measurements for metric in self.screens)
        return further + max(
            (
                self.screens[metric].distance(measurements[metric].value)
                for metric in self.held_back(measurements)
            ),
            default=1.0,
        )

    def ranks(self, trials: Sequence[Trial]) -> list[int]:
        """Sort measured trials into fronts: 0 for those that no other dominates, then 1, ...

        Every feasible trial comes before every infeasible one; infeasible ones are ranked by how
        much they break (constrained domination, Deb et al. 2002).
        """
        standings = [self.standing(trial) for trial in trials]
        ranks = [0] * len(trials)
        left = [index for index, standing in enumerate(standings) if standing[0] == 0.0]
        rank = 0
        while left:
            front = {left[i] for i in non_dominated([standings[j] for j in left], equal=True)}
            for index in front:
                ranks[index] = rank
            left = [index for index in left if index not in front]
            rank += 1
        broken = sorted({standing[0] for standing in standings if standing[0] != 0.0})
        places = {amount: rank + place for place, amount in enumerate(broken)}
        return [places.get(standings[i][0], ranks[i]) for i in range(len(trials))]

    def violations(self, measurements: Mapping[str, Measurement]) -> dict[str, float]:
        """Return the limits that are broken, by metric, among those measured so far."""
        broken = {
            limit.metric: limit.violation(measurements[limit.metric].value)
            for limit in self.limits
            if limit.metric in measurements
        }
        return {metric: amount for metric, amount in broken.items() if amount > 0}

    def held_back(self, measurements: Mapping[str, Measurement]) -> list[str]:
        """Return the metrics whose screens kept a trial from going on."""
        return [
            metric
            for metric, screen in self.screens.items()
            if metric in measurements and screen.holds_back(measurements[metric])
        ]

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """Return the complete trial that is best by the only goal, or the front's knee.

        The knee is the point of the front nearest to the ideal one, each goal scaled to the
        front's own range; ties go to the better by the first goal, then by the next. Of a front
        of two each is the other's extreme, and nothing lies between: that rule alone decides.
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

        def place(index: int) -> tuple[float, tuple[float, ...], int]:
            scaled = [(v - least) / s for v, least, s in zip(points[index], low, span, strict=True)]
            far = math.hypot(*scaled)
            if not math.isfinite(far):
                far = math.inf
            elif len(front) == 2:
                far = 0.0
            # Rounded, or the last bit of a quotient would decide a tie.
            return round(far, 12), points[index], front[index].number

        return front[min(range(len(front)), key=place)]

    def front(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return the complete trials that no other dominates, the earliest of equals."""
        complete = [trial for trial in trials if trial.status is Status.COMPLETE]
        points = [self.losses(trial) for trial in complete]
        return [complete[index] for index in non_dominated(points)]


def _loss(value: float, goal: Direction | None) -> float:
    if math.isnan(value):
        return math.inf
    return -value if goal == "max" else value


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Say whether a is no worse than b everywhere and better somewhere (lower is better)."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(
        x < y for x, y in zip(a, b, strict=True)
    )


def precedes(a: Sequence[float], b: Sequence[float]) -> bool:
    """Say whether one standing dominates another, feasibility first (`Objectives.standing`).

    Examples
    --------
    >>> precedes((0.0, 9.0, 9.0), (0.1,)), precedes((0.1,), (0.2,)), precedes((0, 1, 2), (0, 2, 1))
    (True, True, False)
    """
    if a[0] == b[0] == 0.0:
        return dominates(a, b)
    return a[0] < b[0]


def non_dominated(points: Sequence[Sequence[float]], *, equal: bool = False) -> list[int]:
    """Return the indices of the points that no other dominates, in order.

    Parameters
    ----------
    points
        (points, goals); lower is better.
    equal
        Whether to keep all of several equal points, or only the first.

    Examples
    --------
    >>> non_dominated([(1, 2), (2, 1), (2, 2), (1, 2)])
    [0, 1]
    >>> non_dominated([(1, 2), (2, 1), (2, 2), (1, 2)], equal=True)
    [0, 1, 3]
    """
    if len(points) == 0:
        return []
    import numpy as np

    table = np.asarray(points, dtype=float)
    # In lexicographic order a point can be dominated only by an earlier one.
    left = np.lexsort((np.arange(len(table)), *table.T[::-1]))
    kept: list[int] = []
    while left.size:
        first, others = table[left[0]], table[left]
        same = (others == first).all(axis=1)
        kept.extend((left[same] if equal else left[:1]).tolist())
        left = left[~(others >= first).all(axis=1)]
    return sorted(kept)


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Return the volume that points dominate, up to a reference point (lower is better).

    By slicing along the first coordinate (While et al. 2006), two goals by a sweep; meant for
    fronts of up to some hundred points and two to four goals.

    Examples
    --------
    >>> hypervolume([(0.0, 1.0), (1.0, 0.0)], (2.0, 2.0))
    3.0
    >>> hypervolume([(0.0, 1.0, 0.0), (1.0, 0.0, 0.0)], (2.0, 2.0, 1.0))
    3.0
    """
    inside = sorted(
        {
            tuple(map(float, point))
            for point in points
            if all(value < limit for value, limit in zip(point, reference, strict=True))
        }
    )
    if not inside:
        return 0.0
    if len(reference) == 1:
        return float(reference[0] - inside[0][0])
    ends = [point[0] for point in inside[1:]] + [float(reference[0])]
    total, lowest = 0.0, float(reference[1])
    for index, (point, end) in enumerate(zip(inside, ends, strict=True)):
        lowest = min(lowest, point[1])
        if end == point[0]:
            continue
        if len(reference) == 2:
            total += (end - point[0]) * (reference[1] - lowest)
        else:
            slab = [other[1:] for other in inside[: index + 1]]
            total += (end - point[0]) * hypervolume(slab, reference[1:])
    return total
