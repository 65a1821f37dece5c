"""Regularised evolution and NSGA-II do what their papers say."""

from dataclasses import replace

import pytest

from nasengine.architecture import Architecture
from nasengine.history import History
from nasengine.objectives import Objectives
from nasengine.search import Budget
from nasengine.space import SearchSpace
from nasengine.spaces.nas_bench_macro import NASBenchMacro
from nasengine.strategies.evolution import Evolution
from nasengine.strategies.generations import crowding, fittest, survivors
from nasengine.strategies.random import Random
from nasengine.testing.strategies import complete, made_up, play, search_for
from nasengine.trial import Measurement, Status, Trial


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return NASBenchMacro()


def differs(one: Architecture, other: Architecture) -> int:
    return sum(one[name] != other[name] for name in one)


def test_a_child_is_a_mutant_of_the_best_of_the_youngest(space: SearchSpace) -> None:
    search = search_for(space)
    # Tournaments so large that the best always takes part.
    strategy = Evolution(population=5, sample=200)
    history = play(strategy, search, 5)
    for _ in range(15):
        population = [history[number] for number in range(len(history) - 5, len(history))]
        best = max(population, key=lambda trial: trial.value("x"))
        play(strategy, search, len(history) + 1, history=history)
        assert differs(history[-1].architecture, best.architecture) == 1


def test_the_best_wins_tournaments_of_so_many_draws(space: SearchSpace) -> None:
    """Real et al., Algorithm 1: drawn with replacement, so that it is missing in (3/4)^sample."""
    search = search_for(space)
    history = play(Random(), search, 4)
    best = max(history, key=lambda trial: trial.value("x")).architecture
    for sample in (1, 3):
        wins = 0
        for seed in range(160):
            seeded = replace(search, seed=seed)
            (child,) = Evolution(population=4, sample=sample).propose(history, 1, seeded)
            wins += differs(child, best) == 1
        p = 1 - 0.75**sample
        assert abs(wins / 160 - p) < 4 * (p * (1 - p) / 160) ** 0.5


def test_what_breaks_a_limit_is_no_parent_and_what_still_runs_takes_no_place(
    space: SearchSpace,
) -> None:
    search = search_for(space)
    history = play(Random(), search, 8)
    broken = {"x": Measurement(9.0), "size": Measurement(9.0)}
    history.record(replace(history[7], status=Status.INFEASIBLE, measurements=broken))
    history.record(Trial(5, history[5].architecture, history[5].key))
    best = max((history[number] for number in (2, 3, 4, 6)), key=lambda trial: trial.value("x"))
    for seed in range(5):
        seeded = replace(search, seed=seed)
        (child,) = Evolution(population=5, sample=200).propose(history, 1, seeded)
        assert differs(child, best.architecture) == 1


def test_survivors_are_the_fold_of_generations(space: SearchSpace) -> None:
    search = search_for(space, goals=2)
    history = play(Evolution(population=4), search, 19)
    parents: list[Trial] = []
    for start in range(0, 16, 4):
        parents = fittest([*parents, *history[start : start + 4]], 4, search.objectives)
    assert survivors(history, 4, search) == parents
    assert survivors(History(history), 4, search) == parents


def test_parents_win_tournaments_of_two_by_their_order(space: SearchSpace) -> None:
    """Of four, the first is in a tournament of two, and wins it, in 7 of 16; the last in one."""
    search = search_for(space, goals=2)
    history = play(Random(), search, 4)
    parents = [trial.architecture for trial in survivors(history, 4, search)]
    apart = min(differs(a, b) for a in parents for b in parents if a is not b)
    assert apart >= 3, "or a child would be near two of them"
    wins = [0, 0, 0, 0]
    for seed in range(160):
        seeded = replace(search, seed=seed)
        (child,) = Evolution(population=4, crossover=0.0).propose(history, 1, seeded)
        (parent,) = [i for i, one in enumerate(parents) if differs(child, one) == 1]
        wins[parent] += 1
    for count, p in zip(wins, (7 / 16, 5 / 16, 3 / 16, 1 / 16), strict=True):
        assert abs(count / 160 - p) < 4 * (p * (1 - p) / 160) ** 0.5


def test_a_crossed_child_has_two_parents_and_one_mutation(space: SearchSpace) -> None:
    search = search_for(space, goals=2)
    history = play(Random(), search, 2)
    one, other = (trial.architecture for trial in history)
    mixed = 0
    for seed in range(50):
        seeded = replace(search, seed=seed)
        (child,) = Evolution(population=2, crossover=1.0).propose(history, 1, seeded)
        foreign = sum(child[name] not in (one[name], other[name]) for name in one)
        assert foreign <= 1
        mixed += min(differs(child, one), differs(child, other)) > 1
    # In a quarter of the tournaments the two are the fitter one, in a sixteenth the other.
    assert 8 < mixed < 30


