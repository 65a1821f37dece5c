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
from nasengine.unseen import TRIES, Unseen

from .generations import survivors
from .ignored import refuse_ignored, warn_if_all_random

if TYPE_CHECKING:
    from nasengine.search import Search


class Evolution(Strategy):
    """Evolution: regularised (ageing) for one objective, NSGA-II for several."""

    population: int = Field(default=20, ge=2)
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
        return unseen.samples(count, lambda: islice(children, TRIES))

    def check(self, search: Search) -> None:
        """Refuse a setting of the other form, and warn of a budget that ends before a child.

        Raises
        ------
        SpecError
            Naming the setting.
        """
        if len(search.objectives.goals) > 1:
            refuse_ignored(self, sample="with several goals, tournaments are NSGA-II's, of two")
        else:
            refuse_ignored(self, crossover="with one goal, a child has one parent (Real et al.)")
        warn_if_all_random(self, "population", search)

    def _regularised(
        self, history: History, search: Search, rng: random.Random
    ) -> Iterator[Architecture]:
        """Yield children as Real et al. make them: the oldest trials are out, however good."""
        population = history.measured[: -self.population - 1 : -1]
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
