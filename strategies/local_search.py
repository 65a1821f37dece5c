"""Local search: try the neighbours of the best; with several objectives, of the front.

- White, Nolen and Savani, Exploring the Loss Landscape in Neural Architecture Search, UAI 2021,
  Algorithm 1: https://arxiv.org/abs/2005.02960
- Paquete, Chiarandini and Stützle, Pareto Local Optimum Sets in the Biobjective Traveling Salesman
  Problem, 2004, for several objectives.

A better neighbour is moved to as soon as it is measured, and so is one that is level: the way off a
plateau, as the accuracy on few samples has, leads over it (sideways moves: Selman, Levesque and
Mitchell, A New Method for Solving Hard Satisfiability Problems, AAAI 1992). Where none is left to
measure, the climb has ended in a local optimum, and another begins at a random architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from pydantic import Field

from nasengine.architecture import Architecture
from nasengine.history import History
from nasengine.strategy import Strategy
from nasengine.unseen import Unseen

from .ignored import warn_if_all_random
from .open_trials import open_trials

if TYPE_CHECKING:
    from nasengine.search import Search


class LocalSearch(Strategy):
    """Local search: the neighbours of the best trial, or of the front, one after the other."""

    initial: int = Field(default=10, ge=1)
    """Random architectures to start with; the climb begins at the best of them."""

    def propose(self, history: History, count: int, search: Search) -> Sequence[Architecture]:
        """Return unmeasured neighbours of the best trial that has some."""
        rng = search.stream("local_search", len(history))
        unseen = Unseen(history, search, rng)
        if len(history) < self.initial:
            return unseen.samples(min(count, self.initial - len(history)))
        trials = open_trials(history, search, self.initial)
        found: list[Architecture] = []
        for centre in trials.centres(rng):
            around = reversed(trials.unmeasured(centre, history))
            found += islice(filter(unseen.take, around), count - len(found))
            if len(found) == count:
                return found
        return found + unseen.samples(count - len(found))

    def check(self, search: Search) -> None:
        """Warn of a budget that ends before the climb begins."""
        warn_if_all_random(self, "initial", search)
