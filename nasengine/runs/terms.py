"""Sums of costs that depend on one decision each, or on several together: bounds and their ends.

Where channels are searched, what a block costs depends on its widths too: a cost is no sum over
decisions, but one of terms (`CostTable.terms`). Cut connections are not seen here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product

from nasengine.architecture import Architecture
from nasengine.estimator import CostTable, row_key
from nasengine.moves import Decisions

Terms = Mapping[tuple[str, ...], Mapping[str, float]]
"""Decisions to the costs that depend on just these, by `row_key` of their choices."""

_ROUNDING = 1e-12


def terms_of(table: CostTable, decisions: Decisions) -> Terms:
    """Return a table's terms, of a space's own choices: without its references' blocks.

    Examples
    --------
    >>> table = CostTable("", 0.0, {"slot": {"a": 1.0, "big": 9.0}}, {"slot": "slot"})
    >>> terms_of(table, {"slot": ("a",)})
    {('slot',): {'a': 1.0}}
    """
    found = {}
    for names, row in table.terms().items():
        keys = map(row_key, product(*(decisions[name] for name in names)))
        found[names] = {key: row[key] for key in keys}
    return found


def weighed(parts: Iterable[tuple[float, Terms]]) -> Terms:
    """Return the sum of terms, each times a factor.

    Examples
    --------
    >>> weighed([(2.0, {("a",): {"x": 1.0}}), (1.0, {("a",): {"x": 5.0}})])
    {('a',): {'x': 7.0}}
    """
    total: dict[tuple[str, ...], dict[str, float]] = {}
    for factor, terms in parts:
        for names, row in terms.items():
            found = total.setdefault(names, dict.fromkeys(row, 0.0))
            for key, cost in row.items():
                found[key] += factor * cost
    return total


def summed(terms: Terms, architecture: Mapping[str, str]) -> float:
    """Return what an architecture's terms come to."""
    return sum(row[_key(names, architecture)] for names, row in terms.items())


def bound(terms: Terms) -> float:
    """Return what no architecture is below: each term's least.

    One may be at it where every term is of one decision; of several together, they may not agree.
    """
    return sum(min(row.values()) for row in terms.values())


def cheapest(terms: Terms, decisions: Decisions) -> Architecture:
    """Return the cheapest architecture, as changing one decision at a time finds it.

    That is sure where every term is of one decision, and where costs grow with widths. Of equal
    choices the first is taken.
    """
    own = {name: {t: row for t, row in terms.items() if name in t} for name in decisions}
    chosen = {name: choices[0] for name, choices in decisions.items()}
    changing = True
    while changing:
        changing = False
        for name, choices in decisions.items():
            costs = {choice: summed(own[name], {**chosen, name: choice}) for choice in choices}
            best, now = min(costs, key=costs.__getitem__), costs[chosen[name]]
            if costs[best] < now - _ROUNDING * abs(now):
                chosen[name], changing = best, True
    return Architecture(chosen)


def _key(names: Iterable[str], architecture: Mapping[str, str]) -> str:
    return row_key(architecture[name] for name in names)
