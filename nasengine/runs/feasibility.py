"""Whether anything in the space can meet the limits asked for.

They are refused by estimators that count (`Estimator.counts`): nothing is timed, nothing trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from nasengine.architecture import Architecture
from nasengine.errors import SpecError
from nasengine.moves import neighbours
from nasengine.quantities import format_quantity
from nasengine.runs.ranges import (
    Range,
    Value,
    counted_value,
    draw_values,
    has_cuts,
    has_table,
    range_of,
)
from nasengine.search import Search
from nasengine.trial import Metric

_STARTS = 3


def check_limits(
    search: Search, metrics: Mapping[str, Metric], given: Mapping[str, Mapping[str, object]]
) -> list[str]:
    """Refuse limits that nothing can meet; return what there is to say of the others.

    Parameters
    ----------
    search
        With its objectives resolved.
    metrics
        By full name.
    given
        Metric to ``at_most`` and ``at_least`` as the user wrote them.

    Raises
    ------
    SpecError
        Naming each limit that no network can meet, with the range that exists.
    """
    problems: list[str] = []
    notes: list[str] = []
    for limit in search.objectives.limits:
        metric, written = metrics[limit.metric], given.get(limit.metric, {})
        value = counted_value(search, limit.metric)
        found = None if value is None else range_of(search, limit.metric, value)
        if value is None or found is None:
            continue
        for key, asked in (("at_most", limit.at_most), ("at_least", limit.at_least)):
            if asked is None:
                continue
            said = _said(f"objectives.{limit.metric}.{key}", written.get(key), asked, metric.unit)
            sign = 1 if key == "at_most" else -1
            nearest = _nearest(search, limit.metric, value, found, sign, asked)
            if nearest > sign * asked:
                reached = _reaching(found, sign * nearest)
                text = f"{said}; the space's networks have {reached.text(metric.unit)}"
                text += "" if found.exact else ", as far as was looked"
                is_sure = _sure(search, metric, limit.metric, found, sign, asked)
                (problems if is_sure else notes).append(text)
            elif max(sign * found.smallest, sign * found.largest) <= sign * asked:
                whole = "every network" if found.exact else "every network that was drawn"
                notes.append(f"{said}: {whole} of the space meets it ({found.text(metric.unit)})")
    if problems:
        raise SpecError("\n".join(problems))
    return notes


def _nearest(
    search: Search, name: str, value: Value, found: Range, sign: int, asked: float
) -> float:
    """Return the least of sign times a metric, looked for further where none meets the limit."""
    nearest = min(sign * found.smallest, sign * found.largest)
    if nearest <= sign * asked or found.exact:
        return nearest
    return min(nearest, _climbed(search, name, value, sign))


def _sure(search: Search, metric: Metric, name: str, found: Range, sign: int, asked: float) -> bool:
    """Say whether it is sure enough that nothing meets a limit that nothing was seen to meet."""
    if found.exact:
        return True
    if not has_cuts(search):
        # What climbs to a cost is sure enough; a quality may have a peak that none saw.
        return metric.direction == "min"
    if not has_table(search, name):
        return False
    low, high = _surely_within(search, name)
    return low > asked if sign > 0 else high < asked


def _said(where: str, written: object, asked: float, unit: str) -> str:
    value = format_quantity(asked, unit)
    if isinstance(written, str) and "%" in written:
        return f"{where}: {written}, which is {value}"
    return f"{where}: {written if isinstance(written, str) else value}"


def _reaching(found: Range, value: float) -> Range:
    return replace(found, smallest=min(found.smallest, value), largest=max(found.largest, value))


def _climbed(search: Search, name: str, value: Value, sign: int) -> float:
    """Return the least of sign times a metric that climbing from the best drawn networks finds."""
    starts = sorted(draw_values(search, name, value), key=lambda pair: sign * pair[1])[:_STARTS]
    return min(_climb(search, value, sign, start) for start in starts)


def _climb(search: Search, value: Value, sign: int, start: tuple[Architecture, float]) -> float:
    at, best = start[0], sign * start[1]
    while True:
        measured: Sequence[tuple[float, Architecture]] = [
            (sign * found, near)
            for near in neighbours(at, search.space.decisions)
            if (found := value(near)) is not None
        ]
        least = min(measured, key=lambda pair: pair[0], default=(best, at))
        if least[0] >= best:
            return best
        best, at = least


def _surely_within(search: Search, name: str) -> tuple[float, float]:
    """Return what no network's cost can be below or above, by the metric's table."""
    table = search.cost_table(name)
    rows = table.per_decision()
    costs = [
        [rows[d][choice] for choice in choices]
        for d, choices in search.space.decisions.items()
        if d in rows
    ]
    graph = search.space.graph
    cut = sum(table.operations.values())
    cut += sum(cost * (len(graph[name].inputs) - 1) for name, cost in table.sums.items())
    known = bool(table.operations or table.sums)  # Else `fixed` may hold what a cut takes out.
    low = table.fixed - cut + sum(min(0.0, *row) for row in costs) if known else -math.inf
    return low, table.fixed + sum(max(0.0, *row) for row in costs) + sum(table.zeros.values())
