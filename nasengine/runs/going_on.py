"""Whether a trial is measured further, and what is said where it is not: limits and screens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial

from nasengine.metric_names import estimator_of, own_name
from nasengine.objectives import Objective
from nasengine.quantities import format_quantity
from nasengine.runs.execution import Measured
from nasengine.screen import BAR, with_bars
from nasengine.search import Search
from nasengine.trial import Measurement, Status, Trial


def held_against(
    search: Search, measured: Measured, known: Collection[str], others: Iterable[Trial]
) -> Measured:
    """Return how a trial goes on that is measured in part: still running, or screened.

    Parameters
    ----------
    search
        The search.
    measured
        What was measured of it.
    known
        The metrics that it had before.
    others
        Trials, of which some have the metrics that screen.
    """
    bars = search.objectives.bars(others)
    new = {metric: bar for metric, bar in bars.items() if metric not in known}
    found = with_bars(measured.measurements, new)
    told = _say_held_back(search, found)
    status = Status.SCREENED if told else Status.RUNNING
    return replace(measured, status=status, measurements=found, reason=told)


def say_broken(search: Search, found: Mapping[str, Measurement]) -> str:
    """Say which limits are broken, by what; empty where none is."""
    return "; ".join(
        f"{limit.metric} is {written(search, limit)(found[limit.metric].value)}, "
        f"{limit.asked(written(search, limit))} is asked"
        for limit in broken_limits(search, found)
    )


def broken_limits(search: Search, found: Mapping[str, Measurement]) -> list[Objective]:
    """Return the limits that what was measured breaks."""
    limits = search.objectives.limits
    return [i for i in limits if i.metric in found and i.violation(found[i.metric].value) > 0]


def _say_held_back(search: Search, found: Mapping[str, Measurement]) -> str:
    screens, told = search.objectives.screens, []
    items = {item.metric: item for item in search.objectives.items}
    for metric in search.objectives.held_back(found):
        write = written(search, items[metric])
        bar = write(found[metric].details[BAR])
        asked = screens[metric].asked()
        told.append(f"{metric} is {write(found[metric].value)}; to be {asked} takes {bar}")
    return "; ".join(told)


def written(search: Search, limit: Objective) -> Callable[[float], str]:
    """Return what writes values of a limit's metric, in its unit."""
    return partial(format_quantity, unit=_unit_of(search, limit.metric))


def _unit_of(search: Search, metric: str) -> str:
    metrics = search.estimators[estimator_of(metric)].metrics(search)
    name = own_name(metric, metrics[0].name)
    return next(m.unit for m in metrics if m.name == name)
