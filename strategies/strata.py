"""Uniform draws among the architectures whose additive cost lies in one part of its range.

The number of architectures of each total cost is counted by dynamic programming, one decision after
the other, on a grid of costs; a draw then walks back through the counts. So the rarest sizes, which
rejection would never hit, are drawn as easily as the commonest. A term of the cost may depend on
several decisions (of a block at searched channels): counts are kept apart by the choices of those
that are still open (`nasengine.elimination`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nasengine.architecture import Architecture
from nasengine.elimination import Names, Step, elimination_order, joint
from nasengine.errors import SpecError
from nasengine.terms import term_arrays

if TYPE_CHECKING:
    from nasengine.moves import Decisions

GRID = 1000
"""Steps of the cost's range: a term's cost is rounded to one of them."""

FINE = 20
"""Steps a term at least, where there are many: or rounding would be most of what each costs."""

APART = 2000
"""Combinations of choices whose counts are kept apart, at most."""


@dataclass(frozen=True)
class _Place:
    """One decision, among those that are counted one after the other.

    Parameters
    ----------
    decision
        Its name.
    names
        The decisions that were open before it, then the others that its terms depend on.
    steps
        What these terms cost by their choices: shape (choices of each).
    before
        Counts of the decisions before it, by the choices of what was open and by steps.
    """

    decision: str
    names: Names
    steps: npt.NDArray[np.int64]
    before: npt.NDArray[np.float64]

    def ways(self, at: Mapping[str, int], total: int) -> tuple[float, int]:
        """Return how much of a total comes from choices here, and what is left of the total."""
        index = tuple(at[name] for name in self.names)
        left = total - int(self.steps[index])
        return float(self.before[index[: self.before.ndim - 1]][left]) if left >= 0 else 0.0, left


class Strata:
    """The architectures of a space, sorted by cost without being listed.

    Parameters
    ----------
    terms
        What costs are made of (`CostTable.terms`).
    decisions
        The space's decisions.

    Raises
    ------
    SpecError
        If too many widths belong together for counts to be kept apart.
    """

    def __init__(self, terms: Mapping[Names, Mapping[str, float]], decisions: Decisions) -> None:
        self._decisions = decisions
        costs = term_arrays(terms, decisions)
        span = sum(row.max() - row.min() for row in costs.values()) or 1.0
        grid = max(GRID, FINE * len(costs))
        steps = {n: np.rint((r - r.min()) / span * grid).astype(int) for n, r in costs.items()}
        self._size = 1 + int(sum(row.max() for row in steps.values()))
        self._places: list[_Place] = []
        # Architectures by their choices of what is open and by steps; all counts are halved (which
        # is exact) as often as keeps them below 1: no space is too large.
        self._counts, open_names = np.eye(1, self._size)[0], tuple[str, ...]()
        sizes = {name: len(choices) for name, choices in decisions.items()}
        for step in elimination_order(sizes, costs):
            self._count(step, open_names, [(names, steps[names]) for names in step.scopes])
            open_names = step.open

    def _count(
        self, step: Step, before: Names, terms: Sequence[tuple[Names, npt.NDArray[np.int64]]]
    ) -> None:
        """Count one more decision, by what was open before it and the terms that it begins."""
        scopes = (name for names, _ in terms for name in names)
        every = tuple(dict.fromkeys((*before, step.decision, *scopes)))
        sizes = [len(self._decisions[name]) for name in every]
        if math.prod(sizes) > APART:
            raise SpecError(
                f"strategy.stratify: costs depend on too many widths at once: "
                f"{math.prod(sizes)} combinations, and {APART} can be told apart"
            )
        whole = np.broadcast_to(joint(terms, every), sizes)
        self._places.append(_Place(step.decision, every, whole, self._counts))
        counts = np.zeros((*(len(self._decisions[name]) for name in step.open), self._size))
        places = [every.index(name) for name in step.open]
        for at in np.ndindex(*sizes):
            into, cost = counts[tuple(at[p] for p in places)], whole[at]
            into[cost:] += self._counts[at[: len(before)]][: self._size - cost]
        self._counts = np.ldexp(counts, -int(np.frexp(counts.max())[1]))

    def draws(
        self, stratum: int, strata: int, tries: int, rng: random.Random
    ) -> Iterator[Architecture]:
        """Yield draws from one of `strata` equal parts of the range; nothing if it is empty."""
        edges = np.linspace(0, self._size, strata + 1).round().astype(int)
        steps = range(edges[stratum], edges[stratum + 1])
        weights = self._counts[steps.start : steps.stop]
        if not weights.any():
            return
        for _ in range(tries):
            yield self._draw(rng.choices(steps, weights.tolist())[0], rng)

    def _draw(self, total: int, rng: random.Random) -> Architecture:
        chosen: dict[str, int] = {}
        for place in reversed(self._places):
            every = range(len(self._decisions[place.decision]))
            ways = [place.ways({**chosen, place.decision: index}, total) for index in every]
            index = rng.choices(every, [way for way, _ in ways])[0]
            chosen[place.decision], total = index, ways[index][1]
        return Architecture({n: choices[chosen[n]] for n, choices in self._decisions.items()})
