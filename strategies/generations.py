"""The generations of NSGA-II, read from the history.

A generation is so many measured trials. The parents of the next one are the best of the parents
of the last and of what they gave.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nasengine.history import History
from nasengine.objectives import Objectives
from nasengine.trial import Trial

from .kept import Copyable, read

if TYPE_CHECKING:
    from nasengine.search import Search


@dataclass
class Generations(Copyable):
    """The parents of the present generation, and what they gave so far."""

    population: int
    objectives: Objectives
    parents: list[Trial] = field(default_factory=list)
    children: list[Trial] = field(default_factory=list)

    def take(self, trial: Trial) -> None:
        """Add a child; when the generation is complete, the fittest are the next parents."""
        self.children.append(trial)
        if len(self.children) == self.population:
            self.parents = fittest(
                [*self.parents, *self.children], self.population, self.objectives
            )
            self.children = []

    def copy(self) -> Generations:
        """Return one that goes on by itself."""
        return replace(self, children=list(self.children))


def survivors(history: History, population: int, search: Search) -> list[Trial]:
    """Return the parents of the present generation, the fittest first.

    Parameters
    ----------
    history
        What was measured so far.
    population
        Trials in a generation, and parents kept.
    search
        Its objectives say which are fitter.
    """
    objectives = search.objectives
    found = read(
        history, search, Generations, lambda: Generations(population, objectives), population
    )
    return found.parents or fittest(found.children, population, objectives)


def fittest(trials: Sequence[Trial], count: int, objectives: Objectives) -> list[Trial]:
    """Return the first so many trials by front, within a front by crowding distance."""
    ranks = objectives.ranks(trials)
    fronts: dict[int, list[int]] = {}
    for index, rank in enumerate(ranks):
        fronts.setdefault(rank, []).append(index)
    distance: dict[int, float] = {}
    for front in fronts.values():
        points = [objectives.standing(trials[index]) for index in front]
        distance.update(zip(front, crowding(points), strict=True))
    order = sorted(range(len(trials)), key=lambda i: (ranks[i], -distance[i], i))
    return [trials[index] for index in order[:count]]


def crowding(points: Sequence[Sequence[float]]) -> list[float]:
    """Return how far apart each point's neighbours on its front are, goal by goal, summed.

    Examples
    --------
    >>> crowding([(0.0, 4.0), (1.0, 1.0), (4.0, 0.0)])
    [inf, 2.0, inf]
    """
    total = [0.0] * len(points)
    for values in zip(*points, strict=True):
        order = sorted(range(len(points)), key=values.__getitem__)
        span = values[order[-1]] - values[order[0]]
        if not span or not math.isfinite(span):
            continue
        total[order[0]] = total[order[-1]] = math.inf
        for before, index, after in zip(order, order[1:], order[2:], strict=False):
            total[index] += (values[after] - values[before]) / span
    return total
