"""A spec's objectives as numbers: limits in their metrics' units, some relative to a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from nasengine.errors import SpecError, did_you_mean
from nasengine.estimator import by_effort
from nasengine.metric_names import estimator_of, full_name
from nasengine.objectives import Objective, Objectives
from nasengine.quantities import parse_quantity
from nasengine.runs.composition import in_part
from nasengine.runs.execution import Job
from nasengine.runs.measuring import measure
from nasengine.runs.spec import GoalTable
from nasengine.screen import Screen
from nasengine.search import Search
from nasengine.trial import Direction, Metric, Status

ReferenceValue = Callable[[str, str], float | None]
"""Returns (reference network, metric) as measured, for limits such as ``60% of unet``; None
before it is measured: the limit is left out."""


def not_yet_measured(reference: str, metric: str) -> float | None:  # noqa: ARG001
    """Give no reference's value: limits relative to what is timed or trained are left out."""
    return None


def nearest_metric(name: str, metrics: Mapping[str, Metric]) -> str:
    """Say which metrics there are, first the one of that name; never a test metric."""
    own = sorted((full for full, m in metrics.items() if m.name == name), key=len)
    untested = [full for full, metric in metrics.items() if not metric.test_of]
    listed = ", ".join(sorted(metrics))
    if own:
        return f"did you mean {own[0]!r}? Allowed: {listed}"
    guess, close, _ = did_you_mean(name, untested).partition("?")
    return f"{guess}? Allowed: {listed}" if close else f"allowed: {listed}"


def nearest_reference(name: str, known: Iterable[str]) -> str:
    """Say which reference networks there are, the nearest name first."""
    names = [*known]
    return did_you_mean(name, names) if names else "the space has no reference networks"


def known_metrics(search: Search) -> dict[str, Metric]:
    """Return every metric that a search's estimators measure, by its full name."""
    found = {}
    for key, estimator in by_effort(search.estimators):
        with in_part(f"estimators.{key}"):
            metrics = estimator.metrics(search)
        for metric in metrics:
            found[full_name(key, metric.name, metrics[0].name)] = metric
    return found


def objectives_of(
    asked: Mapping[str, Direction | GoalTable], search: Search, given: ReferenceValue | None
) -> Objectives:
    """Return a spec's objectives, with limits in the units of their metrics.

    Parameters
    ----------
    asked
        The spec's.
    search
        Its space, its estimators.
    given
        Gives a reference network's value; by default it is measured here. What is counted is
        counted here at once.

    Raises
    ------
    SpecError
        If there is no such metric or reference, one is of the test split, or a limit is none of
        its metric.
    """
    metrics, reference_value = known_metrics(search), _reference_values(search, given)
    items = []
    for name, wanted in asked.items():
        if name not in metrics:
            near = nearest_metric(name, metrics)
            raise SpecError(f"objectives.{name}: no such metric; {near}")
        _refuse_test(name, metrics)
        table = wanted if isinstance(wanted, GoalTable) else GoalTable(goal=wanted)
        items.append(_objective(name, table, metrics[name], search, reference_value))
    # Nothing is asked by a relative limit before its reference is measured, and by a share of 100%.
    objectives = Objectives(tuple(item for item in items if item != Objective(item.metric)))
    if not objectives.goals:
        raise SpecError('objectives: one with a goal ("max" or "min") is needed')
    return objectives


def _objective(
    name: str, table: GoalTable, metric: Metric, search: Search, reference_value: ReferenceValue
) -> Objective:
    where = f"objectives.{name}"
    if not table.model_dump(exclude_none=True):
        raise SpecError(f"{where}: a goal, at_most, at_least or among_best is needed")
    most, least = (
        _limit(limit, f"{where}.{key}", name, metric.unit, search, reference_value)
        for key, limit in (("at_most", table.at_most), ("at_least", table.at_least))
    )
    if most is not None and least is not None and least > most:
        raise SpecError(f"{where}: at_least {table.at_least} is above at_most {table.at_most}")
    share = _share(table.among_best, f"{where}.among_best", name, search)
    # What a search is asked for goes before what a metric usually is better for.
    screen = None if share == 1 else Screen(share, table.goal or metric.direction)
    return Objective(name, table.goal, most, least, screen)


def _refuse_test(name: str, metrics: Mapping[str, Metric]) -> None:
    """Refuse to choose networks by what is kept for judging them."""
    if of := metrics[name].test_of:
        key = estimator_of(name)
        raise SpecError(
            f"objectives.{name}: networks are chosen by validation, and the test split is for the "
            f"last word; take {full_name(key, of, metrics[key].name)!r}"
        )


def _limit(
    given: float | str | None,
    where: str,
    metric: str,
    unit: str,
    search: Search,
    reference_value: ReferenceValue,
) -> float | None:
    """Return a limit in its metric's unit; None without one, or before its reference is known."""
    if given is None:
        return None
    quantity = parse_quantity(given, where=where, unit=unit)
    if not quantity.reference:
        return quantity.to(unit, where=where, references=search.space.references())
    known = search.space.references()
    if quantity.reference not in known:
        near = nearest_reference(quantity.reference, known)
        raise SpecError(f"{where}: no reference network {quantity.reference!r}; {near}")
    value = reference_value(quantity.reference, metric)
    return None if value is None else quantity.to(unit, where=where, reference_value=value)


def _share(given: float | str | None, where: str, name: str, search: Search) -> float:
    """Return which share of the trials goes on from a metric: all without a screen.

    Raises
    ------
    SpecError
        If it is no share, or nothing is measured after it that it could spare.
    """
    if given is None:
        return 1.0
    share = _number(given, where)
    if not 0 < share <= 1:
        raise SpecError(
            f"{where}: {given!r} is no share of the trials; one above 0 and up to 1 is, such as "
            f'0.33 or "33%"'
        )
    order = [key for key, _ in by_effort(search.estimators)]
    if estimator_of(name) == order[-1]:
        raise SpecError(
            f"{where}: nothing is measured after {name}, so it spares nothing; estimators run in "
            f"this order: {', '.join(order)} (cheap ones first, then as in the spec)"
        )
    return share


def _number(given: float | str, where: str) -> float:
    """Return a number or a percentage as a number; NaN for what is neither."""
    with suppress(SpecError):
        quantity = parse_quantity(given, where=where)
        if not quantity.reference:
            return quantity.to("", where=where)
    return math.nan


def _reference_values(search: Search, given: ReferenceValue | None) -> ReferenceValue:
    """Return what gives a reference's values: measured by the one estimator that is asked about.

    What is not counted is taken from `given`, where there is one.
    """

    def value(reference: str, metric: str) -> float | None:
        key = estimator_of(metric)
        if given is not None and not search.estimators[key].counts:
            return given(reference, metric)
        alone = replace(search, estimators={key: search.estimators[key]})
        architecture = search.space.reference(reference)
        measured = measure(alone, Job(f"reference-{reference}", architecture, stop_early=False))
        if measured.status is not Status.COMPLETE:
            raise SpecError(
                f"objectives.{metric}: {reference} could not be measured: {measured.reason}"
            )
        return measured.measurements[metric].value

    return value
