"""What every strategy must keep, as a pytest class to inherit.

Examples
--------
In a package that offers its own strategy::

    from nasengine.testing.strategies import StrategyContract

    class TestMyStrategy(StrategyContract):
        @pytest.fixture
        def strategy(self):
            return MyStrategy(population=5)

It runs on a small space and on values that are made up, so that nothing is trained.
"""

from __future__ import annotations

import random
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nasengine.architecture import Architecture
from nasengine.errors import SpecError
from nasengine.graph import SpaceGraph
from nasengine.history import History
from nasengine.moves import enumerate_all
from nasengine.objectives import Objective, Objectives
from nasengine.operations import Zero
from nasengine.randomness import derive_seed
from nasengine.screen import BAR, Screen
from nasengine.search import Search
from nasengine.space import SearchSpace
from nasengine.strategy import Strategy
from nasengine.testing.stubs import TinyGate, tiny_search
from nasengine.trial import Measurement, Status, Trial

if TYPE_CHECKING:
    from torch import nn

Outcome = Callable[[Trial], Trial]
"""What becomes of a trial that ran: its status and measurements."""


class BranchedSpace(SearchSpace):
    """Two branches that are added, then a slot: 48 architectures, of which many are the same."""

    def define(self, graph: SpaceGraph) -> None:
        """Wire a diamond and a chain."""
        from torch import nn

        def conv(channels_in: int, channels_out: int) -> nn.Module:
            return nn.Conv2d(channels_in, channels_out, 1)

        def wide(channels_in: int, channels_out: int) -> nn.Module:
            return nn.Conv2d(channels_in, channels_out, 3, padding=1)

        def skip(channels_in: int, channels_out: int) -> nn.Module:  # noqa: ARG001
            return nn.Identity()

        def zero(channels_in: int, channels_out: int) -> nn.Module:  # noqa: ARG001
            return Zero()

        x = graph.input(2)
        branch = {"conv": conv, "wide": wide, "skip": skip, "none": zero}
        left, right = graph.slot("left", x, branch), graph.slot("right", x, branch)
        x = graph.add("sum", [left, right])
        x = graph.slot("tail", x, {"conv": conv, "wide": wide, "skip": skip})
        graph.output(x)


def made_up(architecture: Architecture, metric: str) -> float:
    """Return a value in 0 to 1 that an architecture always has: parts of its own, and pairs."""
    items = list(architecture.items())
    alone = [derive_seed(0, metric, *item) % 1000 / 1000 for item in items]
    pairs = [derive_seed(0, metric, *one, *other) % 1000 / 1000 for one, other in pairwise(items)]
    values = [*alone, *pairs]
    return sum(values) / len(values)


def complete(trial: Trial) -> Trial:
    """Let a trial end well, with the metrics ``x`` and ``y``."""
    return _ended(
        trial,
        Status.COMPLETE,
        {m: Measurement(made_up(trial.architecture, m)) for m in ("x", "y", "z")},
    )


def troubled(trial: Trial) -> Trial:
    """Let one trial in five fail, one be lost, one end before ``x`` is measured.

    These break a limit or are held back by a screen, in turn.
    """
    if trial.number % 5 == 1:
        return _ended(trial, Status.FAILED, {}, "out of memory")
    if trial.number % 5 == 2:
        return _ended(trial, Status.LOST, {}, "the machine went away")
    if trial.number % 10 == 8:
        return held_back(trial)
    if trial.number % 5 == 3:
        return _ended(trial, Status.INFEASIBLE, {"size": Measurement(2.0)}, "size 2 > 1")
    return complete(trial)


def held_back(trial: Trial) -> Trial:
    """Let a screen hold a trial back."""
    early = Measurement(made_up(trial.architecture, "early") - 1, {BAR: 1.0})
    return _ended(trial, Status.SCREENED, {"early": early}, "early is too low")


def _alike(trial: Trial, value: float, size: float) -> Trial:
    """Let a trial end as good as a value says; a size above 1 breaks the limit."""
    status = Status.INFEASIBLE if size > 1 else Status.COMPLETE
    values = {"x": value, "y": -value, "z": value, "size": size}
    measured = {metric: Measurement(v) for metric, v in values.items()}
    return _ended(trial, status, measured, "size" if size > 1 else "")


def _ended(
    trial: Trial, status: Status, measurements: dict[str, Measurement], reason: str = ""
) -> Trial:
    return Trial(trial.number, trial.architecture, trial.key, status, measurements, reason)


