"""Which values a space's networks have: of all, of many drawn, or of a few where it takes long."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from nasengine.architecture import Architecture
from nasengine.canonical import meanings
from nasengine.elimination import Terms
from nasengine.estimator import Candidate
from nasengine.metric_names import estimator_of, is_primary, own_name
from nasengine.moves import enumerate_all, sample
from nasengine.quantities import format_quantity
from nasengine.runs.execution import Job
from nasengine.runs.measuring import measure
from nasengine.search import Search
from nasengine.terms import bounds_of_cut, ends, term_arrays

SAMPLES = 300
SECONDS = 1.0
"""Samples are no more than these, and take no longer; 20 are taken however long it takes."""

MEASURED_SECONDS = 10.0
"""No network is measured for a range when those after the first have taken so long."""

_LEAST = 20
_MEASURED = 4  # networks drawn, beside the cheapest and the dearest

Value = Callable[[Architecture], float | None]
"""A metric's value of a network; None where it cannot be measured."""


@dataclass(frozen=True)
class Range:
    """What a metric comes to over a space.

    Parameters
    ----------
    smallest, median, largest
        In the metric's unit.
    exact
        Whether smallest and largest are those of the whole space, or of the sampled networks.
    """

    smallest: float
    median: float
    largest: float
    exact: bool

    def text(self, unit: str) -> str:
        """Say it.

        Examples
        --------
        >>> Range(310e3, 900e3, 1.97e6, exact=True).text("parameters")
        '310.00k to 1.97M'
        """
        return f"{format_quantity(self.smallest, unit)} to {format_quantity(self.largest, unit)}"


def metric_range(search: Search, name: str) -> Range | None:
    """Return what a metric comes to over the space; None if that would have to be timed or trained.

    Smallest and largest are exact in a small space, and for a metric with a cost table where no
    candidate cuts its connection (unless very many widths belong together); else they are those of
    up to 300 networks, drawn by the seed, and of the cheapest and the dearest by the table. The
    median is that of networks drawn.

    Parameters
    ----------
    search
        The search.
    name
        A metric's full name: ``parameters``, ``memory.training``.
    """
    value = counted_value(search, name)
    return None if value is None else range_of(search, name, value)


def predicted_range(search: Search, key: str) -> Range:
    """Return what a cost comes to by its table, where that was timed: as good as predictions."""
    predict = search.cost_table(key).predict
    drawn = [value for _, value in draw_values(search, key, predict)]
    every = [*drawn, *map(predict, _ends(search, key))]
    return Range(min(every), median(drawn), max(every), exact=False)


@dataclass(frozen=True)
class Few:
    """What an estimator measured of a few networks: by its own names of metrics.

    Parameters
    ----------
    networks
        Of the space.
    references
        Reference networks, by name.
    reason
        Why one could not be measured; empty where all could.
    """

    networks: Sequence[Mapping[str, float]]
    references: Mapping[str, Mapping[str, float]]
    reason: str = ""

    def values(self, metric: str) -> list[float]:
        """Return a metric of the space's networks."""
        return [found[metric] for found in self.networks if metric in found]

    def range(self, metric: str) -> Range | None:
        """Return what a metric ranges over; None where it has no value."""
        values = self.values(metric)
        return Range(min(values), median(values), max(values), exact=False) if values else None


def measure_few(search: Search, key: str, references: Sequence[str]) -> Few:
    """Measure a few networks by one estimator, for some seconds.

    Those are the cheapest and the dearest by another metric that is counted, the references, and
    some that are drawn. The first may take as long as it takes: an estimator may get to know the
    machine by it.
    """
    known = {reference: search.space.reference(reference) for reference in references}
    first, *others = (("", architecture) for architecture in _telling(search, key))
    networks = [first, *known.items(), *others]
    few: list[Mapping[str, float]] = []
    found: dict[str, Mapping[str, float]] = {}
    reason, end = "", math.inf
    alone = replace(search, estimators={key: search.estimators[key]})
    primary = search.estimators[key].metrics(search)[0].name
    with search.reporter.progress(f"what {key} ranges over", len(networks)) as progress:
        for reference, architecture in networks:
            if few and time.monotonic() > end:
                break
            measured = measure(alone, Job("range", architecture, stop_early=False))
            values = {own_name(name, primary): m.value for name, m in measured.measurements.items()}
            if measured.reason:
                reason = measured.reason.removeprefix(f"{key}: ")
            elif reference:
                found[reference] = values
            else:
                few.append(values)
            end = min(end, time.monotonic() + MEASURED_SECONDS)
            progress.advance()
    return Few(few, found, reason)


