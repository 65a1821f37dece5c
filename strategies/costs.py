"""One cost of a gradient search: what networks cost, by its table, and what it works towards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from nasengine.quantities import format_quantity
from nasengine.terms import bounds_of_cut, ends, total

if TYPE_CHECKING:
    from nasengine.elimination import Eliminated, Floats, Names
    from nasengine.estimator import CostTable


@dataclass(frozen=True, eq=False)
class Cost:
    """One cost of a search, resolved against the space.

    Parameters
    ----------
    key
        The estimator's key in the spec.
    unit
        Of the table.
    fixed
        The cost of all that is not searched.
    terms
        What networks cost besides: one decision's choices each, and where channels are searched,
        those of several together.
    beta
        Its weight in equation (1).
    target
        The limit that the search itself works towards; None for none.
    targets
        Every limit for which an architecture is derived.
    tolerance
        How far below a target the derived cost may lie, as a share of it.
    limit
        What the spec's objectives allow at most; None for no limit.
    counts
        Whether the table is exact, not measured.
    widths
        The decisions on numbers of channels.
    table
        What costs are predicted by; without it, by the terms alone. Where a choice may cut a
        connection, gradients go by the terms, and networks cost less than they say.
    """

    key: str
    unit: str
    fixed: float
    terms: Mapping[Names, Floats]
    beta: float = 0.0
    target: float | None = None
    targets: tuple[float, ...] = ()
    tolerance: float = 0.1
    limit: float | None = None
    counts: bool = True
    widths: frozenset[str] = frozenset()
    table: CostTable | None = None

    @property
    def aim(self) -> float | None:
        """What the search itself works towards: the target or the limit, whichever is lower."""
        return min((v for v in (self.target, self.limit) if v is not None), default=None)

    def predict(
        self, architecture: Mapping[str, str], decisions: Mapping[str, Sequence[str]]
    ) -> float:
        """Return the cost of a whole network, by the table."""
        if self.table is not None and self.cuts:
            choices = tuple(architecture[name] for name in decisions)
            if choices not in self._weighed:
                self._weighed[choices] = self.table.predict(architecture)
            return self._weighed[choices]
        chosen = {name: decisions[name].index(architecture[name]) for name in decisions}
        return self.fixed + total(self.terms, chosen)

    @cached_property
    def cuts(self) -> bool:
        """Whether a choice may cut a connection, so that the cost is no sum of the terms."""
        return self.table is not None and self.table.cuts

    @cached_property
    def _weighed(self) -> dict[tuple[str, ...], float]:
        """Networks that were predicted, by their choices: each derivation asks for the same."""
        return {}

    @cached_property
    def range(self) -> tuple[float, float]:
        """The cheapest and the dearest network of the space by the table; bounds where it cuts.

        And where more widths belong together than `nasengine.elimination` keeps apart.
        """
        if self.table is not None and self.cuts:
            return bounds_of_cut(self.table, self.terms)
        cheapest, dearest = self._ends
        return self.fixed + cheapest.least, self.fixed - dearest.least

    @cached_property
    def _ends(self) -> tuple[Eliminated, Eliminated]:
        return ends(self.terms)

    def doubtful(self, limit: float) -> bool:
        """Whether it takes a search to say that networks are within a limit in the range."""
        return limit < self.fixed + self._ends[0].reached

    def within_reach(self, limit: float) -> float:
        """Return a limit, or what the cheapest network costs by a measured table above it.

        The table may read too high: the cheapest network is the nearest then.
        """
        return limit if self.counts else max(limit, self.range[0])

    @property
    def shares(self) -> Mapping[Names, Floats]:
        """P_ij / sum_j P_ij of equation (4), for each term; zeros where all cost nothing.

        Where a slot's channels are searched, the sum over its candidates is that at the mean of
        the widths. What depends on widths alone (an operation) is weighed by its part in the
        whole, since equation (4) is of slots.
        """
        whole = float(sum(costs.mean() for costs in self.terms.values()))
        return {
            names: costs / ((whole if names[0] in self.widths else _of_slot(costs)) or 1.0)
            for names, costs in self.terms.items()
        }

    @cached_property
    def rows(self) -> dict[str, Floats]:
        """Decision to the cost of each choice, all told: at the mean of what it depends on."""
        found: dict[str, Floats] = {}
        for names, costs in self.terms.items():
            for axis, name in enumerate(names):
                others = tuple(other for other in range(len(names)) if other != axis)
                found[name] = found.get(name, 0.0) + costs.mean(others)
        return found

    @property
    def free(self) -> tuple[str, ...]:
        """The decisions whose choices all cost nothing here."""
        return tuple(name for name, row in self.rows.items() if not row.any())

    def text(self, value: float) -> str:
        """Write a value with its unit."""
        return format_quantity(value, self.unit)


def _of_slot(costs: Floats) -> float:
    """Return the sum over the choices of the first decision, at the mean of the others'."""
    return float(costs.sum() / costs[0].size)
