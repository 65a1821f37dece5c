"""From scores to architectures: the best sums of one choice a decision, under limits on cost.

A knapsack with one item of each group (multiple-choice knapsack), by dynamic programming over the
decisions. Partial sums that fall into one cell of a grid over the costs compete; the costs
themselves are never rounded, so that a limit that is met here is met exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .costs import Cost

_CELLS = 4096


class _State(NamedTuple):
    score: float
    costs: tuple[float, ...]
    choices: tuple[int, ...]


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
    states = _complete(scores, limited, limits, count)
    above = [
        state
        for state in states
        if all(
            value >= floors.get(cost.key, value)
            for cost, value in zip(limited, state.costs, strict=True)
        )
    ]
    ranked = sorted(above or states, key=lambda state: (-state.score, state.choices))
    return [state.choices for state in ranked[:count]]


def _complete(
    scores: Mapping[str, Sequence[float]],
    limited: Sequence[Cost],
    limits: Mapping[str, float],
    count: int,
) -> list[_State]:
    names = list(scores)
    # What the decisions still open cost at least: partial sums that cannot end below are dropped.
    rest = [
        [sum(min(c.rows[n]) for n in names[i + 1 :]) for c in limited] for i in range(len(names))
    ]
    states = [_State(0.0, tuple(cost.fixed for cost in limited), ())]
    for index, name in enumerate(names):
        rows = [cost.rows[name] for cost in limited]
        grown = (
            _State(
                state.score + score,
                tuple(value + row[choice] for value, row in zip(state.costs, rows, strict=True)),
                (*state.choices, choice),
            )
            for state in states
            for choice, score in enumerate(scores[name])
        )
        kept = [
            state
            for state in grown
            if all(
                value + least <= limits[cost.key] * (1 + 1e-12)
                for value, least, cost in zip(state.costs, rest[index], limited, strict=True)
            )
        ]
        states = _pruned(kept, limited, limits, count)
    return states


def _pruned(
    states: Sequence[_State], limited: Sequence[Cost], limits: Mapping[str, float], count: int
) -> list[_State]:
    """Keep the `count` best of every grid cell, and the cheapest of all by each cost."""
    if not states:
        return []
    side = max(2, int(_CELLS ** (1 / max(1, len(limited)))))
    cells: dict[tuple[int, ...], list[_State]] = {}
    for state in sorted(states, key=lambda state: (-state.score, state.choices)):
        cell = tuple(
            int(side * value / limits[cost.key]) if limits[cost.key] > 0 else 0
            for value, cost in zip(state.costs, limited, strict=True)
        )
        best = cells.setdefault(cell, [])
        if len(best) < count:
            best.append(state)
    kept = {state.choices: state for best in cells.values() for state in best}
    for position in range(len(limited)):
        cheapest = min(states, key=lambda state: (state.costs[position], -state.score))
        kept[cheapest.choices] = cheapest
    return list(kept.values())
