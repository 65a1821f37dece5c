"""From scores to architectures: the best sums of one choice a decision, under limits on cost.

A knapsack with one item of each group (multiple-choice knapsack), by dynamic programming over the
decisions. Partial sums that fall into one cell of a grid over the costs compete; the costs
themselves are never rounded, so that a limit that is met here is met exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .costs import Cost

_CELLS = 4096
_STATES = 2**17
"""Partial architectures that are kept: where many are asked for, of fewer cells."""
_SLACK = 1e-12
"""Relative: sums in another order differ by rounding."""

Floats = npt.NDArray[np.float64]


class _Partial(NamedTuple):
    """Partial architectures: scores (S,), costs (S, limits), choices (S, decisions so far)."""

    scores: Floats
    costs: Floats
    choices: npt.NDArray[np.int64]

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
    found = _complete(scores, limited, most, count)
    above = np.flatnonzero((found.costs >= least).all(axis=1))
    if len(above):
        found = found.take(above)
    ranked = found.take(_ranking(found)[:count])
    return [tuple(row) for row in ranked.choices.tolist()]


def _complete(
    scores: Mapping[str, Sequence[float]], limited: Sequence[Cost], most: Floats, count: int
) -> _Partial:
    names = list(scores)
    fixed = np.array([[cost.fixed for cost in limited]])
    states = _Partial(np.zeros(1), fixed, np.zeros((1, 0), dtype=np.int64))
    for index, name in enumerate(names):
        states = _grown(states, scores[name], [cost.rows[name] for cost in limited])
        # What the decisions still open cost at least: what cannot end within the limits is dropped.
        rest = [sum(min(cost.rows[later]) for later in names[index + 1 :]) for cost in limited]
        possible = (states.costs + np.array(rest) <= most * (1 + _SLACK)).all(axis=1)
        states = _pruned(states.take(np.flatnonzero(possible)), most, count)
    return states


def _grown(states: _Partial, scores: Sequence[float], rows: Sequence[Sequence[float]]) -> _Partial:
    """Extend every partial architecture by every choice of one decision."""
    size, choices = len(states.scores), len(scores)
    added = np.array(rows, dtype=np.float64).reshape(len(rows), choices).T
    chosen = np.tile(np.arange(choices), size)[:, None]
    return _Partial(
        (states.scores[:, None] + np.array(scores)).reshape(-1),
        (states.costs[:, None, :] + added).reshape(size * choices, len(rows)),
        np.hstack([np.repeat(states.choices, choices, axis=0), chosen]),
    )


def _pruned(states: _Partial, most: Floats, count: int) -> _Partial:
    """Keep the `count` best of every grid cell, and the cheapest of all by each cost."""
    if not len(states.scores):
        return states
    cells_at_most = min(_CELLS, _STATES // count)
    side = max(2, int(cells_at_most ** (1 / max(1, len(most)))))
    shares = np.divide(states.costs, most, out=np.zeros_like(states.costs), where=most > 0)
    cells = np.zeros(len(states.scores), dtype=np.int64)
    for column in (side * shares).astype(np.int64).T:
        cells = cells * (side + 1) + column
    order = _ranking(states)
    order = order[np.argsort(cells[order], kind="stable")]
    starts = np.flatnonzero(np.diff(cells[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    kept = order[rank < count]
    cheapest = [np.lexsort((-states.scores, column))[0] for column in states.costs.T]
    return states.take(np.unique(np.concatenate([kept, np.array(cheapest, dtype=kept.dtype)])))


def _ranking(states: _Partial) -> npt.NDArray[np.intp]:
    """Return indices from the best score on; of equal ones, earlier choices first."""
    # They are in the order of their choices, from where they grow on.
    return np.argsort(-states.scores, kind="stable")
