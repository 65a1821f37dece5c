"""Uniform draws among the architectures whose additive cost lies in one part of its range.

The number of architectures of each total cost is counted by dynamic programming, one term of the
cost after the other, on a grid of costs; a draw then walks back through the counts. So the rarest
sizes, which rejection would never hit, are drawn as easily as the commonest. A term may depend on
several decisions (of a block at searched channels): counts are kept apart by the choices of those
decisions that a later term depends on too.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nasengine.architecture import Architecture
from nasengine.errors import SpecError

from .terms import Names, term_arrays

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
    """One term, among those that are counted one after the other.

    Parameters
    ----------
    names
        The decisions that were open before it, then the others that it depends on.
    steps
        What it costs by their choices: shape (choices of each).
    before
        Counts of the terms before it, by the choices of what was open and by steps.
    """

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
        self._counts, kept = np.eye(1, self._size)[0], tuple[str, ...]()
        for names, after in _order(costs, decisions):
            kept = self._count(kept, names, steps[names], after)

    def _count(
        self, kept: Names, names: Names, steps: npt.NDArray[np.int64], after: Names
    ) -> Names:
        """Count one more term, and keep apart what is open after it."""
        before, every = self._counts, tuple(dict.fromkeys((*kept, *names)))
        axes = [names.index(name) for name in every if name in names]
        shape = [len(self._decisions[name]) if name in names else 1 for name in every]
        sizes = [len(self._decisions[name]) for name in every]
        whole = np.broadcast_to(steps.transpose(axes).reshape(shape), sizes)
        self._places.append(_Place(every, whole, before))
        counts = np.zeros((*(len(self._decisions[name]) for name in after), self._size))
        places = [every.index(name) for name in after]
        for at in np.ndindex(*sizes):
            into, step = counts[tuple(at[p] for p in places)], whole[at]
            into[step:] += before[at[: len(kept)]][: self._size - step]
        self._counts = np.ldexp(counts, -int(np.frexp(counts.max())[1]))
        return after

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
            closed = [name for name in place.names if name not in chosen]
            every = product(*(range(len(self._decisions[name])) for name in closed))
            options = [{**chosen, **dict(zip(closed, indices, strict=True))} for indices in every]
            ways = [place.ways(option, total) for option in options]
            number = rng.choices(range(len(options)), [way for way, _ in ways])[0]
            chosen, total = options[number], ways[number][1]
        return Architecture({n: choices[chosen[n]] for n, choices in self._decisions.items()})


def _order(every: Iterable[Names], decisions: Decisions) -> Iterator[tuple[Names, Names]]:
    """Yield the terms, each with what is open after it: next what leaves the least open.

    Raises
    ------
    SpecError
        If that is too much.
    """
    left, kept = list(every), tuple[str, ...]()
    uses = Counter(name for names in left for name in names)

    def after(names: Names) -> Names:
        together = dict.fromkeys((*kept, *names))
        return tuple(name for name in together if uses[name] > (name in names))

    def size(names: Iterable[str]) -> int:
        return math.prod(len(decisions[name]) for name in names)

    while left:
        no_more = (names for names in left if size(after(names)) <= size(kept))
        names = next(no_more, None) or min(left, key=lambda each: size(after(each)))
        if size({*kept, *names}) > APART:
            raise SpecError(
                f"strategy.stratify: costs depend on too many widths at once: "
                f"{size({*kept, *names})} combinations, and {APART} can be told apart"
            )
        kept = after(names)
        left.remove(names)
        uses.subtract(names)
        yield names, kept
