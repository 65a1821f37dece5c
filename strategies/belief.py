"""What the trials so far tell of all architectures: a Gaussian process for every goal."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from math import prod
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from nasengine.architecture import Architecture
from nasengine.graph import SpaceGraph
from nasengine.history import MEASURED, History
from nasengine.moves import enumerate_all, neighbours, sample
from nasengine.objectives import Objectives, non_dominated
from nasengine.randomness import stream
from nasengine.trial import Status, Trial
from nasengine.unseen import Unseen

from .acquisition import (
    expected_chebyshev_improvement,
    expected_hypervolume_improvement,
    expected_improvement,
)
from .features import Array, features_of
from .gaussian_process import Columns, Kernel, Posterior, left_out_means
from .likeliest_kernel import likeliest_kernel
from .scales import Scale, losses_of, scaled, scales_of, targets
from .success import Success

if TYPE_CHECKING:
    from nasengine.search import Search

FITTED = 250
"""The most trials from which a kernel is chosen: the best and the latest, half and half."""

STANDS = 50
"""The most trials after which it is chosen anew."""

MARGIN = 0.1
"""How far beyond the worst volume counts, as a share of the whole range."""

_ENDED = (*MEASURED, Status.FAILED)


class Belief:
    """What is believed, and what a further measurement is worth.

    Trials that broke a limit, or that a screen held back, count as worse than all others; those
    still running, as what is expected of them (Ginsbourger et al. 2010). What failed has no value:
    it tells how likely others fail (`Success`).

    Parameters
    ----------
    history
        At least one of its trials is measured.
    search
        The space and its objectives.
    anywhere
        How many random architectures are candidates.
    """

    def __init__(self, history: History, search: Search, anywhere: int) -> None:
        self._model, trials, ended = _model(history, search, anywhere)
        self._targets = targets(trials, search.objectives, self._model.scales)
        self._trials = [trial.architecture for trial in trials]
        complete = [index for index, t in enumerate(trials) if t.status is Status.COMPLETE]
        # As long as nothing is feasible, what is nearest to it is what to improve on.
        feasible = complete or list(range(len(trials)))
        front = non_dominated(self._targets[feasible].tolist())
        self._front = [feasible[index] for index in front]
        self._best = self._targets[self._front]
        running = [t.architecture for t in history if t.status is Status.RUNNING]
        self._observed = [*self._trials, *running]
        self._model.observe(self._observed)
        self._weighed = [
            posterior.weigh(values)
            for posterior, values in zip(self._model.posteriors, self._targets.T, strict=True)
        ]
        self._success: Success | None = None
        if any(trial.status is Status.FAILED for trial in ended):
            self._success = self._model.success
            self._success.observe(ended)

    def imagine(self, architecture: Architecture) -> None:
        """Believe that an architecture turns out as expected."""
        self._observed.append(architecture)
        self._model.observe(self._observed)

    def predict(self, architectures: Sequence[Architecture]) -> tuple[Array, Array]:
        """Return means and standard deviations: (architectures, goals) each, lower is better."""
        return self._predict(np.array(self._model.columns(architectures), dtype=int))

    def _predict(self, columns: Columns) -> tuple[Array, Array]:
        beliefs = [
            posterior.predict(weighed, columns)
            for posterior, weighed in zip(self._model.posteriors, self._weighed, strict=True)
        ]
        return (
            np.column_stack([mean for mean, _ in beliefs]),
            np.column_stack([deviation for _, deviation in beliefs]),
        )

    def climb(
        self, parents: Sequence[Architecture], unseen: Unseen, search: Search
    ) -> Architecture | None:
        """Return the unseen architecture of which a measurement is worth most; None without any.

        Of those anywhere and of the parents' neighbours, and from there on uphill, to the best of
        its neighbours, as long as there is a better one.
        """
        near = (column for parent in parents for column in self._model.around(parent))
        anywhere = self._model.anywhere
        pool = dict.fromkeys(column for column in near if column >= len(anywhere))
        columns = np.concatenate([anywhere, np.fromiter(pool, dtype=int)])
        worth = self._worth(columns, search)
        scale = worth.max() or 1.0
        best = self._best_unseen(columns, worth / scale, unseen)
        while best is not None:
            columns = np.array(
                [c for c in self._model.around(best[1]) if c >= len(anywhere) and c not in pool],
                dtype=int,
            )
            if not columns.size:
                return best[1]
            pool.update(dict.fromkeys(columns.tolist()))
            further = self._best_unseen(columns, self._worth(columns, search) / scale, unseen)
            if further is None or further[0] <= best[0]:
                return best[1]
            best = further
        return None

    def _best_unseen(
        self, columns: Columns, worth: Array, unseen: Unseen
    ) -> tuple[float, Architecture] | None:
        """Return the unseen one that is worth most, after its worth; the first of equal ones.

        Rounded, so that what is equal but for the order of its sums is a tie: a resumed search
        adds up in another order.
        """
        rounded = np.round(worth, 9)
        ranked = ((index, self._model.asked[columns[index]]) for index in _best_first(rounded))
        found = next((pair for pair in ranked if pair[1] in unseen), None)
        return None if found is None else (float(rounded[found[0]]), found[1])

    def _worth(self, columns: Columns, search: Search) -> Array:
        gain = self._gain(columns, search)
        if self._success is None:
            return gain
        return gain * self._success.chances(self._model.asked, columns)

    def _gain(self, columns: Columns, search: Search) -> Array:
        mean, deviation = self._predict(columns)
        goals = mean.shape[1]
        if goals == 1:
            return expected_improvement(self._best.min(), mean[:, 0], deviation[:, 0])
        if goals == 2:
            return expected_hypervolume_improvement(self._best, self._corner, mean, deviation)
        rng = search.stream("belief", len(self._trials))
        return expected_chebyshev_improvement(self._best, mean, deviation, rng)

    @cached_property
    def _corner(self) -> Array:
        """Up to where volume counts: a tenth beyond the worst of what is anywhere.

        As it is believed, since what was measured seldom holds the dearest: otherwise little
        would be gained at the ends of the front.
        """
        believed, _ = self._predict(self._model.anywhere)
        worst = np.maximum(self._targets.max(axis=0), believed.max(axis=0))
        corner: Array = worst + MARGIN * (worst - self._targets.min(axis=0))
        return corner

    def parents(self, count: int, rng: random.Random) -> list[Architecture]:
        """Return the best trials' architectures, or some of the front's."""
        if self._targets.shape[1] == 1:
            order = np.argsort(self._targets[:, 0], kind="stable")
            return [self._trials[index] for index in order[:count]]
        chosen = rng.sample(self._front, min(count, len(self._front)))
        return [self._trials[index] for index in chosen]


_AHEAD = 16
"""Of how many the order is found out first; seldom are more asked for."""


def _best_first(worth: Array) -> Iterator[int]:
    """Yield indices, the highest worth first, of equal ones the first."""
    lowest = np.partition(worth, -_AHEAD)[-_AHEAD] if len(worth) > _AHEAD else -np.inf
    for ahead in (worth >= lowest, worth < lowest):
        among = np.flatnonzero(ahead)
        yield from among[np.argsort(-worth[among], kind="stable")].tolist()


class Model:
    """A Gaussian process for every goal, their kernels chosen from some early trials.

    Parameters
    ----------
    known
        Those of them that were measured.
    ended
        Those of them that ended, failed ones too.
    search
        The space and its objectives.
    anywhere
        Architectures that are candidates all the time.

    Attributes
    ----------
    asked
        What the processes tell of, in the order of columns.
    anywhere
        The columns of those: the first.
    scales
        For every goal, on which scale it is believed: `scaled`.
    """

    def __init__(
        self,
        known: Sequence[Trial],
        ended: Sequence[Trial],
        search: Search,
        anywhere: Sequence[Architecture],
    ) -> None:
        self.known, self._ended = known, ended
        self.asked: list[Architecture] = []
        self._decisions = search.space.decisions
        self._features = features_of(search.space)
        self._columns: dict[Architecture, int] = {}
        self._around: dict[Architecture, list[int]] = {}
        rows = self._features([trial.architecture for trial in known])
        told = losses_of(known, search.objectives)
        chosen = [self._likeliest(rows, column, scales_of(told)) for column in told.T]
        self.scales = [scale for scale, _ in chosen]
        self.posteriors = [Posterior(kernel) for _, kernel in chosen]
        self.columns(anywhere)
        self.anywhere = np.arange(len(self.asked))

    def _likeliest(
        self, rows: Array, losses: Array, scales: Sequence[Scale]
    ) -> tuple[Scale, Kernel]:
        """Return the scale on which losses are believed, and the likeliest kernel there.

        With one goal, mostly an accuracy, what is dead is only in the way. With several, some are
        costs: dead parts may count; and the scale is the first, unless the other tells each trial
        from all the others with less than half the squared error, compared on the first.
        """
        common = scaled(losses, scales[0])
        several = len(scales) > 1
        first = (scales[0], likeliest_kernel(self._features, rows, common, dead=several))
        if not several:
            return first
        values = scaled(losses, scales[1])
        second = (scales[1], likeliest_kernel(self._features, rows, values, dead=True))
        order = np.argsort(values, kind="stable")
        errors = left_out_means(first[1], rows, common) - common
        told = left_out_means(second[1], rows, values)
        others = np.interp(told, values[order], common[order]) - common
        return second if others @ others < errors @ errors / 2 else first

    @cached_property
    def success(self) -> Success:
        """What tells which architectures fail."""
        return Success(self._ended, self._features)

    def observe(self, architectures: Sequence[Architecture]) -> None:
        """Count these as measured, and no others."""
        for posterior in self.posteriors:
            posterior.observe(architectures)

    def columns(self, architectures: Sequence[Architecture]) -> list[int]:
        """Return the columns of architectures, new ones asked about."""
        new = [a for a in dict.fromkeys(architectures) if a not in self._columns]
        if new:
            self._columns.update(
                zip(new, range(len(self.asked), len(self.asked) + len(new)), strict=True)
            )
            self.asked += new
            for posterior in self.posteriors:
                posterior.ask(self.asked)
        return [self._columns[architecture] for architecture in architectures]

    def around(self, architecture: Architecture) -> list[int]:
        """Return the columns of an architecture's neighbours."""
        if architecture not in self._around:
            near = list(neighbours(architecture, self._decisions))
            self._around[architecture] = self.columns(near)
        return self._around[architecture]


