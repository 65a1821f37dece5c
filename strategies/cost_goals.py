"""What a gradient search is asked to pay for: costs weighed by beta or held under targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from nasengine.errors import ArchitectureError, SpecError, did_you_mean
from nasengine.machine import busy
from nasengine.plugin import changed
from nasengine.quantities import parse_quantity
from nasengine.terms import ROUNDING, term_arrays

from .costs import Cost

if TYPE_CHECKING:
    from nasengine.architecture import Architecture
    from nasengine.search import Search


class CostGoal(BaseModel):
    """How one cost enters a gradient search: by a weight, by a target, or by several targets."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )

    beta: float = Field(0.0, ge=0, le=1)
    """The lightweight coefficient of the paper's equation (1)."""
    target: float | str | None = None
    """The derived architecture's cost is at most this: a number, "5 ms" or "60% of unet"."""
    targets: tuple[float | str, ...] = ()
    """Several: one architecture is derived for each, all from the same trained supernet."""
    tolerance: float = Field(0.1, ge=0, le=1)
    """How far below a target the derived cost may lie, as a share of it, where the space allows;
    1 for as far as the alphas say."""

    @model_validator(mode="after")
    def _one_kind(self) -> CostGoal:
        if self.target is not None and self.targets:
            raise ValueError("give target or targets, not both")
        if self.beta and (self.target is not None or self.targets):
            raise ValueError("give beta or a target, not both")
        if "tolerance" in changed(self) and self.target is None and not self.targets:
            raise ValueError("tolerance belongs to a target, and there is none")
        return self


def _goal(value: Any) -> Any:
    """Read a bare number as beta; tables are for pydantic, also in strict mode."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return {"beta": float(value)}
    if not isinstance(value, (Mapping, CostGoal)):
        raise ValueError("a number (beta) or a table such as { target = '5 ms' } is needed")
    return value


Costs = dict[str, Annotated[CostGoal, BeforeValidator(_goal)]]
"""The setting: estimator to beta (a bare number) or to a table with a target."""

_FAR = 5.0
"""A measured table may read so many times too high, where the machine has other work: only limits
further than that below every network are refused."""


def check_costs(goals: Mapping[str, CostGoal], search: Search) -> None:
    """Refuse costs that the search cannot have.

    Raises
    ------
    SpecError
        Naming the cost: no such estimator, one without a table, a target that nothing meets.
    """
    for key in goals:
        check_table(f"strategy.cost.{key}", key, search)
    # Summed exactly: 0.33, 0.56 and 0.11 would be more than 1.
    total = fsum(goal.beta for goal in goals.values())
    if total > 1:
        raise SpecError(f"strategy.cost: the betas sum to {total:g}; at most 1 is allowed")
    if any(goal.target is not None or goal.targets for goal in goals.values()):
        # Only targets need the tables before the search begins.
        resolve_costs(goals, search)


def check_table(where: str, key: str, search: Search) -> None:
    """Refuse an estimator that is not there or has no cost table.

    Raises
    ------
    SpecError
        Naming the setting, and the estimators that have one.
    """
    if key not in search.estimators:
        raise SpecError(f"{where}: no estimator {key!r}; {did_you_mean(key, search.estimators)}")
    if not search.estimators[key].has_table:
        tabled = [name for name, e in search.estimators.items() if e.has_table]
        raise SpecError(
            f"{where}: the estimator {key!r} has no cost table (what it measures is not a sum "
            f"over slots); those that have one: {', '.join(tabled) or 'none here'}"
        )


def is_weighed(goals: Mapping[str, CostGoal], search: Search) -> bool:
    """Say whether a cost is part of the loss: by a beta, by a target, or by a limit."""
    weighed = any(goal.beta or goal.target is not None for goal in goals.values())
    return weighed or bool(_allowed(search))


def _allowed(search: Search) -> dict[str, float]:
    """Return what the objectives allow at most, of costs that have a table."""
    return {
        limit.metric: limit.at_most
        for limit in search.objectives.limits
        if limit.at_most is not None
        and limit.metric in search.estimators
        and search.estimators[limit.metric].has_table
    }


def resolve_costs(goals: Mapping[str, CostGoal], search: Search) -> tuple[Cost, ...]:
    """Return the costs with their tables and with their targets as numbers.

    Limits of the spec's objectives that a table speaks of are among them, asked for or not.

    Raises
    ------
    SpecError
        If a target or limit is beyond the space, alone or together with the others.
    """
    allowed = _allowed(search)
    every = {**goals, **{key: CostGoal() for key in allowed if key not in goals}}
    costs = tuple(_resolve(key, goal, search, allowed.get(key)) for key, goal in every.items())
    limits = {
        cost.key: cost.within_reach(min(v for v in (*cost.targets, cost.limit) if v is not None))
        for cost in costs
        if cost.targets or cost.limit is not None
    }
    doubtful = any(cost.doubtful(limits[cost.key]) for cost in costs if cost.key in limits)
    if len(limits) > 1 or doubtful:
        from .cut_derivation import best_within

        decisions = search.space.decisions
        zeros = {name: (0.0,) * len(choices) for name, choices in decisions.items()}
        if not best_within(zeros, costs, limits, {}, 1, decisions):
            listed = ", ".join(f"{c.key} {c.text(limits[c.key])}" for c in costs if c.key in limits)
            raise SpecError(f"strategy.cost: no architecture meets these targets at once: {listed}")
    return costs


def _resolve(key: str, goal: CostGoal, search: Search, limit: float | None) -> Cost:
    table = search.cost_table(key)
    where = f"strategy.cost.{key}.{'targets' if goal.targets else 'target'}"
    given = goal.targets or (() if goal.target is None else (goal.target,))
    targets = tuple(_target(text, where, key, search) for text in given)
    target = targets[0] if goal.target is not None else None
    cost = Cost(
        key,
        table.unit,
        table.fixed,
        term_arrays(table.terms(), search.space.decisions),
        goal.beta,
        target,
        targets,
        goal.tolerance,
        limit,
        search.estimators[key].counts,
        frozenset(search.space.graph.widths),
        table,
    )
    asked = [(where, str(text), value) for text, value in zip(given, targets, strict=True)]
    if limit is not None:
        asked.append((f"objectives.{key}.at_most", cost.text(limit), limit))
    _refuse_unreachable(cost, asked)
    return cost


def _refuse_unreachable(cost: Cost, asked: Sequence[tuple[str, str, float]]) -> None:
    """Refuse limits (where they are asked for, as what, and as a number) that nothing meets."""
    low, high = cost.range
    least = (low if cost.counts else low / _FAR) * (1 - ROUNDING)
    for place, text, value in asked:
        if value < least:
            raise SpecError(
                f"{place}: {text} is below every architecture of the space, which range from "
                f"{cost.text(low)} to {cost.text(high)}{'' if cost.counts else _timed()}"
            )


def _timed() -> str:
    """Say where times are those of a machine that has other work to do."""
    under = busy()
    return f", timed{under}: on a quiet machine they take less" if under else ""


def _target(given: float | str, where: str, key: str, search: Search) -> float:
    table = search.cost_table(key)
    quantity = parse_quantity(given, where=where, unit=table.unit)
    reference_value = None
    if quantity.reference:
        try:
            reference: Architecture = search.space.reference(quantity.reference)
        except ArchitectureError as error:
            raise SpecError(f"{where}: {error}") from error
        reference_value = table.predict(reference)
    return quantity.to(
        table.unit,
        where=where,
        reference_value=reference_value,
        references=search.space.references(),
    )
