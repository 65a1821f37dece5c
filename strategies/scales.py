"""On which scale a goal's values are believed: what the Gaussian processes are fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from nasengine.objectives import Objectives
from nasengine.trial import Status, Trial

from .features import Array

_FURTHEST = 1e6
"""Where a limit is broken by more, in shares of it, it is all the same."""

Scale = Literal["ranks", "values", "both"]


def targets(trials: Sequence[Trial], objectives: Objectives, scales: Sequence[Scale]) -> Array:
    """Return what the processes are fitted to: (trials, goals), lower is better."""
    told = losses_of(trials, objectives)
    return np.column_stack(
        [scaled(column, scale) for column, scale in zip(told.T, scales, strict=True)]
    )


def losses_of(trials: Sequence[Trial], objectives: Objectives) -> Array:
    """Return losses of measured trials, (trials, goals); infinite where not complete.

    With one goal, and as long as nothing is complete, what breaks a limit or is held back is worse
    than all that is not, the more the further: so the way into the limits can be learned.
    """
    unknown = (np.inf,) * len(objectives.goals)
    complete = Status.COMPLETE
    told = [objectives.losses(t) if t.status is complete else unknown for t in trials]
    table = np.array(told, dtype=float).reshape(len(trials), len(unknown))
    kept = table[np.isfinite(table).all(axis=1)]
    if table.shape[1] > 1 and len(kept):
        return table
    worst = kept.max(initial=0.0)
    for index, trial in enumerate(trials):
        if trial.status is not complete:
            table[index] = worst + 1 + min(objectives.standing(trial)[0], _FURTHEST)
    return table


def scales_of(losses: Array) -> tuple[Scale, ...]:
    """Return the scales among which each goal's is chosen, given all losses (trials, goals).

    With several goals, distances along the front count, and one that adds up over the decisions
    (parameters, multiplications) is believed exactly on its own scale only.
    """
    return ("ranks",) if losses.shape[1] == 1 else ("both", "values")


def scaled(losses: Array, scale: Scale) -> Array:
    """Return losses as a process is fitted to them: (trials,).

    Parameters
    ----------
    losses
        (trials,): of one goal, infinite where not complete, which share the last rank.
    scale
        ``ranks``: the normal quantiles of their ranks, so that nothing hangs on their unit or on
        how bad the bad ones are; ``values``: standardised; ``both``: the mean of the two.
    """
    from scipy.special import ndtri

    if scale == "values":
        return _standardised(losses)
    quantiles: Array = ndtri((_ranks(losses) - 0.5) / len(losses))
    return quantiles if scale == "ranks" else (quantiles + _standardised(losses)) / 2


def _ranks(column: Array) -> Array:
    """Return ranks from 1 on; equal values share the mean of theirs."""
    _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
    shared: Array = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return shared


def _standardised(column: Array) -> Array:
    """Return values of mean 0 and deviation 1, those that are not finite as the worst."""
    finite = column[np.isfinite(column)]
    if not finite.size:
        return np.zeros_like(column)
    cut = np.clip(column, finite.min(), finite.max())
    standardised: Array = (cut - cut.mean()) / (cut.std() or 1.0)
    return standardised
