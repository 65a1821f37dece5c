"""From scores to architectures: the best sums of one choice a decision, under limits on cost.

A knapsack with one item of each group (multiple-choice knapsack), by dynamic programming over the
decisions. Partial sums that fall into one cell of a grid over the costs compete; the costs
themselves are never rounded, so that a limit that is met here is met exactly. A cost of several
decisions together (of a block at searched channels) is added with the last of them; until then
only partial architectures that agree in the others compete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .costs import Cost
    from .terms import Floats

_CELLS = 4096
_STATES = 2**17
"""Partial architectures that are kept: where many are asked for, of fewer cells."""
_GROWN = 2**20
"""Partial architectures at most, once each is extended by a decision's choices."""
_LEAST_CELLS = 16
_SLACK = 1e-12
"""Relative: sums in another order differ by rounding."""


class _Partial(NamedTuple):
    """Partial architectures: scores (S,), costs (S, limits), choices (S, decisions so far)."""

    scores: Floats
    costs: Floats
    choices: npt.NDArray[np.int32]

    def take(self, indices: npt.NDArray[np.intp]) -> _Partial:
        return _Partial(self.scores[indices], self.costs[indices], self.choices[indices])


def best_choices(
    scores: Mapping[str, Sequence[float]],
    costs: Sequence[Cost],
    limits: Mapping[str, float],
    floors: Mapping[str, float],
    count: int,
) -> list[tuple[int, ...]]:
    """Return the choices with the highest sums of scores, best first.

    Parameters
    ----------
    scores
        Decision to the score of each choice, such as the logarithm of its probability.
    costs
        The costs that the limits speak of.
    limits
        Cost to the most that a whole network may have. With one limit, something is found
        whenever anything meets it.
    floors
        Cost to the least; given up where nothing is found between floor and limit.
    count
        How many at most.

    Returns
    -------
    An index of a choice for every decision, in the order of `scores`; without limits the exact
    best, with limits the best up to the grid.

    Examples
    --------
    >>> best_choices({"a": (0.0, -1.0), "b": (-3.0, 0.0)}, [], {}, {}, 3)
    [(0, 1), (1, 1), (0, 0)]
    """
    limited = [cost for cost in costs if cost.key in limits]
    most = np.array([limits[cost.key] for cost in limited])
    least = np.array([floors.get(cost.key, -np.inf) for cost in limited])
    order = _order(list(scores), limited)
    found = _complete([(name, scores[name]) for name in order], limited, most, count)
    above = np.flatnonzero((found.costs >= least).all(axis=1))
    if len(above):
        found = found.take(above)
    in_order = found.choices[:, [order.index(name) for name in scores]]
    ranked = np.lexsort((*in_order.T[::-1], -found.scores))[:count]
    return [tuple(row) for row in in_order[ranked].tolist()]


def _order(names: Sequence[str], limited: Sequence[Cost]) -> list[str]:
    """Return the decisions, each that costs together with later ones just before the first."""
    terms = [sorted(map(names.index, term)) for cost in limited for term in cost.terms]
    waiting = {place for term in terms for place in term[:-1]}
    found: dict[int, None] = {}
    for place in range(len(names)):
        if place not in waiting:
            found.update(dict.fromkeys(p for term in terms if term[-1] == place for p in term))
    return [names[place] for place in dict.fromkeys((*found, *range(len(names))))]


@dataclass(frozen=True)
class _Terms:
    """The terms of one cost, by the place in the order at which each is complete.

    Parameters
    ----------
    closing
        For every place: the other decisions' places, and the costs with the last one's axis last.
    """

    closing: Sequence[Sequence[tuple[tuple[int, ...], Floats]]]

    @classmethod
    def of(cls, cost: Cost, order: Sequence[str]) -> _Terms:
        closing: list[list[tuple[tuple[int, ...], Floats]]] = [[] for _ in order]
        for names, costs in cost.terms.items():
            places = [order.index(name) for name in names]
            axes = sorted(range(len(names)), key=places.__getitem__)
            *before, last = sorted(places)
            closing[last].append((tuple(before), costs.transpose(axes)))
        return cls(closing)

    def added(self, place: int, choices: npt.NDArray[np.int32]) -> Floats | float:
        """Return what each choice at a place adds to partial architectures: (S or 1, choices)."""
        added: Floats | float = 0.0
        for before, costs in self.closing[place]:
            added = added + costs[tuple(choices[:, other] for other in before)]
        return added

    def rest(self, place: int) -> float:
        """Return what the terms that are complete after a place cost at least."""
        later = self.closing[place + 1 :]
        return float(sum(costs.min() for terms in later for _, costs in terms))

    def open(self, place: int) -> set[int]:
        """Return the places up to this one on which later costs depend."""
        later = self.closing[place + 1 :]
        return {p for terms in later for before, _ in terms for p in before if p <= place}


