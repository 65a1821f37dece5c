"""The least of a sum of terms that depend on a few decisions each, by bucket elimination.

One decision after the other is minimised out of the terms that depend on it, which leaves a term of
the decisions that it shared them with (Dechter 1999, "Bucket elimination: a unifying framework for
reasoning"). Where too many combinations of choices would have to be kept apart, parts of the sum
are minimised one by one, which gives a bound (Dechter and Rish 2003, "Mini-buckets: a general
scheme for bounded inference").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats: TypeAlias = npt.NDArray[np.float64]

Names: TypeAlias = tuple[str, ...]
"""The decisions on which a term depends."""

Terms: TypeAlias = "Mapping[Names, Floats]"
"""What choices cost, an axis a decision: each in the order of the decision's choices."""

MOST = 2**18
"""Combinations of choices that are kept apart at most, but for those of a single term."""


@dataclass(frozen=True)
class Step:
    """One decision in an order of elimination.

    Parameters
    ----------
    decision
        Its name.
    scopes
        The terms that depend on it, and on none that comes earlier.
    open
        The later decisions that share a term with it, or with an earlier one.
    """

    decision: str
    scopes: tuple[Names, ...]
    open: Names


def elimination_order(sizes: Mapping[str, int], scopes: Iterable[Names]) -> list[Step]:
    """Return decisions in an order in which few combinations of choices are open at once.

    Terms are taken one by one, and each decision comes after the last that depends on it.

    Parameters
    ----------
    sizes
        Decision to the number of its choices.
    scopes
        The decisions on which each term depends.

    Examples
    --------
    >>> sizes = {"block": 5, "width": 2, "inner": 3, "last": 2}
    >>> scopes = [("block", "width", "inner"), ("inner", "last")]
    >>> [(step.decision, step.open) for step in elimination_order(sizes, scopes)]
    [('block', ('width', 'inner')), ('width', ('inner',)), ('inner', ('last',)), ('last', ())]
    """
    terms = dict.fromkeys(scopes)
    steps: list[Step] = []
    done: set[str] = set()
    for name in _in_turn(sizes, terms):
        before = steps[-1].open if steps else ()
        begun = tuple(scope for scope in terms if name in scope and done.isdisjoint(scope))
        done.add(name)
        together = dict.fromkeys((*before, *(other for scope in begun for other in scope)))
        steps.append(Step(name, begun, tuple(other for other in together if other not in done)))
    return steps


def _in_turn(sizes: Mapping[str, int], scopes: Collection[Names]) -> Iterator[str]:
    """Yield each decision once all its terms are taken.

    Next is the first term that leaves no more combinations open, or else what leaves the fewest.
    """
    tied = {name for scope in scopes for name in scope}
    left = dict.fromkeys((*scopes, *((name,) for name in sizes if name not in tied)))
    uses = Counter(name for scope in left for name in scope)
    open_names: Names = ()

    def after(scope: Names) -> Names:
        together = dict.fromkeys((*open_names, *scope))
        return tuple(name for name in together if uses[name] > (name in scope))

    def size(names: Names) -> int:
        return prod(sizes[name] for name in names)

    while left:
        no_more = (scope for scope in left if size(after(scope)) <= size(open_names))
        scope = next(no_more, None) or min(left, key=lambda each: size(after(each)))
        closed = {*open_names, *scope}.difference(after(scope))
        yield from sorted(closed, key=lambda name: (-sizes[name], name))
        open_names = after(scope)
        del left[scope]
        uses.subtract(scope)


@dataclass(frozen=True)
class Eliminated:
    """A sum of terms, told by its least and by how much more each choice makes of it.

    Parameters
    ----------
    least
        What the sum is never below.
    more
        Decision to terms that are zero or more, of it (the last axis) and of decisions that stand
        before it here: all together they are the sum less `least`. Among the choices of a decision
        some one adds nothing, whatever was chosen before, unless there are several terms.
    """

    least: float
    more: Mapping[str, Sequence[tuple[Names, Floats]]]

    @cached_property
    def cheapest(self) -> dict[str, int]:
        """The index of each decision's choice where, one after the other, each adds the least."""
        chosen: dict[str, int] = {}
        for name, terms in self.more.items():
            added = sum(costs[tuple(chosen[n] for n in names[:-1])] for names, costs in terms)
            chosen[name] = int(added.argmin())
        return chosen

    @cached_property
    def reached(self) -> float:
        """What the sum is at `cheapest`."""
        return self.least + sum(
            float(costs[tuple(self.cheapest[n] for n in names)])
            for terms in self.more.values()
            for names, costs in terms
        )

    @property
    def is_exact(self) -> bool:
        """Whether `cheapest` is at `least`, so that nothing is below it."""
        return self.reached == self.least


def eliminate(terms: Terms, order: Iterable[str] | None = None) -> Eliminated:
    """Return a sum of terms by its least, which is exact where no step had to be split.

    Parameters
    ----------
    terms
        The terms.
    order
        In which the decisions are eliminated; without it, as `elimination_order` says.

    Examples
    --------
    >>> import numpy as np
    >>> terms = {("block", "width"): np.array([[4.0, 1.0], [2.0, 3.0]]), ("width",): np.arange(2.0)}
    >>> found = eliminate(terms)
    >>> found.least, found.cheapest
    (2.0, {'width': 0, 'block': 1})
    """
    if order is None:
        order = [step.decision for step in elimination_order(_sizes(terms.items()), terms)]
    left = [*terms.items()]
    more: dict[str, list[tuple[Names, Floats]]] = {}
    for name in order:
        own = [term for term in left if name in term[0]]
        left = [term for term in left if name not in term[0]]
        for together in _split(own):
            names = (*dict.fromkeys(n for each, _ in together for n in each if n != name), name)
            costs = joint(together, names)
            least = costs.min(-1)
            more.setdefault(name, []).append((names, costs - least[..., None]))
            left.append((names[:-1], least))
    return Eliminated(float(sum(costs for _, costs in left)), dict(reversed(more.items())))


def joint(terms: Iterable[tuple[Names, npt.NDArray[Any]]], names: Names) -> Any:
    """Return the sum of terms as one array that has, or broadcasts to, an axis for every name."""
    return sum(
        costs.transpose([own.index(name) for name in names if name in own]).reshape(
            [costs.shape[own.index(name)] if name in own else 1 for name in names]
        )
        for own, costs in terms
    )


def _split(terms: Sequence[tuple[Names, Floats]]) -> list[list[tuple[Names, Floats]]]:
    """Divide terms into groups, each of which depends on no more combinations than are kept."""
    groups: list[list[tuple[Names, Floats]]] = []
    for term in sorted(terms, key=lambda term: -term[1].size):
        fitting = (g for g in groups if prod(_sizes([*g, term]).values()) <= MOST)
        group = next(fitting, None)
        if group is None:
            groups.append([term])
        else:
            group.append(term)
    return groups


def _sizes(terms: Iterable[tuple[Names, Floats]]) -> dict[str, int]:
    """Return the number of choices of every decision on which terms depend."""
    return {n: size for names, costs in terms for n, size in zip(names, costs.shape, strict=True)}
