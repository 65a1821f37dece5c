"""Predictor-guided search: a Gaussian process proposes what it expects to improve most.

After White, Neiswanger and Savani, BANANAS: Bayesian Optimization with Neural Architectures for
Neural Architecture Search, AAAI 2021, Algorithm 1: https://arxiv.org/abs/1910.11858. As there: a
predictor is fitted to all that was measured, and the best of many candidates by an acquisition
function is measured next: of random ones and the neighbours of the best trials, and uphill from
there. The predictor is a Gaussian process (as in Ru et al., Interpretable Neural Architecture
Search via Bayesian Optimisation with Weisfeiler-Lehman Kernels, ICLR 2021), which at some hundred
trials is both better and cheaper than an ensemble of networks. What failed has no value, and
tells how likely others fail (Gelbart, Snoek and Adams 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from nasengine.architecture import Architecture
from nasengine.errors import SpecError
from nasengine.history import History
from nasengine.strategy import Strategy
from nasengine.unseen import Unseen

from .ignored import refuse_ignored, warn_if_all_random

if TYPE_CHECKING:
    from nasengine.search import Search


class Predictor(Strategy):
    """Predictor-guided search (a Gaussian process over the graph): the fewest trials."""

    initial: int = Field(default=10, ge=2)
    """Random architectures to start with."""

    parents: int = Field(default=5, ge=1)
    """How many of the best have all their neighbours among the candidates, where these are not
    the whole space; with several objectives, four times as many of the front."""

    candidates: int = Field(default=1000, ge=1)
    """Further candidates, drawn at random once; a smaller space is a candidate as a whole."""

    def propose(self, history: History, count: int, search: Search) -> Sequence[Architecture]:
        """Return the unseen candidates of which the most is expected."""
        from .belief import Belief

        rng = search.stream("predictor", len(history))
        unseen = Unseen(history, search, rng)
        if len(history) < self.initial:
            return unseen.samples(min(count, self.initial - len(history)))
        if not history.measured:
            return unseen.samples(count)
        belief = Belief(history, search, self.candidates)
        several = len(search.objectives.goals) > 1
        parents = belief.parents(4 * self.parents if several else self.parents, rng)
        found: list[Architecture] = []
        while len(found) < count:
            best = belief.climb(parents, unseen, search) or unseen.sample()
            if best is None:
                break
            unseen.take(best)
            found.append(best)
            belief.imagine(best)
        return found

    def check(self, search: Search) -> None:
        """Refuse a search without a goal, and neighbours where all are candidates.

        And warn of a budget that ends before anything is predicted.

        Raises
        ------
        SpecError
            If the objectives are limits only; naming the setting.
        """
        if not search.objectives.goals:
            raise SpecError("objectives: the strategy predictor needs at least one goal")
        if search.space.size <= self.candidates:
            size = search.space.size
            refuse_ignored(self, parents=f"all {size} architectures of the space are candidates")
        warn_if_all_random(self, "initial", search)
