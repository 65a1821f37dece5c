"""The trials around which a local search goes on, the best first.

Kept from one proposal to the next so that each costs the same however long the search. What is
kept follows from the history alone: it is made anew when it does not match.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

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
    """Trials of one objective in order of standing, or the front of several.

    Parameters
    ----------
    measured
        `History.measured`, while it only grows.
    objectives
        What the entries are compared by.
    """

    measured: list[Trial]
    objectives: Objectives
    entries: list[Entry] = field(default_factory=list)
    closed: set[int] = field(default_factory=set)
    used: int = 0

    def update(self, search: Search) -> None:
        """Take in what was measured since."""
        add = self._to_front if len(self.objectives.goals) > 1 else self._in_order
        for trial in self.measured[self.used :]:
            if is_searchable(trial, search.space):
                add((self.objectives.standing(trial), trial.number, trial))
        self.used = len(self.measured)

    def _in_order(self, entry: Entry) -> None:
        insort(self.entries, entry)

    def _to_front(self, entry: Entry) -> None:
        standing = entry[0]
        if any(other[0] == standing or precedes(other[0], standing) for other in self.entries):
            return
        self.entries = [other for other in self.entries if not precedes(standing, other[0])]
        self.entries.append(entry)

    def centres(self, rng: random.Random) -> Iterator[Trial]:
        """Yield the trials to go on from: the best first, or the front in random order."""
        if len(self.objectives.goals) > 1:
            entries = [entry for entry in self.entries if entry[1] not in self.closed]
            rng.shuffle(entries)
            yield from (entry[2] for entry in entries)
        else:
            # By index, since `close` takes out of the list what was just yielded.
            place = 0
            while place < len(self.entries):
                entry = self.entries[place]
                yield entry[2]
                place += place < len(self.entries) and self.entries[place] is entry

    def close(self, trial: Trial) -> None:
        """Leave out a trial all of whose neighbours are in the history."""
        if len(self.objectives.goals) > 1:
            self.closed.add(trial.number)
        else:
            entry = (self.objectives.standing(trial), trial.number, trial)
            del self.entries[bisect_left(self.entries, entry)]


_kept: WeakKeyDictionary[History, OpenTrials] = WeakKeyDictionary()


def open_trials(history: History, search: Search) -> OpenTrials:
    """Return the trials of a history around which something may be left to measure."""
    kept = _kept.get(history)
    if (
        kept is None
        or kept.measured is not history.measured
        or kept.objectives != search.objectives
    ):
        kept = _kept[history] = OpenTrials(history.measured, search.objectives)
    kept.update(search)
    return kept
