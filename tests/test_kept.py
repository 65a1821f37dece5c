"""What strategies keep of the history: taken once, in order, and never half."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from nasengine.strategies.kept import Copyable, read
from nasengine.strategies.random import Random
from nasengine.testing.strategies import BranchedSpace, complete, play, search_for
from nasengine.trial import Trial


@dataclass
class Numbers(Copyable):
    taken: list[int] = field(default_factory=list)
    fails_at: int = -1

    def take(self, trial: Trial) -> None:
        self.taken.append(trial.number)
        if trial.number == self.fails_at:
            raise KeyboardInterrupt

    def copy(self) -> Numbers:
        return replace(self, taken=list(self.taken))


def test_a_trial_out_of_turn_is_taken_for_one_proposal_only() -> None:
    search = search_for(BranchedSpace())
    history = play(Random(), search, 3)
    for _ in range(3):
        architecture = Random().propose(history, 1, search)[0]
        history.record(Trial(len(history), architecture, search.space.key(architecture)))
    history.record(complete(history[5]))
    assert read(history, search, Numbers, Numbers).taken == [0, 1, 2, 5]
    history.record(complete(history[3]))
    assert read(history, search, Numbers, Numbers).taken == [0, 1, 2, 3, 5]
    history.record(complete(history[4]))
    kept = read(history, search, Numbers, Numbers)
    assert kept.taken == [0, 1, 2, 3, 4, 5]
    assert read(history, search, Numbers, Numbers) is kept


def test_an_interrupted_reading_is_begun_again() -> None:
    search = search_for(BranchedSpace())
    history = play(Random(), search, 4)
    with pytest.raises(KeyboardInterrupt):
        read(history, search, Numbers, lambda: Numbers(fails_at=2))
    assert read(history, search, Numbers, Numbers).taken == [0, 1, 2, 3]


def test_other_settings_another_seed_and_a_changed_trial_begin_again() -> None:
    search = search_for(BranchedSpace())
    history = play(Random(), search, 4)
    first = read(history, search, Numbers, Numbers)
    other = read(history, search, Numbers, Numbers, "other")
    seeded = read(history, search_for(BranchedSpace(), seed=1), Numbers, Numbers, "other")
    history.record(history[1])
    assert len({id(reading) for reading in (first, other, seeded)}) == 3
    assert read(history, search, Numbers, Numbers) is not first


class Others(Numbers):
    """Reads the same, for another strategy."""


def test_two_strategies_on_one_history_read_each_their_own() -> None:
    search, history = search_for(BranchedSpace()), play(Random(), search_for(BranchedSpace()), 4)
    first = read(history, search, Numbers, Numbers)
    assert type(read(history, search, Others, Others)) is Others
    assert read(history, search, Numbers, Numbers) is first