def search_for(space: SearchSpace, goals: int = 1, seed: int = 0) -> Search:
    """Return a search of so many goals: ``x`` (max), ``y`` (min), ``z`` (max)."""
    items = (Objective("x", "max"), Objective("y", "min"), Objective("z", "max"))[:goals]
    limit = Objective("size", at_most=1.0)
    screen = Objective("early", screen=Screen(0.5, "max"))
    return tiny_search(space, objectives=Objectives((*items, limit, screen)), seed=seed)


def play(
    strategy: Strategy,
    search: Search,
    trials: int,
    *,
    count: int = 1,
    outcome: Outcome = complete,
    history: History | None = None,
) -> History:
    """Run a search of made-up outcomes, on from a history if there is one."""
    history = History() if history is None else history
    while len(history) < trials:
        proposed = strategy.propose(history, count, search)
        if not proposed:
            break
        for architecture in proposed:
            key = search.space.key(architecture)
            history.record(Trial(len(history), architecture, key))
        for trial in history[len(history) - len(proposed) :]:
            history.record(outcome(trial))
    return history


def afresh(search: Search, seed: int | None = None) -> Search:
    """Return the same search in a new folder inside its own; of another seed, if given."""
    folder = Path(tempfile.mkdtemp(prefix="again-", dir=search.folder))
    return replace(search, folder=folder, seed=search.seed if seed is None else seed)


def architectures(history: Sequence[Trial]) -> list[Architecture]:
    """Return what was proposed, in order."""
    return [trial.architecture for trial in history]


