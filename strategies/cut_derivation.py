"""From scores to architectures where a choice may cut a connection: sums propose, tables judge.

What a cut leaves without use costs nothing, so that a network's cost is no sum of its choices'.
Small spaces are listed; in larger ones the best by their sums, under limits relaxed more and more,
are weighed. Where none of these is within the limits, the nearest is changed for as long as that
leads nearer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations, product
from math import inf, prod
from typing import TYPE_CHECKING

from .derivation import best_choices

if TYPE_CHECKING:
    from .costs import Cost

LISTED = 20_000
"""Spaces up to this size are listed."""

_RELAXED = (1.0, 1.5, 2.0, 4.0, inf)
"""Times the limits, under which sums propose: a network costs less than its sum."""

_PROPOSED = 512
"""How many are proposed at each."""

Choices = tuple[int, ...]
Rank = tuple[float, float, float, Choices]
"""How far beyond the limits, how far below the floors, the score with its sign changed."""


def best_within(
    scores: Mapping[str, Sequence[float]],
    costs: Sequence[Cost],
    limits: Mapping[str, float],
    floors: Mapping[str, float],
    count: int,
    decisions: Mapping[str, Sequence[str]],
) -> list[Choices]:
    """Return what `best_choices` does, with the costs of whole networks, cuts included.

    Parameters
    ----------
    scores, costs, limits, floors, count
        As for `best_choices`.
    decisions
        Decision to its choices.
    """
    limited = [cost for cost in costs if cost.key in limits]
    if not any(cost.cuts for cost in limited):
        return best_choices(scores, costs, limits, floors, count)
    weighed = _Weighed(scores, limited, limits, floors, decisions)
    nearest = min(map(weighed.rank, _proposed(scores, costs, limits, count)))
    if nearest[0] > 0:
        weighed.go_on_from(nearest)
    within = [rank for rank in weighed.ranks.values() if rank[0] <= 0]
    above = [rank for rank in within if rank[1] <= 0]
    return [rank[-1] for rank in sorted(above or within, key=lambda rank: rank[2:])[:count]]


@dataclass
class _Weighed:
    """Whole networks, ranked: the best is the least."""

    scores: Mapping[str, Sequence[float]]
    limited: Sequence[Cost]
    limits: Mapping[str, float]
    floors: Mapping[str, float]
    decisions: Mapping[str, Sequence[str]]
    ranks: dict[Choices, Rank] = field(default_factory=dict)

    def rank(self, choices: Choices) -> Rank:
        """Return the rank of a network, and keep it."""
        if choices not in self.ranks:
            self.ranks[choices] = self._rank(choices)
        return self.ranks[choices]

    def _rank(self, choices: Choices) -> Rank:
        chosen = dict(zip(self.scores, choices, strict=True))
        named = {name: self.decisions[name][index] for name, index in chosen.items()}
        beyond = below = 0.0
        for cost in self.limited:
            value, most = cost.predict(named, self.decisions), self.limits[cost.key]
            beyond += max(0.0, value - most) / (most or 1.0)
            below += max(0.0, self.floors.get(cost.key, -inf) - value)
        return beyond, below, -sum(self.scores[n][i] for n, i in chosen.items()), choices

    def go_on_from(self, best: Rank) -> None:
        """Change one choice for as long as that is better; two at once on the way to the limits."""
        while True:
            near = self._changed(best[-1], 1)
            if best[0] > 0:
                near = chain(near, self._changed(best[-1], 2))
            better = next((r for r in map(self.rank, near) if r[:3] < best[:3]), None)
            if better is None:
                return
            best = better

    def _changed(self, choices: Choices, count: int) -> Iterator[Choices]:
        sizes = [len(row) for row in self.scores.values()]
        for places in combinations(range(len(sizes)), count):
            for new in product(*(range(sizes[place]) for place in places)):
                changed = dict(zip(places, new, strict=True))
                yield tuple(changed.get(i, choice) for i, choice in enumerate(choices))


def _proposed(
    scores: Mapping[str, Sequence[float]],
    costs: Sequence[Cost],
    limits: Mapping[str, float],
    count: int,
) -> list[Choices]:
    sizes = [len(row) for row in scores.values()]
    if prod(sizes) <= LISTED:
        return list(product(*(range(size) for size in sizes)))
    found: dict[Choices, None] = {}
    for times in _RELAXED:
        relaxed = {} if times == inf else {key: times * most for key, most in limits.items()}
        more = best_choices(scores, costs, relaxed, {}, max(count, _PROPOSED))
        found.update(dict.fromkeys(more))
    return list(found)
