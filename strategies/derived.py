"""What a gradient search proposes: the best architectures by its alphas, within its targets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nasengine.architecture import Architecture

from .alphas import derive, log_probabilities
from .as_measured import hold
from .cost_goals import CostGoal, resolve_costs
from .costs import Cost
from .cut_derivation import best_within

if TYPE_CHECKING:
    from torch import Tensor

    from nasengine.history import History
    from nasengine.search import Search

_MOST = 4096


@dataclass(frozen=True)
class Derived:
    """An architecture that a search derived.

    Parameters
    ----------
    architecture
        What is proposed.
    key
        Its canonical key.
    score
        The sum of log softmax(alpha) of its choices.
    predicted
        Cost to its value by the table.
    targets
        Cost to the limit that it was derived for.
    costs
        The costs, for their units.
    moved
        Decisions that are not the arg-max.
    measured
        Cost to its value as measured, of costs that are measured.
    derivations
        How often it took to derive for the targets to hold as measured.
    """

    architecture: Architecture
    key: str
    score: float
    predicted: Mapping[str, float]
    targets: Mapping[str, float]
    costs: Sequence[Cost] = ()
    moved: tuple[str, ...] = field(default=())
    measured: Mapping[str, float] = field(default_factory=dict)
    derivations: int = 1

    def facts(self) -> dict[str, Any]:
        """Return what is kept in the log."""
        return {
            "architecture": dict(self.architecture),
            "score": self.score,
            "predicted": dict(self.predicted),
            "targets": dict(self.targets),
            "moved": list(self.moved),
            "measured": dict(self.measured),
            "factors": {k: v / (self.predicted[k] or 1.0) for k, v in self.measured.items()},
            "derivations": self.derivations,
        }

    def text(self) -> str:
        """Say what was derived in a line."""
        parts = [self._cost_text(cost) for cost in self.costs]
        moved = f"; not the arg-max at {', '.join(self.moved)}" if self.moved else ""
        predicted = f", predicted {', '.join(parts)}" if parts else ""
        again = f"; derived {self.derivations} times" if self.derivations > 1 else ""
        return f"derived {self.architecture.said}{predicted}{moved}{again}"

    def missed(self) -> list[str]:
        """Say which targets do not hold as measured."""
        return [
            f"no derived architecture was measured within {cost.key} "
            f"{cost.text(self.targets[cost.key])}: the nearest has {cost.text(value)}"
            for cost in self.costs
            if (value := self.measured.get(cost.key, 0.0)) > self.targets.get(cost.key, math.inf)
        ]

    def _cost_text(self, cost: Cost) -> str:
        """Say one cost: predicted, asked, measured."""
        key, predicted = cost.key, self.predicted[cost.key]
        facts = [f"target {cost.text(self.targets[key])}"] if key in self.targets else []
        if key in self.measured:
            value = self.measured[key]
            facts.append(f"measured {cost.text(value)}, {value / (predicted or 1.0):.2f} times")
        said = f" ({', '.join(facts)})" if facts else ""
        return f"{key} {cost.text(predicted)}{said}"


def derive_all(
    goals: Mapping[str, CostGoal], top_k: int, search: Search, alphas: Mapping[str, Tensor]
) -> list[Derived]:
    """Return the `top_k` best architectures, for every target the best within it.

    Those that compute the same count as one. Targets on what is measured hold as measured.
    """
    costs = resolve_costs(goals, search)
    found: dict[str, Derived] = {}

    def derive_within(limits: Mapping[str, float], floors: Mapping[str, float]) -> list[Derived]:
        return _best(top_k, search, alphas, costs, limits, floors)

    for limits in _limits(costs):
        for derived in hold(derive_within, limits, costs, search):
            found.setdefault(derived.key, derived)
    return list(found.values())


def propose_derived(
    found: Sequence[Derived], history: History, count: int, search: Search
) -> list[Architecture]:
    """Return up to `count` that are not in the history, and tell of each.

    And, at first, of those that the search has begun with.
    """
    fresh = [derived for derived in found if derived.key not in history.keys][:count]
    is_first = len(history) == len(search.start)
    known = [derived for derived in found if is_first and derived.key in history.keys]
    for derived in [*known, *fresh]:
        search.reporter.record("darts_derived", derived.facts())
        search.reporter.note(derived.text())
        for text in derived.missed():
            search.reporter.warn(text)
    return [derived.architecture for derived in fresh]


def _limits(costs: Sequence[Cost]) -> Iterator[dict[str, float]]:
    """Yield the limits to derive under: one set for each of several targets."""
    single = {cost.key: cost.aim for cost in costs if cost.aim is not None}
    several = next((cost for cost in costs if cost.targets and cost.target is None), None)
    if several is None:
        yield single
        return
    for target in several.targets:
        yield {**single, several.key: min(target, single.get(several.key, target))}


def _best(
    count: int,
    search: Search,
    alphas: Mapping[str, Tensor],
    costs: Sequence[Cost],
    limits: Mapping[str, float],
    floors: Mapping[str, float],
) -> list[Derived]:
    """Return the `count` best that compute different things."""
    decisions = search.space.decisions
    scores = log_probabilities(alphas)
    arg_max = derive(alphas, decisions)
    asked = count
    while True:
        found: dict[str, Derived] = {}
        listed = best_within(scores, costs, limits, floors, asked, decisions)
        for choices in listed:
            architecture = Architecture(
                {name: decisions[name][i] for name, i in zip(decisions, choices, strict=True)}
            )
            derived = Derived(
                architecture,
                search.space.key(architecture),
                sum(scores[name][i] for name, i in zip(decisions, choices, strict=True)),
                {cost.key: cost.predict(architecture, decisions) for cost in costs},
                dict(limits),
                costs,
                tuple(n for n in decisions if architecture[n] != arg_max[n]) if count == 1 else (),
            )
            found.setdefault(derived.key, derived)
        if len(found) >= count or len(listed) < asked or asked >= _MOST:
            return list(found.values())[:count]
        asked *= 2