class StrategyContract:
    """Inherit, give `strategy` (and, if it needs one, `space`), and pytest does the rest."""

    trials: int = 16

    @pytest.fixture
    @abstractmethod
    def strategy(self) -> Strategy:
        """Return the strategy, with settings for some twenty trials."""

    @pytest.fixture
    def space(self) -> SearchSpace:
        """Return the space that is searched."""
        return BranchedSpace()

    @pytest.fixture(params=[1, 2, 3], ids=["one goal", "two goals", "three goals"])
    def search(
        self, request: pytest.FixtureRequest, strategy: Strategy, space: SearchSpace
    ) -> Search:
        """Return a search that the strategy accepts; others it must refuse beforehand."""
        search = search_for(space, request.param)
        try:
            strategy.check(search)
        except SpecError as error:
            assert request.param > 1, f"one goal is refused: {error}"
            pytest.skip(f"refused before the run: {error}")
        return search

    def test_same_seed_and_history_same_proposal(self, strategy: Strategy, search: Search) -> None:
        """Two runs from one seed are one."""
        one, other = (play(strategy, afresh(search), self.trials) for _ in range(2))
        assert architectures(one) == architectures(other)

    def test_another_seed_gives_another_sequence(self, strategy: Strategy, search: Search) -> None:
        """Or an ablation over seeds would repeat one run, and call its results sure."""
        found = [
            architectures(play(strategy, afresh(search, seed), self.trials)) for seed in range(3)
        ]
        assert any(found[0] != other for other in found[1:])

    def test_what_breaks_a_limit_does_not_attract(self, strategy: Strategy, search: Search) -> None:
        """Where one choice gives the best values, it is proposed less if it breaks a limit.

        Strategies that learn nothing from values propose it as often as when it gives the worst.
        """

        def proposed(value: float, size: float) -> int:
            return self._times_proposed(strategy, search, lambda trial: _alike(trial, value, size))

        tempting = proposed(2.0, 0.5)
        if tempting > proposed(-2.0, 0.5):
            assert proposed(2.0, 2.0) < tempting

    def _times_proposed(self, strategy: Strategy, search: Search, end: Outcome) -> int:
        """Count how often one choice is proposed, given how its trials end; others end well."""
        name, choices = list(search.space.decisions.items())[-1]

        def outcome(trial: Trial) -> Trial:
            return end(trial) if trial.architecture[name] == choices[0] else complete(trial)

        runs = [
            play(strategy, afresh(search, seed), self.trials, outcome=outcome) for seed in range(3)
        ]
        return sum(a[name] == choices[0] for run in runs for a in architectures(run))

    def test_what_a_screen_holds_back_does_not_attract(
        self, strategy: Strategy, search: Search
    ) -> None:
        """A choice that never passes a screen is proposed less than one that gives the best.

        Strategies that learn nothing from values propose it as often.
        """

        def proposed(value: float) -> int:
            return self._times_proposed(strategy, search, lambda trial: _alike(trial, value, 0.5))

        tempting = proposed(2.0)
        if tempting > proposed(-2.0):
            assert self._times_proposed(strategy, search, held_back) < tempting

    def test_resumed_anywhere_it_goes_on_the_same(self, strategy: Strategy, search: Search) -> None:
        """A history read back, cut at any trial, is gone on from as if nothing had happened."""
        whole = play(strategy, search, self.trials, outcome=troubled)
        for cut in range(0, len(whole), 3):
            history = History(whole[:cut])
            again = play(
                strategy, search, min(cut + 2, len(whole)), outcome=troubled, history=history
            )
            assert architectures(again) == architectures(whole[: len(again)]), f"cut at {cut}"

    @pytest.mark.parametrize("seed", [0, 1])
    def test_what_it_keeps_follows_from_the_history(
        self, strategy: Strategy, search: Search, seed: int
    ) -> None:
        """Whatever the order in which trials end, a history read back gives the same proposal."""
        order, history = random.Random(seed), History()
        running: list[Trial] = []
        while len(history) < self.trials:
            count = order.randint(1, 3)
            proposed = list(strategy.propose(history, count, search))
            afresh = list(strategy.propose(History(history), count, search))
            assert proposed == afresh, f"after {len(history)} trials"
            for architecture in proposed:
                trial = Trial(len(history), architecture, search.space.key(architecture))
                history.record(trial)
                running.append(trial)
            if not proposed and not running:
                break
            order.shuffle(running)
            while running and (not proposed or len(running) > order.randint(0, 3)):
                history.record(troubled(running.pop()))

    def test_never_twice_the_same_until_nothing_is_left(
        self, strategy: Strategy, space: SearchSpace, search: Search
    ) -> None:
        """Every architecture that computes something else once, then an empty answer."""
        distinct = {space.key(a) for a in enumerate_all(space.decisions)}
        assert len(distinct) <= 200, "give a smaller space"
        history = play(strategy, search, 2 * len(distinct))
        assert len(history) == len(distinct)
        assert {trial.key for trial in history} == distinct
        assert list(strategy.propose(history, 1, search)) == []

    def test_numbers_of_channels_are_decided_too(self, strategy: Strategy) -> None:
        """Decisions of which some fill no slot, and some count nowhere where a branch is cut."""
        space = TinyGate()
        search = search_for(space)
        strategy.check(search)
        history = play(strategy, search, 12)
        assert len(history.keys) == len(history) == 12
        assert all(
            trial.architecture == space.architecture(trial.architecture) for trial in history
        )

    @pytest.mark.parametrize("count", [2, 5])
    def test_several_at_once(
        self, strategy: Strategy, space: SearchSpace, search: Search, count: int
    ) -> None:
        """At most `count`, none twice, each one of the space's; those running are not repeated."""
        history = History()
        for _ in range(4):
            proposed = list(strategy.propose(history, count, search))
            assert 1 <= len(proposed) <= count
            for architecture in proposed:
                assert architecture == space.architecture(architecture)
                key = space.key(architecture)
                assert key not in history.keys
                history.record(Trial(len(history), architecture, key))
            # The first of each round ends, the others run on.
            history.record(complete(history[len(history) - len(proposed)]))

    @pytest.mark.parametrize(
        "status", [Status.FAILED, Status.LOST, Status.INFEASIBLE, Status.SCREENED]
    )
    def test_goes_on_when_nothing_succeeds(
        self, strategy: Strategy, search: Search, status: Status
    ) -> None:
        """Trials that all fail are no reason to stop, nor to fail."""
        history = play(
            strategy, search, 12, outcome=lambda trial: _ended(trial, status, {}, "no luck")
        )
        assert len(history) == 12

    def test_values_that_are_no_numbers(self, strategy: Strategy, search: Search) -> None:
        """NaN and infinity are bad values, not crashes."""

        def odd(trial: Trial) -> Trial:
            value = (float("nan"), float("inf"), float("-inf"), 0.5)[trial.number % 4]
            return _ended(trial, Status.COMPLETE, {m: Measurement(value) for m in ("x", "y", "z")})

        assert len(play(strategy, search, 14, outcome=odd)) == 14

    def test_leaves_global_state_and_stdout_alone(
        self, strategy: Strategy, search: Search, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Neither the global generators are drawn from or seeded, nor is anything printed."""
        import torch

        def states() -> str:
            return repr((random.getstate(), np.random.get_state(), torch.get_rng_state().tolist()))

        before = states()
        play(strategy, search, self.trials // 2)
        assert states() == before
        assert capfd.readouterr().out == ""
