"""The best trial of a search, or why it has none."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nasengine.errors import SearchFailed
from nasengine.history import History
from nasengine.runs.going_on import broken_limits, say_broken, written
from nasengine.search import Search
from nasengine.trial import Status, Trial

_REASONS = 10
"""Of why trials are not complete, the most frequent that are told."""


def best_or_fail(search: Search, history: History) -> Trial:
    """Return the best trial.

    Raises
    ------
    SearchFailed
        If no trial is complete, with the reasons counted.
    """
    best = search.objectives.best(history)
    if best is not None:
        return best
    told: dict[str, list[str]] = {}
    for why in (_why(search, trial) for trial in history):
        told.setdefault(re.sub(r"[\d.]+", "0", why), []).append(why)
    most = sorted(told.values(), key=len, reverse=True)
    listed = "".join(f"\n  {len(alike)} x {_first(alike)}" for alike in most[:_REASONS])
    more = f"\n  and {len(told) - _REASONS} other reasons" if len(told) > _REASONS else ""
    raise SearchFailed(
        f"no network: none of {len(history)} trials is complete{listed}{more}"
        f"{_nearest(search, history)}"
    )


def _nearest(search: Search, history: History) -> str:
    """Say which trial broke the limits least, where any was held against them."""
    infeasible = [trial for trial in history if trial.status is Status.INFEASIBLE]
    if not infeasible:
        return ""
    trial = min(infeasible, key=search.objectives.standing)
    said = say_broken(search, trial.measurements)
    return (
        f"\nthe nearest was trial {trial.number}: {said}; a resume with a larger budget.trials "
        f"looks further, and other limits are another run"
    )


def _first(alike: Sequence[str]) -> str:
    """Return the first of some reasons that differ in their numbers at most."""
    return alike[0] if len(set(alike)) == 1 else f"{alike[0]}, and alike"


def _why(search: Search, trial: Trial) -> str:
    """Say why a trial is not complete, alike for all that broke the same limits."""
    broken = broken_limits(search, trial.measurements)
    if trial.status is not Status.INFEASIBLE or not broken:
        return f"{trial.status.value}: {trial.reason}"
    asked = [f"{limit.metric} {limit.asked(written(search, limit))}" for limit in broken]
    return f"infeasible: not {' and not '.join(asked)}"
