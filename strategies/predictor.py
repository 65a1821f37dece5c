"""Predictor-guided search: a Gaussian process proposes what it expects to improve most.

After White, Neiswanger and Savani, BANANAS: Bayesian Optimization with Neural Architectures for
Neural Architecture Search, AAAI 2021, Algorithm 1: https://arxiv.org/abs/1910.11858. As there: a
predictor is fitted to all that was measured, and the best of many mutations by an acquisition
function is measured next. The predictor is a Gaussian process (as in Ru et al., Interpretable
Neural Architecture Search via Bayesian Optimisation with Weisfeiler-Lehman Kernels, ICLR 2021),
which at some hundred trials is both better and cheaper than an ensemble of networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from nasengine.architecture import Architecture
from nasengine.errors import SpecError
from nasengine.graph import SpaceGraph
from nasengine.history import History
from nasengine.moves import mutate, neighbours, sample
from nasengine.randomness import stream
from nasengine.strategy import Strategy

from .belief import Belief
from .unseen import Unseen, searchable

if TYPE_CHECKING:
    from nasengine.search import Search

REFRESH = 10
"""Every so many trials the random candidates are drawn anew: their features are what costs most."""


class Predictor(Strategy):
    """Predictor-guided search (a Gaussian process over the graph): the fewest trials."""

    initial: int = Field(default=10, ge=2)
    """Random architectures to start with."""

    parents: int = Field(default=5, ge=1)
    """How many of the best have all their neighbours among the candidates; with several
    objectives, four times as many of the front."""

    candidates: int = Field(default=200, ge=1)
    """Further candidates, half of them random and half two mutations away from the best."""

    def propose(self, history: History, count: int, search: Search) -> Sequence[Architecture]:
        """Return the unseen candidates of which the most is expected."""
        rng = search.stream("predictor", len(history))
        unseen = Unseen(history, search, rng)
        if len(history) < self.initial:
            return unseen.samples(min(count, self.initial - len(history)))
        if not searchable(history.complete, search.space):
            return unseen.samples(count)
        belief = Belief(history, search)
        several = len(search.objectives.goals) > 1
        parents = belief.parents(4 * self.parents if several else self.parents, rng)
        pool = self._pool(parents, len(history), search)
        found: list[Architecture] = []
        while len(found) < count:
            order = np.argsort(-belief.worth(pool, rng), kind="stable")
            best = unseen.first(pool[index] for index in order) or unseen.sample()
            if best is None:
                break
            found.append(best)
            belief.imagine([best])
        return found

    def check(self, search: Search) -> None:
        """Refuse a search without a goal.

        Raises
        ------
        SpecError
            If the objectives are limits only.
        """
        if not search.objectives.goals:
            raise SpecError("objectives: the strategy predictor needs at least one goal")

    def _pool(
        self, parents: Sequence[Architecture], number: int, search: Search
    ) -> list[Architecture]:
        """Return the candidates, each once: around the parents, and anywhere."""
        decisions = search.space.decisions
        near = (n for parent in parents for n in neighbours(parent, decisions))
        far = _far(search.space.graph, search.seed, number // REFRESH, self.candidates // 2)
        rng = search.stream("predictor", "mutations", number)
        further = (
            mutate(mutate(parents[index % len(parents)], decisions, rng), decisions, rng)
            for index in range(self.candidates - len(far))
        )
        return list(dict.fromkeys([*near, *far, *further]))


@lru_cache(maxsize=8)
def _far(graph: SpaceGraph, seed: int, block: int, count: int) -> tuple[Architecture, ...]:
    rng = stream(seed, "predictor", "candidates", block)
    return tuple(sample(graph.decisions, rng) for _ in range(count))