def test_a_changed_trial_changes_what_was_kept(space: SearchSpace) -> None:
    search = search_for(space, goals=2)
    history = play(Evolution(population=4), search, 8)
    before = survivors(history, 4, search)
    worst = {m: Measurement(v) for m, v in (("x", -9.0), ("y", 9.0))}
    changed = before[0]
    history.record(Trial(changed.number, changed.architecture, changed.key, Status.COMPLETE, worst))
    assert survivors(history, 4, search) == survivors(History(history), 4, search)
    assert changed.number not in [t.number for t in survivors(history, 4, search)][:3]


def test_crowding_keeps_the_ends_and_the_lonely() -> None:
    assert crowding([(0.0, 5.0), (1.0, 4.0), (1.5, 3.5), (5.0, 0.0)])[0] == float("inf")
    # Of each goal's own range, wherever that lies.
    assert crowding([(10.0, 4.0), (11.0, 1.0), (14.0, 0.0)])[1] == 2.0
    distances = crowding([(0.0, 5.0), (0.5, 4.5), (1.0, 4.0), (3.0, 1.0), (5.0, 0.0)])
    assert distances[3] > distances[2] > distances[1]


def test_the_fittest_are_of_the_first_front_its_ends_and_its_lonely(space: SearchSpace) -> None:
    search = search_for(space, goals=2)
    architecture = play(Random(), search, 1)[0].architecture
    # More of x is better, less of y: all but the last are one front.
    values = [(1.0, 1.0), (0.0, 0.0), (1.2, 1.2), (3.0, 3.0), (5.0, 5.0), (-9.0, 9.0)]

    def ended(values: list[tuple[float, float]]) -> list[Trial]:
        measured = ({"x": Measurement(x), "y": Measurement(y)} for x, y in values)
        return [
            Trial(n, architecture, str(n), Status.COMPLETE, found)
            for n, found in enumerate(measured)
        ]

    trials = ended(values)
    found = [trial.number for trial in fittest(trials, 6, search.objectives)]
    assert found == [1, 4, 3, 2, 0, 5]
    assert [trial.number for trial in fittest(trials, 3, search.objectives)] == found[:3]
    # The ends of a second front come after all of the first.
    trials = ended([(-1.0, 0.5), (0.0, 0.0), (1.0, 1.0), (1.5, 3.0), (2.0, 2.0)])
    assert [trial.number for trial in fittest(trials, 3, search.objectives)] == [1, 4, 2]


def test_a_goal_without_a_range_tells_of_no_crowding() -> None:
    inf = float("inf")
    assert crowding([(0.0, 1.0), (1.0, 0.5), (inf, 0.0)]) == [inf, 1.0, inf]
    assert crowding([(0.0, 1.0), (0.0, 0.5), (0.0, 0.0)]) == [inf, 1.0, inf]


def test_a_generation_that_is_not_complete_is_in_order_too(space: SearchSpace) -> None:
    search = search_for(space, goals=2)
    history = play(Random(), search, 5)
    assert survivors(history, 9, search) == fittest(history, 9, search.objectives)


def test_what_ended_out_of_turn_is_read_for_one_proposal(space: SearchSpace) -> None:
    """Several workers: a trial still runs while later ones are measured."""
    search = search_for(space, goals=2)
    history = play(Random(), search, 8)
    first = history[2]
    history.record(Trial(2, first.architecture, first.key))
    measured = [trial for trial in history if trial.number != 2]
    for population in (7, 9):
        for _ in range(2):
            found = survivors(history, population, search)
            assert found == fittest(measured, population, search.objectives)


@pytest.mark.parametrize("goals", [1, 2])
def test_better_than_random(space: SearchSpace, goals: int) -> None:
    def score(strategy: Evolution | Random, seed: int) -> float:
        history = play(strategy, search_for(space, goals, seed), 120)
        objectives: Objectives = search_for(space, goals).objectives
        losses = [sum(objectives.losses(trial)) for trial in history]
        return min(losses)

    ours, chance = (
        sum(score(strategy, seed) for seed in range(5))
        for strategy in (Evolution(population=20, sample=5), Random())
    )
    assert ours < chance


def test_made_up_values_are_the_same_every_time(space: SearchSpace) -> None:
    trial = play(Random(), search_for(space), 1)[0]
    assert complete(trial).value("x") == made_up(trial.architecture, "x")


def test_a_larger_budget_changes_no_proposal():
    """A resume may raise the budget: it goes on as if it had been that from the start."""
    few, more = (
        replace(search_for(NASBenchMacro()), budget=Budget(trials=trials)) for trials in (30, 300)
    )
    found = [[t.architecture for t in play(Evolution(), search, 30)] for search in (few, more)]
    assert found[0] == found[1]
