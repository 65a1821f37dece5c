"""Evolution: regularised for one objective, NSGA-II for several.

- Real, Aggarwal, Huang and Le, Regularized Evolution for Image Classifier Architecture Search,
  AAAI 2019, Algorithm 1: https://arxiv.org/abs/1802.01548
- Deb, Pratap, Agarwal and Meyarivan, A Fast and Elitist Multiobjective Genetic Algorithm:
  NSGA-II, IEEE Transactions on Evolutionary Computation 6(2), 2002.

Feasibility first in both: a trial that breaks a limit is worse than any that breaks none.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from pydantic import Field

from nasengine.architecture import Architecture
from nasengine.history import History
from nasengine.moves import cross_over, mutate
from nasengine.strategy import Strategy
from nasengine.trial import Trial

from .generations import survivors
from .unseen import TRIES, Unseen, is_searchable

if TYPE_CHECKING:
    from nasengine.search import Search


class Evolution(Strategy):
    """Evolution: regularised (ageing) for one objective, NSGA-II for several."""

    population: int = Field(default=50, ge=2)
    """Architectures that can be parents; the first so many are random."""

    sample: int = Field(default=10, ge=1)
    """Drawn for each tournament of the regularised form, whose best is the parent; NSGA-II's
    tournaments are of two."""

    crossover: float = Field(default=0.5, ge=0, le=1)
    """Probability that an NSGA-II child has two parents, before it is mutated."""

    def propose(self, history: History, count: int, search: Search) -> Sequence[Architecture]:
        """Return children of the fitter part of the population."""
        rng = search.stream("evolution", len(history))
        unseen = Unseen(history, search, rng)
        if len(history) < self.population:
            return unseen.samples(min(count, self.population - len(history)))
        several = len(search.objectives.goals) > 1
        breed = self._nsga2 if several else self._regularised
        children = breed(history, search, rng)
        found: list[Architecture] = []
        for _ in range(count):
            child = unseen.first(islice(children, TRIES)) or unseen.sample()
            if child is None:
                break
            found.append(child)
        return found

    def _regularised(
        self, history: History, search: Search, rng: random.Random
    ) -> Iterator[Architecture]:
        """Yield children as Real et al. make them: the oldest trials are out, however good."""
        population = youngest(history, self.population, search)
        while population:
            tournament = rng.choices(population, k=self.sample)
            parent = min(tournament, key=search.objectives.standing)
            yield mutate(parent.architecture, search.space.decisions, rng)

    def _nsga2(
        self, history: History, search: Search, rng: random.Random
    ) -> Iterator[Architecture]:
        """Yield children of binary tournaments by front, then by distance to the neighbours."""
        parents = survivors(history, self.population, search)

        def tournament() -> Architecture:
            # Survivors are in order of fitness: the lower index of two wins.
            return parents[min(rng.choices(range(len(parents)), k=2))].architecture

        while parents:
            child = tournament()
            if rng.random() < self.crossover:
                child = cross_over(child, tournament(), rng)
            yield mutate(child, search.space.decisions, rng)


def youngest(history: History, count: int, search: Search) -> list[Trial]:
    """Return the last trials that were measured: the population of regularised evolution."""
    found: list[Trial] = []
    for trial in reversed(history.measured):
        if is_searchable(trial, search.space):
            found.append(trial)
            if len(found) == count:
                break
    return found
