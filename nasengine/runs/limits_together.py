"""Limits that can each be met, and not together: found before the search, for every strategy.

Networks are drawn, weighed and climbed to; a refusal needs a proof, from cost tables. The proof is
a Lagrangian bound: where some weighing of the limits makes even the least that its terms may come
to break them on the whole, every network breaks one (Everett 1963).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from nasengine.architecture import Architecture
from nasengine.elimination import Terms, eliminate
from nasengine.errors import SpecError
from nasengine.estimator import CostTable
from nasengine.moves import Decisions, enumerate_all, neighbours, sample
from nasengine.objectives import Objective
from nasengine.quantities import format_quantity
from nasengine.runs.ranges import Value, counted_value, has_cuts, has_table, table_value
from nasengine.search import Search
from nasengine.terms import term_arrays, total, weighed
from nasengine.trial import Metric

SECONDS = 3.0
"""Looking takes no longer, but for what was begun."""

_EVERY = 5_000
"""Spaces of so many architectures are looked through, where all costs are in tables."""
_SAMPLES, _STARTS, _WEIGHINGS = 300, 5, 400
_SURE = 1e-6
"""Relative: by how much the bound must be above zero."""


def check_together(search: Search, metrics: Mapping[str, Metric]) -> list[str]:
    """Refuse limits that are proven to exclude each other; warn where nothing meets them all.

    Parameters
    ----------
    search
        With its objectives resolved, each limit of which can be met alone.
    metrics
        By full name.

    Returns
    -------
    What there is to say: that no network was found, and the nearest one.

    Raises
    ------
    SpecError
        Naming the limits, and what the nearest network has.
    """
    values = {
        limit.metric: value
        for limit in search.objectives.limits
        if (value := _value(search, limit.metric)) is not None
    }
    limits = [limit for limit in search.objectives.limits if limit.metric in values]
    if sum((o.at_most is not None) + (o.at_least is not None) for o in limits) < 2:
        return []
    looked = _Looked(search, limits, values)
    nearest, proven = looked.nearest()
    if nearest is None or looked.violation(nearest) == 0:
        return []

    def write(metric: str, value: float) -> str:
        return format_quantity(value, metrics[metric].unit)

    asked = "; ".join(f"{o.metric} {o.asked(partial(write, o.metric))}" for o in limits)
    has = ", ".join(
        f"{metric} {write(metric, found)}"
        for metric, value in values.items()
        if (found := value(nearest)) is not None
    )
    if proven:
        raise SpecError(
            f"objectives: no network meets these limits at once: {asked}; the nearest has {has}"
        )
    return [
        f"objectives: no network was found that meets these limits at once: {asked}; the nearest "
        f"that was looked at has {has}"
    ]


def _value(search: Search, metric: str) -> Value | None:
    """Return what gives a metric of a network, without measuring where a table tells the same."""
    # What a cut leaves without use is surely left out where networks are measured.
    by_table = None if has_cuts(search) else table_value(search, metric)
    return by_table or counted_value(search, metric)


@dataclass(frozen=True)
class _Looked:
    """A look for a network that breaks no limit.

    Parameters
    ----------
    search
        The space and its tables.
    limits
        Of metrics that are counted.
    values
        Metric to what gives its value.
    """

    search: Search
    limits: Sequence[Objective]
    values: Mapping[str, Value]

    def violation(self, architecture: Architecture) -> float:
        """Return by how much an architecture breaks the limits, each relative to itself."""
        total = 0.0
        for limit in self.limits:
            value = self.values[limit.metric](architecture)
            total += math.inf if value is None else limit.violation(value)
        return total

    def nearest(self) -> tuple[Architecture | None, bool]:
        """Return a network within all limits, or the nearest; and whether none is, for sure."""
        end, proven = time.monotonic() + SECONDS, False
        seen: list[tuple[float, Architecture]] = []
        for number, (architecture, proven) in enumerate(self._candidates()):
            over = self.violation(architecture)
            if over == 0:
                return architecture, False
            if math.isfinite(over):
                seen.append((over, architecture))
            if proven or (time.monotonic() > end and number >= _STARTS):
                break
        if not seen:
            return None, proven
        seen.sort(key=lambda pair: pair[0])
        climbed = [self._climb(start, end) for start in seen[:_STARTS]]
        return min(climbed, key=lambda pair: pair[0])[1], proven

    def _candidates(self) -> Iterator[tuple[Architecture, bool]]:
        """Yield what to look at, and whether nothing fits for sure where this one does not."""
        decisions, rng = self.search.space.decisions, self.search.stream("limits", "together")
        tabled = all(has_table(self.search, limit.metric) for limit in self.limits)
        # What a cut leaves without use costs less than its table says.
        exact = tabled and not has_cuts(self.search)
        size = self.search.space.size
        if size <= (_EVERY if exact else _SAMPLES):
            for number, architecture in enumerate(enumerate_all(decisions), start=1):
                yield architecture, exact and number == size
            return
        for _ in range(_SAMPLES):
            yield sample(decisions, rng), False
        if tabled:
            for architecture, least in self._weighed():
                yield architecture, exact and least > _SURE

    def _weighed(self) -> Iterator[tuple[Architecture, float]]:
        """Yield the best network under one weighing of the limits after another, with a bound.

        No network is below the bound. The weights grow where the network breaks a limit
        (multiplicative weights).
        """
        decisions = self.search.space.decisions
        sides = _sides(self.limits, {m: self.search.cost_table(m) for m in self.values}, decisions)
        weights = [1.0 / len(sides)] * len(sides)
        for step in range(1, _WEIGHINGS + 1):
            pairs = list(zip(weights, sides, strict=True))
            found = eliminate(weighed((weight, side.terms) for weight, side in pairs))
            over = [side.over(found.cheapest) for side in sides]
            named = {name: row[found.cheapest[name]] for name, row in decisions.items()}
            constant = sum(weight * side.constant for weight, side in pairs)
            yield Architecture(named), found.least + constant
            rate = 1.0 / math.sqrt(step)
            largest = max(abs(excess) for excess in over) or 1.0
            grown = [
                w * math.exp(rate * excess / largest)
                for w, excess in zip(weights, over, strict=True)
            ]
            weights = [w / sum(grown) for w in grown]

    def _climb(self, start: tuple[float, Architecture], end: float) -> tuple[float, Architecture]:
        """Change one decision at a time while that brings it nearer."""
        best, at = start
        while best > 0 and time.monotonic() < end:
            near = neighbours(at, self.search.space.decisions)
            rated = ((self.violation(a), a) for a in near)
            least = min(rated, key=lambda pair: pair[0], default=(best, at))
            if least[0] >= best:
                break
            best, at = least
        return best, at


@dataclass(frozen=True)
class _Side:
    """One side of a limit, as costs relative to it that should sum to at most zero."""

    constant: float
    terms: Terms

    def over(self, chosen: Mapping[str, int]) -> float:
        return self.constant + total(self.terms, chosen)


def _sides(
    limits: Sequence[Objective], tables: Mapping[str, CostTable], decisions: Decisions
) -> list[_Side]:
    found = []
    for limit in limits:
        table = tables[limit.metric]
        terms = term_arrays(table.terms(), decisions)
        for sign, asked in ((1, limit.at_most), (-1, limit.at_least)):
            if asked is not None:
                scale = sign / (abs(asked) or 1.0)
                found.append(_Side(scale * (table.fixed - asked), weighed([(scale, terms)])))
    return found