def _complete(
    scores: Sequence[tuple[str, Sequence[float]]],
    limited: Sequence[Cost],
    most: Floats,
    count: int,
) -> _Partial:
    terms = [_Terms.of(cost, [name for name, _ in scores]) for cost in limited]
    fixed = np.array([[cost.fixed for cost in limited]])
    states = _Partial(np.zeros(1), fixed, np.zeros((1, 0), dtype=np.int32))
    choices = [len(own) for _, own in scores]
    for place, (_, own) in enumerate(scores):
        states = _grown(states, own, [each.added(place, states.choices) for each in terms])
        # What is still to come costs at least: what cannot end within the limits is dropped.
        rest = np.array([each.rest(place) for each in terms])
        possible = (states.costs + rest <= most * (1 + _SLACK)).all(axis=1)
        kept_open = sorted({other for each in terms for other in each.open(place)})
        room = min(_STATES, _GROWN // max(choices[place + 1 : place + 2], default=1))
        states = _pruned(states.take(np.flatnonzero(possible)), most, count, kept_open, room)
    return states


def _grown(states: _Partial, scores: Sequence[float], added: Sequence[Floats | float]) -> _Partial:
    """Extend every partial architecture by every choice of one decision."""
    size, choices = len(states.scores), len(scores)
    costs = np.empty((size, choices, len(added)))
    for index, each in enumerate(added):
        costs[:, :, index] = states.costs[:, None, index] + each
    chosen = np.tile(np.arange(choices, dtype=np.int32), size)[:, None]
    return _Partial(
        (states.scores[:, None] + np.array(scores)).reshape(-1),
        costs.reshape(size * choices, len(added)),
        np.hstack([np.repeat(states.choices, choices, axis=0), chosen]),
    )


def _pruned(
    states: _Partial, most: Floats, count: int, kept_open: Sequence[int], room: int
) -> _Partial:
    """Keep the `count` best of every grid cell, and the cheapest by each cost.

    Of those that agree in what later costs depend on; in all no more than there is room for.
    """
    if not len(states.scores):
        return states
    groups = np.zeros(len(states.scores), dtype=np.int64)
    if kept_open:
        groups = np.unique(states.choices[:, kept_open], axis=0, return_inverse=True)[1].reshape(-1)
    share = room // count // int(groups.max() + 1)
    cells_at_most = min(_CELLS, max(_LEAST_CELLS, share))
    side = max(2, int(cells_at_most ** (1 / max(1, len(most)))))
    shares = np.divide(states.costs, most, out=np.zeros_like(states.costs), where=most > 0)
    cells = groups
    for column in (side * shares).astype(np.int64).T:
        cells = cells * (side + 1) + column
    order = _ranking(states)
    order = order[np.argsort(cells[order], kind="stable")]
    starts = np.flatnonzero(np.diff(cells[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    kept = order[rank < count]
    cheapest = [_first_of(groups, (-states.scores, column)) for column in states.costs.T]
    return _capped(states.take(np.unique(np.concatenate([kept, *cheapest]))), most, room)


def _capped(states: _Partial, most: Floats, room: int) -> _Partial:
    """Keep no more than there is room for: half the best, half the furthest below the limits."""
    if len(states.scores) <= 2 * room:
        return states
    spent = (states.costs / np.where(most > 0, most, 1.0)).max(axis=1, initial=0.0)
    cheapest = np.argsort(spent, kind="stable")[:room]
    return states.take(np.unique(np.concatenate([_ranking(states)[:room], cheapest])))


def _first_of(groups: npt.NDArray[np.int64], keys: tuple[Floats, ...]) -> npt.NDArray[np.intp]:
    """Return the index of the first of each group, by keys of which the last counts most."""
    order = np.lexsort((*keys, groups))
    return order[np.flatnonzero(np.diff(groups[order], prepend=-1))]


def _ranking(states: _Partial) -> npt.NDArray[np.intp]:
    """Return indices from the best score on; of equal ones, earlier choices first."""
    # They are in the order of their choices, from where they grow on.
    return np.argsort(-states.scores, kind="stable")
