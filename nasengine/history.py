"""The trials of a search, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from nasengine.trial import Status, Trial


class History(Sequence[Trial]):
    """What a search has proposed so far, in order of trial number.

    A strategy reads it and nothing else, so that resuming is reading it again. Trials still
    running (several workers) are among them; what is measured of them so far is no matter of a
    strategy's.

    Parameters
    ----------
    trials
        Earlier trials, their numbers 0, 1, 2, ...
    """

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        self._trials: list[Trial] = []
        self._keys: set[str] = set()
        self._complete: list[Trial] | None = None
        self._measured: list[Trial] | None = None
        self._settled = 0
        self._rewrites = 0
        for trial in trials:
            self.record(trial)

    def __len__(self) -> int:
        return len(self._trials)

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._trials)

    @overload
    def __getitem__(self, index: int) -> Trial: ...
    @overload
    def __getitem__(self, index: slice) -> list[Trial]: ...
    def __getitem__(self, index: int | slice) -> Trial | list[Trial]:
        return self._trials[index]

    @property
    def keys(self) -> set[str]:
        """Canonical keys of everything proposed so far. Not to be changed."""
        return self._keys

    @property
    def complete(self) -> list[Trial]:
        """Trials that were measured in full, in order. Not to be changed."""
        if self._complete is None:
            self._complete = [t for t in self._trials if t.status is Status.COMPLETE]
        return self._complete

    @property
    def measured(self) -> list[Trial]:
        """Trials that are complete, infeasible or screened, in order. Not to be changed.

        As long as this is the same list object, it has only grown at its end: what a strategy
        derives from a part of it stays true.
        """
        if self._measured is None:
            self._measured = [t for t in self._trials if t.status in MEASURED]
        return self._measured

    @property
    def settled(self) -> int:
        """How many trials, from the first on, have all ended: they will not change any more."""
        trials = self._trials
        while self._settled < len(trials) and trials[self._settled].status is not Status.RUNNING:
            self._settled += 1
        return self._settled

    @property
    def rewrites(self) -> int:
        """How often a trial that had ended was replaced: what was derived before is void."""
        return self._rewrites

    def record(self, trial: Trial) -> None:
        """Append a trial, or replace the one of the same number (running, then ended).

        Raises
        ------
        ValueError
            If the number is neither the next one nor an earlier one's.
        """
        if trial.number == len(self._trials):
            self._trials.append(trial)
            self._note_ended(None, trial)
        elif 0 <= trial.number < len(self._trials):
            before, self._trials[trial.number] = self._trials[trial.number], trial
            self._note_ended(before, trial)
            if before.status is not Status.RUNNING:
                self._settled = min(self._settled, trial.number)
                self._rewrites += 1
        else:
            raise ValueError(f"trial {trial.number} cannot follow {len(self._trials)} trials")
        self._keys.add(trial.key)

    def _note_ended(self, before: Trial | None, after: Trial) -> None:
        self._complete = _updated(self._complete, (Status.COMPLETE,), before, after)
        self._measured = _updated(self._measured, MEASURED, before, after)


MEASURED = (Status.COMPLETE, Status.INFEASIBLE, Status.SCREENED)
"""How a trial ends from which a search learns."""


def _updated(
    kept: list[Trial] | None, statuses: tuple[Status, ...], before: Trial | None, after: Trial
) -> list[Trial] | None:
    """Keep a list up to date in constant time where the order allows; None: to be rebuilt."""
    if kept is None or (before is not None and before.status in statuses):
        return None
    if after.status in statuses:
        if kept and kept[-1].number > after.number:
            return None
        kept.append(after)
    return kept
