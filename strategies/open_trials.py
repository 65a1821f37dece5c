"""The trials around which a local search goes on.

Kept from one proposal to the next so that each costs the same however long the search. What is
kept follows from the history alone: it is made anew when it does not match.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from nasengine.architecture import Architecture
from nasengine.history import History
from nasengine.objectives import Objectives, precedes
from nasengine.trial import Trial

from .unseen import is_searchable

if TYPE_CHECKING:
    from nasengine.search import Search

Entry = tuple[tuple[float, ...], int, Trial]
"""A trial after its standing and number, by which entries are sorted."""


@dataclass
class OpenTrials:
    """The present climb of one objective, or the front of several.

    Parameters
    ----------
    measured
        `History.measured`, while it only grows.
    objectives
        What the entries are compared by.
    initial
        Number of trials of which the best begins the first climb.
    """

    measured: list[Trial]
    objectives: Objectives
    initial: int
    entries: list[Entry] = field(default_factory=list)
    closed: set[int] = field(default_factory=set)
    used: int = 0

    def update(self, search: Search) -> None:
        """Take in what was measured since."""
        add = self._to_front if len(self.objectives.goals) > 1 else self._to_climb
        for trial in self.measured[self.used :]:
            if is_searchable(trial, search.space):
                add((self.objectives.standing(trial), trial.number, trial))
        self.used = len(self.measured)

    def _to_climb(self, entry: Entry) -> None:
        """Go up to a better neighbour; what is no neighbour of the climb begins another."""
        trial = entry[2]
        if trial.number >= self.initial and not any(
            distance(trial.architecture, other[2].architecture) <= 1 for other in self.entries
        ):
            self.entries = [entry]
        elif not self.entries or entry[0] < self.entries[-1][0]:
            self.entries.append(entry)

    def _to_front(self, entry: Entry) -> None:
        standing = entry[0]
        if any(other[0] == standing or precedes(other[0], standing) for other in self.entries):
            return
        self.entries = [other for other in self.entries if not precedes(standing, other[0])]
        self.entries.append(entry)

    def centres(self, rng: random.Random) -> list[Trial]:
        """Return the trials to go on from: the top of the climb, or the front in random order."""
        if len(self.objectives.goals) > 1:
            # Shuffled before the closed ones go: the order must not hang on what is remembered.
            entries = rng.sample(self.entries, len(self.entries))
            entries = [entry for entry in entries if entry[1] not in self.closed]
        else:
            entries = self.entries[-1:]
        return [entry[2] for entry in entries]

    def close(self, trial: Trial) -> None:
        """Leave out a trial all of whose neighbours are in the history."""
        self.closed.add(trial.number)


def distance(one: Architecture, other: Architecture) -> int:
    """Return how many decisions differ."""
    return sum(other[name] != choice for name, choice in one.items())


_kept: WeakKeyDictionary[History, OpenTrials] = WeakKeyDictionary()


def open_trials(history: History, search: Search, initial: int) -> OpenTrials:
    """Return the trials of a history around which something may be left to measure."""
    kept = _kept.get(history)
    if (
        kept is None
        or kept.measured is not history.measured
        or kept.objectives != search.objectives
        or kept.initial != initial
    ):
        kept = _kept[history] = OpenTrials(history.measured, search.objectives, initial)
    kept.update(search)
    return kept
