"""What is proposed is new, and keeps the limits that are counted from tables."""

from dataclasses import replace
from typing import Any

import pytest

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
from nasengine.testing.stubs import AdditiveEstimator, tiny_search
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


def limited(space: SearchSpace, **limits: float) -> Search:
    items = (Objective("x", "max"), Objective("cost", **limits))  # type: ignore[arg-type]
    search = tiny_search(space, estimators={"cost": AdditiveEstimator()})
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


def test_what_is_preferred_comes_first_and_anything_new_after_it() -> None:
    search = tiny_search(BranchedSpace())
    every = list(enumerate_all(search.space.decisions))
    unseen, wanted = Unseen(History(), search, search.stream("test")), iter(every[:3] + every[:3])
    found = unseen.samples(5, lambda: wanted)
    keys = [search.space.key(architecture) for architecture in found]
    assert len(set(keys)) == 5
    first = dict.fromkeys(search.space.key(architecture) for architecture in every[:3])
    assert keys[: len(first)] == list(first)


def test_a_visit_of_a_large_space_begins_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LISTED", 1), ("TRIES", 0), ("REJECTED", 0)):
        monkeypatch.setattr(f"nasengine.unseen.{name}", value)
    search = tiny_search(NASBenchMacro())
    begun = {Unseen(History(), search, search.stream(seed)).sample() for seed in range(10)}
    assert len(begun) > 5
