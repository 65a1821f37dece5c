"""Cost tables as sums of terms: arrays, what networks come to by them, and bounds.

Where channels are searched, what a block costs depends on its widths too: a cost is no sum over
decisions, but one of terms (`CostTable.terms`), each of one decision or of several together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

from nasengine.elimination import Eliminated, Names, Terms, eliminate
from nasengine.estimator import CostTable, row_key

if TYPE_CHECKING:
    from nasengine.elimination import Floats

ROUNDING = 1e-12
"""Relative: by how much sums in another order differ."""


def term_arrays(
    rows: Mapping[Names, Mapping[str, float]], decisions: Mapping[str, Sequence[str]]
) -> dict[Names, Floats]:
    """Return a table's terms (`CostTable.terms`) as arrays, in the order of the decisions.

    They are of the space's own choices, without its references' blocks; decisions on which nothing
    depends have zeros.

    Examples
    --------
    >>> term_arrays({("slot",): {"a": 1.0, "b": 2.0}}, {"slot": ("b", "a"), "width": ("8",)})
    {('slot',): array([2., 1.]), ('width',): array([0.])}
    """
    import numpy as np

    tied = {name for names in rows for name in names}
    free: dict[Names, Mapping[str, float]] = {
        (name,): dict.fromkeys(choices, 0.0)
        for name, choices in decisions.items()
        if name not in tied
    }
    place = {name: number for number, name in enumerate(decisions)}
    found = {}
    for names, row in sorted(
        {**rows, **free}.items(), key=lambda term: min(map(place.__getitem__, term[0]))
    ):
        choices = [decisions[name] for name in names]
        costs = [row[row_key(chosen)] for chosen in product(*choices)]
        found[names] = np.array(costs).reshape([len(each) for each in choices])
    return found


def total(terms: Terms, chosen: Mapping[str, int]) -> float:
    """Return what terms come to, by the index of the choice at every decision."""
    return float(sum(costs[tuple(chosen[n] for n in names)] for names, costs in terms.items()))


def weighed(parts: Iterable[tuple[float, Terms]]) -> dict[Names, Floats]:
    """Return the sum of terms, each times a factor.

    Examples
    --------
    >>> import numpy as np
    >>> weighed([(2.0, {("a",): np.array([1.0])}), (1.0, {("a",): np.array([5.0])})])
    {('a',): array([7.])}
    """
    found: dict[Names, Floats] = {}
    for factor, terms in parts:
        for names, costs in terms.items():
            found[names] = found.get(names, 0.0) + factor * costs
    return found


def ends(terms: Terms) -> tuple[Eliminated, Eliminated]:
    """Return terms by their least, and turned round, so that their most is the least."""
    return eliminate(terms), eliminate(weighed([(-1.0, terms)]))


def bounds_of_cut(table: CostTable, terms: Terms) -> tuple[float, float]:
    """Return what no network costs less than, and none more, where connections may be cut.

    Parameters
    ----------
    table
        Of which `CostTable.cuts` is true.
    terms
        Its terms.
    """
    low = table.fixed - sum(table.operations.values())
    if table.graph is not None:
        low -= sum(cost * (len(table.graph[n].inputs) - 1) for n, cost in table.sums.items())
    low += sum(min(0.0, float(costs.min())) for costs in terms.values())
    high = table.fixed + sum(table.zeros.values())
    high += sum(max(0.0, float(costs.max())) for costs in terms.values())
    return low, high
