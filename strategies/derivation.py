"""From scores to architectures: the best sums of one choice a decision, under limits on cost.

A knapsack with one item of each group (multiple-choice knapsack), by dynamic programming over the
decisions. A partial architecture costs what the cheapest that it may become does
(`nasengine.elimination`). Those whose costs fall into one cell of a grid compete, if they agree in
the choices on which later costs depend; the costs themselves are never rounded, so that a limit
that is met here is met exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from nasengine.elimination import Eliminated, eliminate, elimination_order
from nasengine.terms import ROUNDING

if TYPE_CHECKING:
    from nasengine.elimination import Floats

    from .costs import Cost

_CELLS = 4096
_STATES = 2**17
"""Partial architectures that are kept: where many are asked for, of fewer cells."""
_GROWN = 2**20
"""Partial architectures at most, once each is extended by a decision's choices."""
_LEAST_CELLS = 16

Indices = npt.NDArray[np.intp]


class _Partial(NamedTuple):
    """Partial architectures: scores (S,), costs (S, limits), decision to choices so far (S,)."""

    scores: Floats
    costs: Floats
    choices: dict[str, Indices]


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
    found = _complete(scores, limited, most, count)
    above = np.flatnonzero((found.costs >= least).all(axis=1))
    kept = above if len(above) else np.arange(len(found.scores))
    in_order = np.stack([found.choices[name][kept] for name in scores])
    ranked = np.lexsort((*in_order[::-1], -found.scores[kept]))[:count]
    return [tuple(row) for row in in_order.T[ranked].tolist()]


def _complete(
    scores: Mapping[str, Sequence[float]], limited: Sequence[Cost], most: Floats, count: int
) -> _Partial:
    sizes = {name: len(own) for name, own in scores.items()}
    order = elimination_order(sizes, [names for cost in limited for names in cost.terms])
    parts = [eliminate(cost.terms, [step.decision for step in order]) for cost in limited]
    least = [cost.fixed + part.least for cost, part in zip(limited, parts, strict=True)]
    states = _Partial(np.zeros(1), np.array([least]), {})
    # What is eliminated last is decided first: costs of later ones depend on what is open there.
    for step, later in zip(order[::-1], [*order[-2::-1], None], strict=True):
        name, size = step.decision, sizes[step.decision]
        room = min(_STATES, _GROWN // (sizes[later.decision] if later else 1))
        grown, costs = _grown(states, name, scores[name], parts)
        groups = _groups(states, name, size, later.open if later else ())
        kept = _pruned(grown, costs, groups, most, count, room)
        parents, chosen = np.divmod(kept, size)
        choices = {other: column[parents] for other, column in states.choices.items()}
        states = _Partial(grown[kept], costs[kept], {**choices, name: chosen})
    return states


def _grown(
    states: _Partial, name: str, scores: Sequence[float], parts: Sequence[Eliminated]
) -> tuple[Floats, Floats]:
    """Return scores and costs of every partial architecture with every choice of a decision."""
    costs = np.empty((len(states.scores), len(scores), len(parts)))
    for index, part in enumerate(parts):
        costs[..., index] = states.costs[:, index, None]
        for names, more in part.more.get(name, ()):
            costs[..., index] += more[tuple(states.choices[other] for other in names[:-1])]
    grown = states.scores[:, None] + np.array(scores)
    return grown.reshape(-1), costs.reshape(grown.size, len(parts))


def _groups(states: _Partial, name: str, size: int, open_names: Sequence[str]) -> Indices:
    """Return, for all with every choice of a decision, numbers of those alike in what is open."""
    groups = np.zeros(len(states.scores), dtype=np.intp)
    for other in open_names:
        if other != name:
            column = states.choices[other]
            apart = groups * (column.max(initial=0) + 1) + column
            _, groups = np.unique(apart, return_inverse=True)
    if name in open_names:
        return (groups[:, None] * size + np.arange(size)).reshape(-1)
    return np.repeat(groups, size)


def _pruned(
    scores: Floats, costs: Floats, groups: Indices, most: Floats, count: int, room: int
) -> Indices:
    """Return the `count` best of every grid cell, and the cheapest by each cost.

    Of those of a group; in all no more than there is room for, and none that cannot end within the
    limits.
    """
    possible = np.flatnonzero((costs <= most * (1 + ROUNDING)).all(axis=1))
    if not len(possible):
        return possible
    scores, costs, groups = scores[possible], costs[possible], groups[possible]
    cells_at_most = min(_CELLS, max(_LEAST_CELLS, room // count // int(groups.max() + 1)))
    side = max(2, int(cells_at_most ** (1 / max(1, len(most)))))
    least = costs.min(axis=0)
    spent = np.divide(costs - least, most - least, out=np.zeros_like(costs), where=most > least)
    cells = groups
    for column in np.minimum(side * spent, side).astype(np.intp).T:
        cells = cells * (side + 1) + column
    chosen = np.zeros(len(scores), dtype=bool)
    chosen[_first(cells, (-scores,), count)] = True
    for column in costs.T:
        chosen[_first(groups, (column, -scores), 1)] = True
    kept = np.flatnonzero(chosen)
    return possible[kept[_capped(scores[kept], spent[kept], room)]]


def _first(groups: Indices, keys: tuple[Floats, ...], count: int) -> Indices:
    """Return the indices of the `count` first of each group, by keys, the first above all.

    Of equal ones those that stand first: of earlier choices.
    """
    found = np.arange(len(groups))
    if count == 1:
        # So that few are left to be sorted, which takes long.
        least = np.full(int(groups.max()) + 1, np.inf)
        np.minimum.at(least, groups, keys[0])
        found = np.flatnonzero(keys[0] == least[groups])
    order = found[np.lexsort((*(key[found] for key in keys[::-1]), groups[found]))]
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return order[rank < count]


def _capped(scores: Floats, spent: Floats, room: int) -> Indices:
    """Return no more than there is room for: half the best, half the furthest below the limits."""
    if len(scores) <= 2 * room:
        return np.arange(len(scores))
    kept = np.zeros(len(scores), dtype=bool)
    kept[np.argsort(-scores, kind="stable")[:room]] = True
    kept[np.argsort(spent.max(axis=1, initial=0.0), kind="stable")[:room]] = True
    return np.flatnonzero(kept)
