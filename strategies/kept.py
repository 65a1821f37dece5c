"""What a strategy reads out of the history, kept from one proposal to the next.

Trials are taken in order of number, each once, when all before it have ended; those that ended out
of turn (several workers) are taken by a copy, for one proposal. So a proposal costs the same
however long the search, and what is kept follows from the history alone: after a resume it is read
again from the start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from nasengine.history import MEASURED, History
from nasengine.trial import Trial

if TYPE_CHECKING:
    from nasengine.search import Search


class Reading(ABC):
    """What was read from a part of the history."""

    @abstractmethod
    def take(self, trial: Trial) -> None:
        """Take in the next measured trial."""


class Copyable(Reading):
    """A reading that can be gone on from in two ways."""

    @abstractmethod
    def copy(self) -> Copyable:
        """Return a reading that goes on from here without changing this one."""


R = TypeVar("R", bound=Reading)
C = TypeVar("C", bound=Copyable)


@dataclass
class _Kept:
    reading: Any
    what: tuple[object, ...]
    rewrites: int
    used: int = 0


_kept: WeakKeyDictionary[History, dict[type[Reading], _Kept]] = WeakKeyDictionary()
"""By history and by what is read of it: two strategies may search on one history."""


def settled(
    history: History, search: Search, kind: type[R], make: Callable[[], R], *settings: object
) -> R:
    """Return what was read of the trials before the first that still runs.

    Parameters
    ----------
    history
        The trials.
    search
        The space whose trials are read, and what they are compared by.
    kind
        What is read.
    make
        Makes one of nothing.
    settings
        What else the reading depends on: when it differs, all is read again.
    """
    what = (search.space, search.objectives, search.seed, *settings)
    readings = _kept.setdefault(history, {})
    kept = readings.get(kind)
    if kept is None or kept.rewrites != history.rewrites or kept.what != what:
        kept = readings[kind] = _Kept(make(), what, history.rewrites)
    if kept.used < history.settled:
        del readings[kind]  # an interruption half way through a trial must not be gone on from
        for trial in history[kept.used : history.settled]:
            if trial.status in MEASURED:
                kept.reading.take(trial)
        kept.used = history.settled
        readings[kind] = kept
    return kept.reading  # type: ignore[no-any-return]


def ahead(history: History) -> list[Trial]:
    """Return the measured trials that come after one that still runs."""
    if history.settled == len(history):
        return []
    return [trial for trial in history[history.settled :] if trial.status in MEASURED]


def read(
    history: History, search: Search, kind: type[C], make: Callable[[], C], *settings: object
) -> C:
    """Return what was read of all measured trials; not to be changed. See `settled`."""
    reading = settled(history, search, kind, make, *settings)
    out_of_turn = ahead(history)
    if out_of_turn:
        reading = reading.copy()  # type: ignore[assignment]
        for trial in out_of_turn:
            reading.take(trial)
    return reading
