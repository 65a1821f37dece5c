"""Local search climbs to a local optimum, then begins again."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from nasengine.architecture import Architecture
from nasengine.history import History
from nasengine.moves import neighbours
from nasengine.objectives import Objective, Objectives
from nasengine.search import Search
from nasengine.space import SearchSpace
from nasengine.spaces.nas_bench_macro import NASBenchMacro
from nasengine.strategies.local_search import LocalSearch
from nasengine.strategies.open_trials import open_trials
from nasengine.strategies.random import Random
from nasengine.testing.strategies import complete, play, search_for
from nasengine.testing.stubs import AdditiveEstimator
from nasengine.trial import Measurement, Status, Trial


def distance(one: Architecture, other: Architecture) -> int:
    return sum(other[name] != choice for name, choice in one.items())


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return NASBenchMacro()


def test_it_tries_neighbours_of_the_best_until_one_is_better(space: SearchSpace) -> None:
    search = search_for(space)
    history = play(LocalSearch(initial=3), search, 3)
    for _ in range(20):
        top = max(history, key=lambda trial: trial.value("x"))
        if all(space.key(n) in history.keys for n in neighbours(top.architecture, space.decisions)):
            break
        play(LocalSearch(initial=3), search, len(history) + 1, history=history)
        assert distance(history[-1].architecture, top.architecture) == 1


@pytest.mark.parametrize("limited", [False, True])
def test_after_a_local_optimum_another_climb_begins(space: SearchSpace, limited: bool) -> None:
    """Neighbours that are known to break a limit are never proposed, and not waited for."""
    search = search_for(space)
    if limited:
        items = (Objective("x", "max"), Objective("cost", at_most=6.0))
        tabled = {"cost": AdditiveEstimator()}
        search = replace(search, objectives=Objectives(items), estimators=tabled)
    history = play(LocalSearch(initial=1), search, 120)
    tops = [top_of(History(history[:n]), search) for n in range(1, 121)]
    starts = [
        (before, after.number) for before, after in pairwise(tops) if after.number != before.number
    ]
    starts = [(top, at) for top, at in starts if history[at].value("x") <= top.value("x")]
    assert starts
    for top, at in starts:
        assert around(top, search) <= {trial.key for trial in history[:at]}


def test_a_plateau_is_crossed(space: SearchSpace) -> None:
    """A step of two: no single change is better."""

    def outcome(trial: Trial) -> Trial:
        right = sum(trial.architecture[name] == c[-1] for name, c in space.decisions.items())
        return replace(complete(trial), measurements={"x": Measurement(float(right // 2))})

    found = []
    for seed in range(5):
        history = play(LocalSearch(initial=1), search_for(space, 1, seed), 150, outcome=outcome)
        found.append(max(trial.value("x") for trial in history))
    assert sum(found) >= 16, "of 20"


@pytest.mark.parametrize("seed", range(3))
def test_no_climb_is_lost_while_several_are_measured_at_once(space: SearchSpace, seed: int) -> None:
    search, order = search_for(space, seed=seed), random.Random(seed)
    history, running = History(), []
    top = None
    while len(history) < 150:
        for architecture in LocalSearch(initial=1).propose(history, 4 - len(running), search):
            running.append(Trial(len(history), architecture, space.key(architecture)))
            history.record(running[-1])
        history.record(complete(running.pop(order.randrange(len(running)))))
        before, top = top, top_of(history, search)
        if before and top.number != before.number and top.value("x") <= before.value("x"):
            assert around(before, search) <= history.keys


def test_what_was_begun_before_a_late_neighbour_was_better_does_not_end_its_climb(
    space: SearchSpace,
) -> None:
    """Several workers: something random was proposed when all neighbours of the top had been."""
    search = search_for(space)
    (start,) = Random().propose(History(), 1, search)
    near = list(neighbours(start, space.decisions))
    better = near[0]
    far = next(
        a
        for a in play(Random(), search_for(space, seed=1), 20)
        if distance(a.architecture, better) > 2 and distance(a.architecture, start) > 2
    )
    values = {start: 0.5, better: 0.9, far.architecture: 0.2}
    history = History()
    for architecture in [start, *near, far.architecture, *neighbours(better, space.decisions)]:
        trial = Trial(len(history), architecture, space.key(architecture))
        x = Measurement(values.get(architecture, 0.3))
        history.record(replace(trial, status=Status.COMPLETE, measurements={"x": x}))
    assert top_of(history, search).architecture == better


def top_of(history: History, search: Search) -> Trial:
    ((_, _, top),) = open_trials(history, search, 1).entries
    return top


def around(trial: Trial, search: Search) -> set[str]:
    near = neighbours(trial.architecture, search.space.decisions)
    return {search.space.key(one) for one in near if not search.excess(one)}


def test_neighbours_are_tried_in_an_order_of_the_seed_and_each_trials_own(
    space: SearchSpace,
) -> None:
    changed = set()
    for seed in range(10):
        search = search_for(space, seed=seed)
        first, second = play(LocalSearch(initial=1), search, 2)
        changed |= {
            n for n, choice in first.architecture.items() if second.architecture[n] != choice
        }
    assert len(changed) >= 4


def test_of_a_front_any_trial_is_gone_on_from_and_of_equal_ones_one(space: SearchSpace) -> None:
    search = search_for(space, goals=2)
    history = play(Random(), search, 6)
    for number, x in enumerate((0.1, 0.5, 0.5, 0.9, 0.2, 0.3)):
        # More of x is better, less of y: but for the last two, one front.
        measured = {"x": Measurement(x), "y": Measurement(x if number < 4 else 1.0)}
        history.record(replace(history[number], measurements=measured))
    trials = open_trials(history, search, 6)
    found = [[trial.number for trial in trials.centres(random.Random(seed))] for seed in range(20)]
    assert all(sorted(numbers) == [0, 1, 3] for numbers in found)
    assert {numbers[0] for numbers in found} == {0, 1, 3}
    # As many as are asked for, though no trial has so many neighbours.
    assert len(LocalSearch(initial=6).propose(history, 20, search)) == 20


def test_several_goals_go_on_from_the_front(space: SearchSpace) -> None:
    search = search_for(space, goals=2)
    history = play(LocalSearch(initial=5), search, 60)
    for number in range(5, 60, 7):
        front = search.objectives.front(history[:number])
        nearest = min(distance(history[number].architecture, t.architecture) for t in front)
        assert nearest == 1


def test_better_than_random(space: SearchSpace) -> None:
    def best(strategy: LocalSearch | Random, seed: int) -> float:
        history = play(strategy, search_for(space, seed=seed), 80)
        return max(trial.value("x") for trial in history)

    ours, chance = (
        sum(best(strategy, seed) for seed in range(6)) for strategy in (LocalSearch(), Random())
    )
    assert ours > chance
