"""What the trials so far tell of all architectures: a Gaussian process for every goal."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from nasengine.architecture import Architecture
from nasengine.history import History
from nasengine.objectives import Objectives, non_dominated
from nasengine.trial import Status, Trial

from .acquisition import (
    expected_chebyshev_improvement,
    expected_hypervolume_improvement,
    expected_improvement,
)
from .features import Array, features_of
from .gaussian_process import Kernel, Posterior, likeliest_kernel
from .unseen import searchable

if TYPE_CHECKING:
    from nasengine.search import Search

FITTED = 300
"""The most trials that are fitted: the best and the latest, half and half."""

_TELLING = (Status.COMPLETE, Status.INFEASIBLE, Status.FAILED)


class Belief:
    """What is believed, and what a further measurement is worth.

    Trials that broke a limit or failed count as the worst; those still running, as what is
    expected of them.

    Parameters
    ----------
    history
        At least one of its trials is complete.
    search
        The space and its objectives.
    """

    def __init__(self, history: History, search: Search) -> None:
        ended = [trial for trial in history if trial.status in _TELLING]
        self._trials = fitted(searchable(ended, search.space), search.objectives)
        self._features = features_of(search.space)
        self._architectures = [trial.architecture for trial in self._trials]
        self._targets = targets(self._trials, search.objectives)
        self._kernels = _kernels(history, ended, search)
        feasible = [index for index, t in enumerate(self._trials) if t.status is Status.COMPLETE]
        front = non_dominated(self._targets[feasible].tolist())
        self._front = [feasible[index] for index in front]
        self._best = self._targets[self._front]
        self._fit()
        self.imagine([t.architecture for t in history if t.status is Status.RUNNING])

    def _fit(self) -> None:
        rows = self._features(self._architectures)
        self._posteriors = [
            Posterior(kernel, rows, column, self._features)
            for kernel, column in zip(self._kernels, self._targets.T, strict=True)
        ]

    def imagine(self, architectures: Sequence[Architecture]) -> None:
        """Believe that architectures turn out as expected (Ginsbourger et al. 2010)."""
        if architectures:
            mean, _ = self.predict(architectures)
            self._architectures += architectures
            self._targets = np.vstack([self._targets, mean])
            self._fit()

    def predict(self, architectures: Sequence[Architecture]) -> tuple[Array, Array]:
        """Return means and standard deviations: (architectures, goals) each, lower is better."""
        rows = self._features(architectures)
        beliefs = [posterior.predict(rows) for posterior in self._posteriors]
        return (
            np.column_stack([mean for mean, _ in beliefs]),
            np.column_stack([deviation for _, deviation in beliefs]),
        )

    def worth(self, architectures: Sequence[Architecture], rng: random.Random) -> Array:
        """Return what measuring each architecture is worth: (architectures,)."""
        mean, deviation = self.predict(architectures)
        goals = mean.shape[1]
        if goals == 1:
            return expected_improvement(self._best.min(), mean[:, 0], deviation[:, 0])
        if goals == 2:
            corner = self._targets.max(axis=0) + 0.1
            return expected_hypervolume_improvement(self._best, corner, mean, deviation)
        return expected_chebyshev_improvement(self._best, mean, deviation, rng)

    def parents(self, count: int, rng: random.Random) -> list[Architecture]:
        """Return the best trials' architectures, or some of the front's, the rest by rank."""
        if self._targets.shape[1] == 1:
            order = np.argsort(self._targets[: len(self._trials), 0], kind="stable")
            return [self._architectures[index] for index in order[:count]]
        chosen = rng.sample(self._front, min(count, len(self._front)))
        return [self._architectures[index] for index in chosen]


_chosen: WeakKeyDictionary[History, tuple[tuple[object, ...], list[Kernel]]] = WeakKeyDictionary()


def _kernels(history: History, ended: Sequence[Trial], search: Search) -> list[Kernel]:
    """Return the likeliest kernel of each goal, from what had been proposed at the last refresh.

    Kept until there is a refresh, or one of those early trials changes.
    """
    refreshed = last_refresh(len(history))
    early = [trial for trial in ended if trial.number < refreshed] or list(ended)
    measured = history.measured
    state = (refreshed, len(early), search.objectives, search.space)
    kept = _chosen.get(history)
    if kept is None or kept[0][0] is not measured or kept[0][1:] != state:
        known = fitted(searchable(early, search.space), search.objectives)
        rows = features_of(search.space)([trial.architecture for trial in known])
        columns = targets(known, search.objectives).T
        kernels = [likeliest_kernel(features_of(search.space), rows, c) for c in columns]
        kept = _chosen[history] = ((measured, *state), kernels)
    return kept[1]


def last_refresh(number: int) -> int:
    """Return since when the kernel stands: it is chosen after 10 more trials, later a fifth more.

    Examples
    --------
    >>> [last_refresh(n) for n in (15, 20, 59, 120)]
    [10, 20, 50, 103]
    """
    at = 10
    while at + max(10, at // 5) <= number:
        at += max(10, at // 5)
    return at


def fitted(trials: Sequence[Trial], objectives: Objectives) -> list[Trial]:
    """Return all trials, or of very many the best and the latest, in order."""
    if len(trials) <= FITTED:
        return list(trials)
    latest = trials[-FITTED // 2 :]
    earlier = trials[: -FITTED // 2]
    best = sorted(earlier, key=lambda t: (*_standing(t, objectives), t.number))
    return sorted([*best[: FITTED // 2], *latest], key=lambda trial: trial.number)


def _standing(trial: Trial, objectives: Objectives) -> tuple[float, ...]:
    if trial.status is Status.FAILED:
        return (np.inf,)
    return objectives.standing(trial)


def targets(trials: Sequence[Trial], objectives: Objectives) -> Array:
    """Return what the processes are fitted to: (trials, goals), lower is better.

    Every goal's values become the normal quantiles of their ranks, so that nothing hangs on their
    unit or on how bad the bad ones are; infeasible and failed trials share the last rank. With
    several goals, where distances along the front count, the mean of that and of the
    standardised values.
    """
    from scipy.special import ndtri

    complete = np.array([trial.status is Status.COMPLETE for trial in trials])
    table = np.full((len(trials), len(objectives.goals)), np.inf)
    if complete.any():
        table[complete] = [objectives.losses(t) for t in trials if t.status is Status.COMPLETE]
    ranks = np.column_stack([_ranks(column) for column in table.T])
    quantiles: Array = ndtri((ranks - 0.5) / len(trials))
    if len(objectives.goals) == 1:
        return quantiles
    return (quantiles + np.column_stack([_standardised(column) for column in table.T])) / 2


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
    scaled: Array = (cut - cut.mean()) / (cut.std() or 1.0)
    return scaled
