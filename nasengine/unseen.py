"""Never twice the same: what is in the history is not proposed again while something is left.

Written once for every strategy, yours included. Two architectures that compute the same share a
canonical key (`SearchSpace.key`) and count as one. What is known beforehand to break a limit
(`Search.excess`: parameters, FLOPs) is passed over as well, so that the budget is for what can win.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from nasengine.architecture import Architecture
from nasengine.graph import SpaceGraph
from nasengine.history import History
from nasengine.moves import Decisions, enumerate_all, mutate, neighbours, sample
from nasengine.space import SearchSpace

if TYPE_CHECKING:
    from nasengine.search import Search

TRIES = 100
"""Draws before a space is taken to be nearly exhausted."""

REJECTED = 1000
"""Draws of which so many may break a limit before they are changed to keep it."""

LISTED = 50_000
"""Spaces up to this size are listed in full when draws no longer find anything new."""

_distinct: WeakKeyDictionary[SpaceGraph, dict[str, Architecture]] = WeakKeyDictionary()


class Unseen:
    """The architectures that are neither in the history nor already among this proposal.

    Of those, the ones that break no limit as far as tables tell.

    Parameters
    ----------
    history
        What was proposed so far.
    search
        Gives the space and its canonical keys.
    rng
        What `sample` draws from.

    Examples
    --------
    In a strategy, for each proposal the first of some mutants that is new, else anything that is::

        unseen = Unseen(history, search, rng)
        return unseen.samples(count, lambda: islice(walk(best, decisions, rng), TRIES))
    """

    def __init__(self, history: History, search: Search, rng: random.Random) -> None:
        self._space = search.space
        self._excess = search.excess
        self._seen = history.keys
        self._proposed: set[str] = set()
        self._rng = rng

    def __contains__(self, architecture: Architecture) -> bool:
        return self._is_new(self._space.key(architecture)) and not self._excess(architecture)

    def _is_new(self, key: str) -> bool:
        return key not in self._seen and key not in self._proposed

    def take(self, architecture: Architecture) -> bool:
        """Count an architecture as proposed; say whether it was among these until now."""
        return architecture in self and self._take(architecture)

    def _take(self, architecture: Architecture) -> bool:
        """Count an architecture as proposed, within the limits or not; say whether it is new."""
        key = self._space.key(architecture)
        new = self._is_new(key)
        self._proposed.add(key)
        return new

    def first(self, candidates: Iterable[Architecture]) -> Architecture | None:
        """Take and return the first unseen one of some candidates; None if there is none."""
        return next((candidate for candidate in candidates if self.take(candidate)), None)

    def sample(self) -> Architecture | None:
        """Take and return an unseen architecture, each choice as likely; None when none is left.

        So what can be written in several ways is drawn so many times as often: to draw uniformly
        from what is computed would take a list of the whole space. Draws are rejected while they
        hit what was seen or breaks a limit. When they all do, the rest of a small space is listed;
        in one too large for that, draws are changed until they are within the limits, then
        architectures are visited from a random one on, `LISTED` of them before the space is taken
        to be exhausted: what breaks a limit may be among these, where nothing else was found.
        """
        decisions = self._space.decisions
        draws = (sample(decisions, self._rng) for _ in range(REJECTED))
        found = self.first(islice((a for a in draws if not self._excess(a)), TRIES))
        if found is not None:
            return found
        if self._space.size > LISTED:
            return self.first(self._changed()) or next(filter(self._take, self._visit()), None)
        left = [
            architecture
            for key, architecture in distinct(self._space).items()
            if self._is_new(key) and not self._excess(architecture)
        ]
        return self.first([self._rng.choice(left)] if left else [])

    def samples(
        self, count: int, prefer: Callable[[], Iterable[Architecture]] = tuple
    ) -> list[Architecture]:
        """Take and return up to `count` unseen architectures; fewer when no more are left.

        Parameters
        ----------
        count
            How many.
        prefer
            Called for each of them: the candidates of which the first unseen one is taken. Where
            there is none, as by default, `sample` draws one.
        """
        every = iter(lambda: self.first(prefer()) or self.sample(), None)
        return list(islice(every, count))

    def _changed(self) -> Iterator[Architecture]:
        """Yield what random architectures become by changes that each break the limits less."""
        decisions = self._space.decisions
        for _ in range(TRIES):
            architecture = sample(decisions, self._rng)
            while less := [
                near
                for near in neighbours(architecture, decisions)
                if self._excess(near) < self._excess(architecture)
            ]:
                architecture = self._rng.choice(less)
            yield architecture

    def _visit(self) -> Iterator[Architecture]:
        """Yield architectures of a large space, each once, from a random one on."""
        decisions, size = self._space.decisions, self._space.size
        start = self._rng.randrange(size)
        for step in range(min(size, LISTED)):
            rest, choices = (start + step) % size, {}
            for name, allowed in decisions.items():
                rest, index = divmod(rest, len(allowed))
                choices[name] = allowed[index]
            yield Architecture(choices)


def walk(
    architecture: Architecture, decisions: Decisions, rng: random.Random
) -> Iterator[Architecture]:
    """Yield mutants of mutants: ever further away, without end."""
    while True:
        architecture = mutate(architecture, decisions, rng)
        yield architecture


def distinct(space: SearchSpace) -> dict[str, Architecture]:
    """Return the architectures of a small space that compute different things, by key."""
    found = _distinct.get(space.graph)
    if found is None:
        found = {}
        for architecture in enumerate_all(space.decisions):
            found.setdefault(space.key(architecture), architecture)
        _distinct[space.graph] = found
    return found
