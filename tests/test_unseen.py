"""What is proposed is new, and keeps the limits that are counted from tables."""

from dataclasses import replace
from typing import Any

import pytest

from nasengine.estimator import CostTable
from nasengine.history import History
from nasengine.moves import enumerate_all
from nasengine.objectives import Objective, Objectives
from nasengine.search import Search
from nasengine.space import SearchSpace
from nasengine.spaces.nas_bench_macro import NASBenchMacro
from nasengine.strategies.evolution import Evolution
from nasengine.strategies.local_search import LocalSearch
from nasengine.strategies.nni import Nni
from nasengine.strategies.optuna import Optuna
from nasengine.strategies.predictor import Predictor
from nasengine.strategies.random import Random
from nasengine.strategy import Strategy
from nasengine.testing.strategies import BranchedSpace, play
from nasengine.testing.stubs import CountingEstimator, tiny_search
from nasengine.unseen import Unseen

STRATEGIES = [
    Random(),
    Random(stratify="cost"),
    Evolution(population=5),
    LocalSearch(initial=3),
    Predictor(initial=4, candidates=20),
    Optuna(),
    Optuna(sampler="nsga2"),
    Nni(),
    Nni(tuner="grid"),
]


class Additive(CountingEstimator):
    """A cost of 0, 1, 2, ... for the choices of every slot."""

    def table(self, search: Search) -> CostTable:
        rows = {
            n: {c: float(i) for i, c in enumerate(cs)} for n, cs in search.space.decisions.items()
        }
        return CostTable("", 0.0, rows, {name: name for name in rows})


def limited(space: SearchSpace, **limits: float) -> Search:
    items = (Objective("x", "max"), Objective("cost", **limits))  # type: ignore[arg-type]
    search = tiny_search(space, estimators={"cost": Additive()})
    return replace(search, objectives=Objectives(items))


def cost(search: Search, trial: Any) -> float:
    return search.cost_table("cost").predict(trial.architecture)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_no_trial_breaks_a_limit_that_is_counted(strategy: Strategy) -> None:
    # Of 6,561 architectures, 45 cost at most 2, of which some compute the same.
    search = limited(NASBenchMacro(), at_most=2.0)
    history = play(strategy, search, 30)
    assert len(history.keys) == len(history) == 30
    assert all(cost(search, trial) <= 2 for trial in history)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_all_that_keep_it_are_found_and_then_the_search_ends(strategy: Strategy) -> None:
    search = limited(BranchedSpace(), at_most=2.0)
    within = [
        a
        for a in enumerate_all(search.space.decisions)
        if search.cost_table("cost").predict(a) <= 2
    ]
    history = play(strategy, search, 48)
    assert history.keys == {search.space.key(a) for a in within}


def test_a_limit_that_no_draw_keeps_is_kept_in_a_space_too_large_to_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nasengine.unseen.LISTED", 100)
    monkeypatch.setattr("nasengine.unseen.REJECTED", 3)
    search = limited(NASBenchMacro(), at_most=1.0)
    keys = {
        search.space.key(a)
        for a in enumerate_all(search.space.decisions)
        if search.cost_table("cost").predict(a) <= 1
    }
    # The search goes on with others only when these are used up.
    history = play(Random(), search, len(keys))
    assert history.keys == keys


def test_a_limit_that_is_measured_is_no_reason_to_pass_over() -> None:
    search = limited(BranchedSpace(), at_most=2.0)
    search = replace(
        search, objectives=Objectives((Objective("x", "max"), Objective("y", None, 0)))
    )
    keys = {search.space.key(a) for a in enumerate_all(search.space.decisions)}
    assert len(Unseen(History(), search, search.stream("test")).samples(100)) == len(keys)