def _telling(search: Search, key: str) -> list[Architecture]:
    """Return networks that show a range: the ends of what is counted, and some drawn."""
    tabled = [name for name in search.estimators if has_table(search, name)]
    ends = _ends(search, tabled[0]) if tabled else []
    rng = search.stream("range", key)
    drawn = [sample(search.space.decisions, rng) for _ in range(_MEASURED)]
    return list(dict.fromkeys([*ends, *drawn]))


def counted_value(search: Search, name: str) -> Value | None:
    """Return what counts a metric of a network; None where it would be timed or trained."""
    estimator = search.estimators[estimator_of(name)]
    if not estimator.counts:
        return None
    own = own_name(name, estimator.metrics(search)[0].name)

    def value(architecture: Architecture) -> float | None:
        try:
            found = estimator.measure(Candidate(architecture, search, "range", {}))
        except Exception:  # noqa: BLE001 a candidate may raise anything; the search will tell
            return None
        return found[own].value if own in found and math.isfinite(found[own].value) else None

    return value


def range_of(search: Search, name: str, value: Value) -> Range | None:
    """Return what a metric comes to over the space, as `value` counts it; None where it fails."""
    table = table_value(search, name)
    small, cut = search.space.size <= SAMPLES, has_cuts(search)
    ends = _ends_of_table(search, name, value) if table else []
    found = [v for _, v in draw_values(search, name, value if small and cut else table or value)]
    if not found:
        return None
    if small and cut:
        ends = []  # Every network was measured: no prediction widens that.
    exact = small or (table is not None and not cut and _ends_are_bounds(search, name))
    return Range(min([*found, *ends]), median(found), max([*found, *ends]), exact)


def has_cuts(search: Search) -> bool:
    """Say whether a candidate cuts its connection: then costs are no plain sums over slots."""
    return "zero" in meanings(search.space.graph).values()


def has_table(search: Search, name: str) -> bool:
    """Say whether a metric is counted and has a cost table."""
    return is_primary(name) and search.estimators[name].has_table and search.estimators[name].counts


def table_value(search: Search, name: str) -> Value | None:
    """Return the prediction of a metric's cost table, where it is counted and has one."""
    return search.cost_table(name).predict if has_table(search, name) else None


def _ends_of_table(search: Search, name: str, value: Value) -> list[float]:
    """Return the cheapest and the dearest network, by the table and as measured.

    A network may cost less than the table says, where what a cut leaves without use falls away.
    """
    predict = search.cost_table(name).predict
    ends = [v for end in _ends(search, name) for v in (predict(end), value(end))]
    return [end for end in ends if end is not None]


def _ends(search: Search, name: str) -> list[Architecture]:
    """Return the cheapest network by the sums of a cost table's choices, and the dearest."""
    decisions = search.space.decisions
    return [
        Architecture({n: choices[end.cheapest[n]] for n, choices in decisions.items()})
        for end in ends(_terms(search, name))
    ]


def _ends_are_bounds(search: Search, name: str) -> bool:
    """Say whether no network is cheaper than the cheapest that was found, or dearer."""
    return all(end.is_exact for end in ends(_terms(search, name)))


def surely_within(search: Search, name: str) -> tuple[float, float]:
    """Return what no network's cost can be below or above, by the metric's table."""
    table, terms = search.cost_table(name), _terms(search, name)
    if not has_cuts(search):
        cheapest, dearest = ends(terms)
        return table.fixed + cheapest.least, table.fixed - dearest.least
    low, high = bounds_of_cut(table, terms)
    # Else `fixed` may hold what a cut takes out.
    known = bool(table.operations or table.sums or table.zeros)
    return low if known else -math.inf, high


def _terms(search: Search, name: str) -> Terms:
    return term_arrays(search.cost_table(name).terms(), search.space.decisions)


def draw_values(search: Search, name: str, value: Value) -> Iterator[tuple[Architecture, float]]:
    """Yield networks with their value: all of a small space, else up to 300 of it."""
    decisions, rng = search.space.decisions, search.stream("range", name)
    every: Iterator[Architecture] = enumerate_all(decisions)
    if search.space.size > SAMPLES:
        every = (sample(decisions, rng) for _ in range(SAMPLES))
    started = time.monotonic()
    for number, architecture in enumerate(every):
        late = time.monotonic() - started > SECONDS
        if late and number >= _LEAST and search.space.size > SAMPLES:
            return
        found = value(architecture)
        if found is not None:
            yield architecture, found
