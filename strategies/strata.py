"""Uniform draws among the architectures whose additive cost lies in one part of its range.

The number of architectures of each total cost is counted by dynamic programming, one decision
after the other, on a grid of costs; a draw then walks back through the counts. So the rarest
sizes, which rejection would never hit, are drawn as easily as the commonest.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from nasengine.architecture import Architecture

if TYPE_CHECKING:
    from nasengine.moves import Decisions

GRID = 1000
"""Steps of the cost's range: a decision's cost is rounded to one of them."""

FINE = 20
"""Steps a decision at least, where there are many: or rounding would be most of what each costs."""


class Strata:
    """The architectures of a space, sorted by cost without being listed.

    Parameters
    ----------
    costs
        Decision to choice to its cost (`CostTable.per_decision`).
    decisions
        The space's decisions.
    """

    def __init__(self, costs: Mapping[str, Mapping[str, float]], decisions: Decisions) -> None:
        rows = {name: {c: costs[name][c] for c in allowed} for name, allowed in decisions.items()}
        low = {name: min(row.values()) for name, row in rows.items()}
        span = sum(max(row.values()) - low[name] for name, row in rows.items()) or 1.0
        grid = max(GRID, FINE * len(rows))
        self._steps = {
            name: {c: round((cost - low[name]) / span * grid) for c, cost in row.items()}
            for name, row in rows.items()
        }
        self._size = 1 + sum(max(row.values()) for row in self._steps.values())
        # counts[k][s]: architectures of the first k decisions whose cost is s steps; those of one k
        # are halved (which is exact) as often as keeps them below 1: no space is too large.
        self._counts = [np.eye(1, self._size)[0]]
        for row in self._steps.values():
            before, after = self._counts[-1], np.zeros(self._size)
            for step in row.values():
                after[step:] += before[: self._size - step]
            self._counts.append(np.ldexp(after, -int(np.frexp(after.max())[1])))

    def draws(
        self, stratum: int, strata: int, tries: int, rng: random.Random
    ) -> Iterator[Architecture]:
        """Yield draws from one of `strata` equal parts of the range; nothing if it is empty."""
        edges = np.linspace(0, self._size, strata + 1).round().astype(int)
        steps = range(edges[stratum], edges[stratum + 1])
        weights = self._counts[-1][steps.start : steps.stop]
        if not weights.any():
            return
        for _ in range(tries):
            yield self._draw(rng.choices(steps, weights.tolist())[0], rng)

    def _draw(self, total: int, rng: random.Random) -> Architecture:
        chosen: dict[str, str] = {}
        for index, (name, row) in reversed(list(enumerate(self._steps.items()))):
            before = self._counts[index]
            ways = [before[total - step] if step <= total else 0.0 for step in row.values()]
            chosen[name] = rng.choices(list(row), ways)[0]
            total -= row[chosen[name]]
        return Architecture({name: chosen[name] for name in self._steps})
