"""The trials around which a local search goes on."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING
from weakref import ReferenceType, ref

from nasengine.architecture import Architecture
from nasengine.history import History
from nasengine.moves import neighbours
from nasengine.objectives import precedes
from nasengine.trial import Trial

from .kept import Copyable, read

if TYPE_CHECKING:
    from nasengine.search import Search

Entry = tuple[tuple[float, ...], int, Trial]
"""A trial after its standing and number, by which entries are sorted."""


@dataclass
class OpenTrials(Copyable):
    """The top of the present climb of one objective, or the front of several.

    Parameters
    ----------
    search
        The space, and what the entries are compared by.
    initial
        Number of trials of which the best begins the first climb.
    history
        Whose trials are taken; it is the one that keeps this.
    entries
        The top alone, or the front.
    around
        What is left of the neighbours of a trial, by its number.
    """

    search: Search
    initial: int
    history: ReferenceType[History]
    entries: list[Entry] = field(default_factory=list)
    around: dict[int, list[Architecture]] = field(default_factory=dict)

    def take(self, trial: Trial) -> None:
        """Take in what was measured."""
        add = self._to_front if self._several else self._to_climb
        add((self.search.objectives.standing(trial), trial.number, trial))

    def copy(self) -> OpenTrials:
        """Return one that goes on by itself; what is in the history is so for both."""
        return replace(self, entries=list(self.entries))

    @property
    def _several(self) -> bool:
        return len(self.search.objectives.goals) > 1

    def _to_climb(self, entry: Entry) -> None:
        """Go up, or along what is level; what was proposed when the climb had ended begins another.

        The way off a plateau leads over it, and ends: nothing is proposed twice.

        With several workers, something random is measured while the last neighbours still are: it
        must not end a climb that one of them takes further.
        """
        if not self.entries or self._goes_on(entry) or self._had_ended(entry[2]):
            self.entries = [entry]

    def _goes_on(self, entry: Entry) -> bool:
        top = self.entries[0][0]
        return entry[0] < top or (entry[0] == top and entry[1] >= self.initial)

    def _had_ended(self, trial: Trial) -> bool:
        """Say whether every neighbour of the top was proposed before a trial."""
        top, history = self.entries[0][2].architecture, self.history()
        # Most are neighbours themselves, and need no look at the others.
        if history is None or trial.number < self.initial or are_near(trial.architecture, top):
            return False
        space = self.search.space
        around = {space.key(near) for near in self._neighbours(top)}
        later = (other.key for other in history[trial.number :])
        return around <= history.keys and around.isdisjoint(later)

    def _neighbours(self, architecture: Architecture) -> list[Architecture]:
        """Return those that can be proposed: what is known to break a limit never is."""
        near = neighbours(architecture, self.search.space.decisions)
        return [one for one in near if not self.search.excess(one)]

    def _to_front(self, entry: Entry) -> None:
        standing = entry[0]
        if any(other[0] == standing or precedes(other[0], standing) for other in self.entries):
            return
        self.entries = [other for other in self.entries if not precedes(standing, other[0])]
        self.entries.append(entry)

    def centres(self, rng: random.Random) -> list[Trial]:
        """Return the trials to go on from: the top of the climb, or the front in random order."""
        # Shuffled before the closed ones go: the order must not hang on what is remembered.
        entries = rng.sample(self.entries, len(self.entries))
        return [entry[2] for entry in entries if self.around.get(entry[1], True)]

    def unmeasured(self, centre: Trial, history: History) -> list[Architecture]:
        """Return a centre's neighbours in a random order of its own.

        Those at the end that are in the history are dropped for good.
        """
        around = self.around.get(centre.number)
        if around is None:
            around = self._neighbours(centre.architecture)
            self.search.stream("neighbours", centre.number).shuffle(around)
            self.around[centre.number] = around
        while around and self.search.space.key(around[-1]) in history.keys:
            around.pop()
        return around


def are_near(one: Architecture, other: Architecture) -> bool:
    """Say whether at most one decision differs."""
    found = 0
    for name, choice in one.items():
        found += other[name] != choice
        if found > 1:
            return False
    return True


def open_trials(history: History, search: Search, initial: int) -> OpenTrials:
    """Return the trials of a history around which something may be left to measure."""
    make = partial(OpenTrials, search, initial, ref(history))
    return read(history, search, OpenTrials, make, initial)
