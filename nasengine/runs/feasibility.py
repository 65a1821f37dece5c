"""Whether anything in the space can meet the limits asked for.

They are refused by estimators that count (`Estimator.counts`): nothing is timed, nothing trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

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
    surely_within,
)
from nasengine.search import Search
from nasengine.trial import Direction, Metric

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
        value = counted_value(search, limit.metric)
        found = None if value is None else range_of(search, limit.metric, value)
        if value is None or found is None:
            continue
        unit, written = metrics[limit.metric].unit, given.get(limit.metric, {})
        for key, asked, sign in (("at_most", limit.at_most, 1), ("at_least", limit.at_least, -1)):
            if asked is None:
                continue
            said = _said(f"objectives.{limit.metric}.{key}", written.get(key), asked, unit)
            bound = _Bound(search, limit.metric, value, sign, asked)
            nearest = bound.nearest(found)
            if bound.breaks(nearest):
                reached = _reaching(found, nearest)
                text = f"{said}; the space's networks have {reached.text(unit)}"
                text += "" if found.exact else ", as far as was looked"
                is_sure = found.exact or bound.is_sure(metrics[limit.metric].direction)
                (problems if is_sure else notes).append(text)
            elif not bound.breaks(found.smallest) and not bound.breaks(found.largest):
                whole = "every network" if found.exact else "every network that was drawn"
                notes.append(f"{said}: {whole} of the space meets it ({found.text(unit)})")
    if problems:
        raise SpecError("\n".join(problems))
    return notes


def _said(where: str, written: object, asked: float, unit: str) -> str:
    value = format_quantity(asked, unit)
    if isinstance(written, str) and "%" in written:
        return f"{where}: {written}, which is {value}"
    return f"{where}: {written if isinstance(written, str) else value}"


def _reaching(found: Range, value: float) -> Range:
    return replace(found, smallest=min(found.smallest, value), largest=max(found.largest, value))


@dataclass(frozen=True)
class _Bound:
    """One side of a limit.

    Parameters
    ----------
    search, metric
        Of what; the metric by its full name.
    value
        Counts the metric of a network.
    sign
        1 where that is to be at most `asked`, -1 where it is to be at least that.
    asked
        In the metric's unit.
    """

    search: Search
    metric: str
    value: Value
    sign: int
    asked: float

    def breaks(self, value: float) -> bool:
        """Say whether a value of the metric is beyond the limit."""
        return self.sign * value > self.sign * self.asked

    def nearest(self, found: Range) -> float:
        """Return the value that keeps the limit best, looked for further where none keeps it."""
        nearest = self._best([found.smallest, found.largest])
        if not self.breaks(nearest) or found.exact:
            return nearest
        drawn = draw_values(self.search, self.metric, self.value)
        starts = sorted(drawn, key=lambda pair: self.sign * pair[1])[:_STARTS]
        return self._best([nearest, *(self._climbed(*start) for start in starts)])

    def _best(self, values: Iterable[float]) -> float:
        return min(values, key=lambda value: self.sign * value)

    def _climbed(self, at: Architecture, best: float) -> float:
        """Return the value that is reached by changing one decision at a time."""
        while True:
            measured = [
                (found, near)
                for near in neighbours(at, self.search.space.decisions)
                if (found := self.value(near)) is not None
            ]
            least = min(measured, key=lambda pair: self.sign * pair[0], default=(best, at))
            if self.sign * least[0] >= self.sign * best:
                return best
            best, at = least

    def is_sure(self, direction: Direction) -> bool:
        """Say whether it is sure enough that nothing keeps a limit that nothing was seen to keep.

        Parameters
        ----------
        direction
            Which way the metric is better.
        """
        if has_table(self.search, self.metric):
            within = surely_within(self.search, self.metric)
            if all(map(self.breaks, within)):
                return True
        # What climbs to a cost is sure enough; a quality may have a peak that none saw.
        return direction == "min" and not has_cuts(self.search)
