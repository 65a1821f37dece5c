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
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING

from pydantic import Field

from nasengine.architecture import Architecture
from nasengine.history import History
from nasengine.moves import cross_over, mutate
from nasengine.objectives import Objectives
from nasengine.strategy import Strategy
from nasengine.trial import Trial
from nasengine.unseen import TRIES, Unseen

from .generations import survivors
from .ignored import refuse_ignored, warn_if_all_random
from .kept import Copyable, read

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
        population = youngest(history, self.population, search)
        while population:
            tournament = rng.choices(population, k=self.sample)
            _, parent = min(tournament, key=_standing)
            yield mutate(parent, search.space.decisions, rng)

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


Individual = tuple[tuple[float, ...], Architecture]
"""An architecture after its standing (`Objectives.standing`): lower is fitter."""

_standing = itemgetter(0)


@dataclass
class Youngest(Copyable):
    """The last trials that were measured, the very last one first."""

    count: int
    objectives: Objectives
    individuals: list[Individual] = field(default_factory=list)

    def take(self, trial: Trial) -> None:
        """Put a trial in, and the oldest out."""
        self.individuals.insert(0, (self.objectives.standing(trial), trial.architecture))
        del self.individuals[self.count :]

    def copy(self) -> Youngest:
        """Return one that goes on by itself."""
        return replace(self, individuals=list(self.individuals))


def youngest(history: History, count: int, search: Search) -> list[Individual]:
    """Return the population of regularised evolution. Not to be changed."""
    make = partial(Youngest, count, search.objectives)
    return read(history, search, Youngest, make, count).individuals
