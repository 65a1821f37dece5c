"""From scores to architectures where a choice may cut a connection: sums propose, tables judge.

What a cut leaves without use costs nothing, so that a network's cost is no sum of its choices'.
Small spaces are listed; in larger ones the best by their sums, under limits relaxed more and more,
are weighed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import inf, prod
from typing import TYPE_CHECKING

from .derivation import best_choices

if TYPE_CHECKING:
    from .costs import Cost

LISTED = 20_000
"""Spaces up to this size are listed."""

_RELAXED = (1.0, 1.5, 2.0, 4.0, inf)
"""Times the limits, under which sums propose: a network costs less than its sum."""

_PROPOSED = 512
"""How many are proposed at each."""

Choices = tuple[int, ...]


def best_within(
    scores: Mapping[str, Sequence[float]],
    costs: Sequence[Cost],
    limits: Mapping[str, float],
    floors: Mapping[str, float],
    count: int,
    decisions: Mapping[str, Sequence[str]],
) -> list[Choices]:
    """Return what `best_choices` does, with the costs of whole networks, cuts included.

    Parameters
    ----------
    scores, costs, limits, floors, count
        As for `best_choices`.
    decisions
        Decision to its choices.
    """
    limited = [cost for cost in costs if cost.key in limits]
    if not any(cost.cuts for cost in limited):
        return best_choices(scores, costs, limits, floors, count)

    def weighed(choices: Choices) -> list[float]:
        named = {name: decisions[name][i] for name, i in zip(scores, choices, strict=True)}
        return [float(cost.predict(named, decisions)) for cost in limited]

    found = {choices: weighed(choices) for choices in _proposed(scores, costs, limits, count)}
    most = [limits[cost.key] for cost in limited]
    least = [floors.get(cost.key, -inf) for cost in limited]
    within = [c for c, row in found.items() if all(map(float.__le__, row, most))]
    above = [c for c in within if all(map(float.__ge__, found[c], least))]
    rows = list(scores.values())

    def ranking(choices: Choices) -> tuple[float, Choices]:
        return -sum(row[i] for row, i in zip(rows, choices, strict=True)), choices

    return sorted(above or within, key=ranking)[:count]


def _proposed(
    scores: Mapping[str, Sequence[float]],
    costs: Sequence[Cost],
    limits: Mapping[str, float],
    count: int,
) -> list[Choices]:
    sizes = [len(row) for row in scores.values()]
    if prod(sizes) <= LISTED:
        return list(product(*(range(size) for size in sizes)))
    found: dict[Choices, None] = {}
    for times in _RELAXED:
        relaxed = {} if times == inf else {key: times * most for key, most in limits.items()}
        more = best_choices(scores, costs, relaxed, {}, max(count, _PROPOSED))
        found.update(dict.fromkeys(more))
    # Of what cuts most, sums know nothing: the cheapest by its own sum is among them as well.
    for cost in costs:
        found[tuple(row.index(min(row)) for row in (cost.rows[name] for name in scores))] = None
    return list(found)
