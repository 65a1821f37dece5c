"""Targets held as measured: what was derived is measured, and derived again where a table misled.

A table predicts what a network costs, from what its parts cost when the table was made; asked for
is what the network costs on the device, by the estimator that will judge the trial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from nasengine.errors import StorageError
from nasengine.estimator import Candidate
from nasengine.files import read_json, write_json
from nasengine.guard import describe, guarded

from .costs import Cost

if TYPE_CHECKING:
    from nasengine.search import Search

    from .derived import Derived

Limits = Mapping[str, float]
Windows = Mapping[str, tuple[float, float]]
"""Cost to the shares of its limit, between which it should be measured."""
Derive = Callable[[Limits, Limits], "list[Derived]"]

DERIVATIONS = 6
"""How often at most what was derived for one target is measured."""

_READINGS = 3
"""How often each is measured. The median counts."""

_MARGIN = 0.03
"""How far below a limit to stay, as a share of it: the trial's own reading will be another."""


class Readings:
    """What derived architectures were measured to cost, kept so that a resumed run derives alike.

    Parameters
    ----------
    search
        Its estimators measure; its checkpoints keep.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._path = search.checkpoints / "derived_measured.json"
        self._kept = self._read()

    def of(self, derived: Derived, key: str) -> float | None:
        """Return what one costs by an estimator; None where it cannot be measured."""
        row = self._kept.setdefault(derived.key, {})
        if key not in row:
            self._search.pause_point()
            value = self._measured(derived, key)
            if value is None:  # Not kept: a machine that is too busy now may not be later.
                return None
            row[key] = value
            write_json(self._path, self._kept)
        return row[key]

    def _measured(self, derived: Derived, key: str) -> float | None:
        search = self._search
        estimator = search.estimators[key]
        primary = estimator.metrics(search)[0].name
        taken = []
        try:
            for number in range(_READINGS):
                label = f"derived-{number}"
                with guarded(search.seed, label, key):
                    candidate = Candidate(derived.architecture, search, label, {})
                    taken.append(float(estimator.measure(candidate)[primary].value))
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 a candidate may raise anything; its trial will tell
            search.reporter.warn(f"{key} of what was derived is not measured: {describe(error)}")
            return None
        return median(taken)

    def _read(self) -> dict[str, dict[str, float]]:
        if not self._path.is_file():
            return {}
        return read_json(self._path, dict[str, dict[str, float]])


@dataclass(frozen=True)
class _Attempt:
    """What one derivation gave: by cost, the highest measured share of its limit, and the factor.

    Parameters
    ----------
    found
        The architectures.
    shares
        Cost to the highest of measured / limit.
    factors
        Cost to the highest of measured / predicted.
    """

    found: list[Derived]
    shares: Mapping[str, float]
    factors: Mapping[str, float]

    def rank(self, windows: Windows) -> tuple[Any, ...]:
        """Return what the better attempt has more of: within, near, with a margin, likely."""
        over = max(0.0, max(self.shares.values()) - 1)
        spent = all(share >= windows[key][0] for key, share in self.shares.items())
        safe = all(share <= windows[key][1] for key, share in self.shares.items())
        return (-over, spent, safe, self.found[0].score)


def hold(derive: Derive, limits: Limits, costs: Sequence[Cost], search: Search) -> list[Derived]:
    """Derive under limits so that they hold as measured.

    Where a measured cost is above its limit, or further below a target than its tolerance, the
    limit that the table is asked for is divided by the measured factor (measured / predicted).
    Costs that are counted hold as predicted.

    Parameters
    ----------
    derive
        Returns the best architectures that the tables predict to be within limits (the first
        argument) and, where possible, above floors (the second), best first.
    limits
        Cost to the most that is allowed.
    costs
        All costs.
    search
        Its estimators measure.
    """
    windows = {cost.key: _window(cost) for cost in costs if cost.key in limits}
    asked = {cost.key: cost.within_reach(limits[cost.key]) for cost in costs if cost.key in limits}
    floors = {key: least * limits[key] for key, (least, _) in windows.items()}
    found = derive(asked, floors)
    timed = [cost for cost in costs if cost.key in limits and not cost.counts]
    if not timed or not found:
        return found
    readings, attempts = Readings(search), list[_Attempt]()
    for _ in range(DERIVATIONS):
        attempt = _attempt(found, limits, timed, readings)
        if attempt is None:
            if not attempts:
                return found
            break
        attempts.append(attempt)
        for cost in timed:
            least, most = windows[cost.key]
            if not least <= attempt.shares[cost.key] <= most:
                scale = limits[cost.key] / attempt.factors[cost.key]
                asked[cost.key] = cost.within_reach(most * scale)
                floors[cost.key] = least * scale
        found = derive(asked, floors)
        seen = [[d.key for d in earlier.found] for earlier in attempts]
        if not found or [d.key for d in found] in seen:
            break
    best = max(attempts, key=lambda attempt: attempt.rank(windows))
    return [replace(d, targets=dict(limits), derivations=len(attempts)) for d in best.found]


def _attempt(
    found: Sequence[Derived], limits: Limits, timed: Sequence[Cost], readings: Readings
) -> _Attempt | None:
    """Measure what was derived; None where something cannot be measured."""
    measured = []
    for derived in found:
        row = {cost.key: readings.of(derived, cost.key) for cost in timed}
        if any(value is None for value in row.values()):
            return None
        measured.append(replace(derived, measured={k: v for k, v in row.items() if v is not None}))
    shares = {
        c.key: max(d.measured[c.key] for d in measured) / (limits[c.key] or 1.0) for c in timed
    }
    factors = {
        c.key: max(d.measured[c.key] / (d.predicted[c.key] or 1.0) for d in measured) for c in timed
    }
    return _Attempt(measured, shares, factors)


def _window(cost: Cost) -> tuple[float, float]:
    """Return from and to which share of its limit a cost should be measured."""
    if not cost.targets:  # A target is to be spent; a limit of the objectives only kept.
        return 0.0, 1 - _MARGIN
    return 1 - cost.tolerance, 1 - min(_MARGIN, cost.tolerance / 3)