_models: WeakKeyDictionary[History, tuple[tuple[object, ...], Model]] = WeakKeyDictionary()


def _model(
    history: History, search: Search, anywhere: int
) -> tuple[Model, list[Trial], list[Trial]]:
    """Return the model of the last refresh, the trials with values, and all that ended.

    The model is kept until there is a refresh, or one of the trials before the last ends or
    changes; its own trials come first among those with values.
    """
    refreshed = last_refresh(len(history))
    ended = [trial for trial in history if trial.status in _ENDED]
    measured = history.measured
    early = [trial for trial in measured if trial.number < refreshed] or measured
    before = [trial for trial in ended if trial.number < refreshed] or ended
    state = (
        *(history.rewrites, refreshed, len(early), len(before)),
        *(search.objectives, search.space, search.seed, anywhere),
    )
    kept = _models.get(history)
    if kept is None or kept[0] != state:
        everywhere = _anywhere(search.space.graph, search.seed, anywhere)
        model = Model(fitted(early, search.objectives), before[-FITTED:], search, everywhere)
        kept = _models[history] = (state, model)
    return kept[1], [*kept[1].known, *measured[len(early) :]], ended


@lru_cache(maxsize=8)
def _anywhere(graph: SpaceGraph, seed: int, count: int) -> list[Architecture]:
    """Return so many random architectures, or all of a space that has no more."""
    if prod(len(choices) for choices in graph.decisions.values()) <= count:
        return list(enumerate_all(graph.decisions))
    rng = stream(seed, "belief", "anywhere")
    return [sample(graph.decisions, rng) for _ in range(count)]


def last_refresh(number: int) -> int:
    """Return since when the kernel stands: chosen after 10 more trials, then a fifth, 50 at most.

    Examples
    --------
    >>> [last_refresh(n) for n in (15, 20, 59, 120, 1000)]
    [10, 20, 50, 103, 953]
    """
    at = 10
    while number - at >= (step := min(max(10, at // 5), STANDS)):
        at += step
    return at


def fitted(trials: Sequence[Trial], objectives: Objectives) -> list[Trial]:
    """Return all trials, or of very many the best and the latest, in order."""
    if len(trials) <= FITTED:
        return list(trials)
    latest = trials[-FITTED // 2 :]
    earlier = trials[: -FITTED // 2]
    best = sorted(earlier, key=lambda t: (*objectives.standing(t), t.number))
    return sorted([*best[: FITTED // 2], *latest], key=lambda trial: trial.number)
