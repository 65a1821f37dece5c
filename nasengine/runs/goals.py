"""A spec's objectives as numbers: limits in their metrics' units, some relative to a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from nasengine.errors import SpecError, did_you_mean
from nasengine.estimator import by_effort
from nasengine.metric_names import estimator_of, full_name
from nasengine.objectives import Objective, Objectives
from nasengine.quantities import as_share, parse_quantity
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
    asking = _Asking(search, known_metrics(search), _reference_values(search, given))
    items = [asking.objective(name, wanted) for name, wanted in asked.items()]
    # Nothing is asked by a relative limit before its reference is measured, and by a share of 100%.
    objectives = Objectives(tuple(item for item in items if item != Objective(item.metric)))
    if not objectives.goals:
        raise SpecError('objectives: one with a goal ("max" or "min") is needed')
    return objectives


@dataclass(frozen=True)
class _Asking:
    """What a spec's objectives are read by."""

    search: Search
    metrics: Mapping[str, Metric]
    reference_value: ReferenceValue

    def objective(self, name: str, wanted: Direction | GoalTable) -> Objective:
        """Return an objective in its metric's unit."""
        where = f"objectives.{name}"
        if name not in self.metrics:
            raise SpecError(f"{where}: no such metric; {nearest_metric(name, self.metrics)}")
        self._refuse_test(name)
        table = wanted if isinstance(wanted, GoalTable) else GoalTable(goal=wanted)
        if not table.model_dump(exclude_none=True):
            raise SpecError(f"{where}: a goal, at_most, at_least or among_best is needed")
        most = self._limit(table.at_most, name, f"{where}.at_most")
        least = self._limit(table.at_least, name, f"{where}.at_least")
        if most is not None and least is not None and least > most:
            raise SpecError(f"{where}: at_least {table.at_least} is above at_most {table.at_most}")
        share = self._share(table.among_best, name, f"{where}.among_best")
        # What a search is asked for goes before what a metric usually is better for.
        screen = Screen(share, table.goal or self.metrics[name].direction) if share < 1 else None
        return Objective(name, table.goal, most, least, screen)

    def _refuse_test(self, name: str) -> None:
        """Refuse to choose networks by what is kept for judging them."""
        if of := self.metrics[name].test_of:
            key = estimator_of(name)
            own = full_name(key, of, self.metrics[key].name)
            raise SpecError(
                f"objectives.{name}: networks are chosen by validation, and the test split is for "
                f"the last word; take {own!r}"
            )

    def _limit(self, given: float | str | None, metric: str, where: str) -> float | None:
        """Return a limit in its metric's unit; None without one, or before its reference is known.

        Raises
        ------
        SpecError
            If it is of another dimension, or relative to what is no reference.
        """
        if given is None:
            return None
        unit, known = self.metrics[metric].unit, self.search.space.references()
        quantity = parse_quantity(given, where=where, unit=unit)
        if not quantity.reference:
            return quantity.to(unit, where=where, references=known)
        if quantity.reference not in known:
            near = nearest_reference(quantity.reference, known)
            raise SpecError(f"{where}: no reference network {quantity.reference!r}; {near}")
        value = self.reference_value(quantity.reference, metric)
        return None if value is None else quantity.to(unit, where=where, reference_value=value)

    def _share(self, given: float | str | None, metric: str, where: str) -> float:
        """Return which share of the trials goes on from a metric: all without a screen.

        Raises
        ------
        SpecError
            If it is no share, or nothing is measured after it that it could spare.
        """
        if given is None:
            return 1.0
        share = as_share(given)
        if share is None:
            raise SpecError(
                f"{where}: {given!r} is no share of the trials; one above 0 and up to 1 is, such "
                f'as 0.33 or "33%"'
            )
        order = [key for key, _ in by_effort(self.search.estimators)]
        if estimator_of(metric) == order[-1]:
            raise SpecError(
                f"{where}: nothing is measured after {metric}, so it spares nothing; estimators "
                f"run in this order: {', '.join(order)} (cheap ones first, then as in the spec)"
            )
        return share


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
