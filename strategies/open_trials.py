"""The trials around which a local search goes on."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from nasengine.architecture import Architecture
from nasengine.history import History
from nasengine.moves import neighbours
from nasengine.objectives import Objectives, precedes
from nasengine.trial import Trial

from .kept import Reading, read

if TYPE_CHECKING:
    from nasengine.search import Search

Entry = tuple[tuple[float, ...], int, Trial]
"""A trial after its standing and number, by which entries are sorted."""


@dataclass
class OpenTrials(Reading):
    """The present climb of one objective, or the front of several.

    Parameters
    ----------
    objectives
        What the entries are compared by.
    initial
        Number of trials of which the best begins the first climb.
    around
        What is left of the neighbours of a trial, by its number.
    """

    objectives: Objectives
    initial: int
    entries: list[Entry] = field(default_factory=list)
    around: dict[int, list[Architecture]] = field(default_factory=dict)

    def take(self, trial: Trial) -> None:
        """Take in what was measured."""
        add = self._to_front if len(self.objectives.goals) > 1 else self._to_climb
        add((self.objectives.standing(trial), trial.number, trial))

    def copy(self) -> OpenTrials:
        """Return one that goes on by itself; what is in the history is so for both."""
        return replace(self, entries=list(self.entries))

    def _to_climb(self, entry: Entry) -> None:
        """Go up to a better neighbour; what is no neighbour of the climb begins another."""
        trial = entry[2]
        if trial.number >= self.initial and not any(
            are_near(trial.architecture, other[2].architecture) for other in self.entries
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
        else:
            entries = self.entries[-1:]
        return [entry[2] for entry in entries if self.around.get(entry[1], True)]

    def unmeasured(self, centre: Trial, history: History, search: Search) -> list[Architecture]:
        """Return a centre's neighbours in a random order of its own.

        Those at the end that are in the history are dropped for good.
        """
        around = self.around.get(centre.number)
        if around is None:
            around = list(neighbours(centre.architecture, search.space.decisions))
            search.stream("neighbours", centre.number).shuffle(around)
            self.around[centre.number] = around
        while around and search.space.key(around[-1]) in history.keys:
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
    make = partial(OpenTrials, search.objectives, initial)
    return read(history, search, OpenTrials, make, initial)
