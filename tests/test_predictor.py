"""The predictor: features that see the graph, a right posterior, right expectations."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from nasengine.architecture import Architecture
from nasengine.errors import SpecError
from nasengine.history import History
from nasengine.moves import enumerate_all
from nasengine.objectives import Objective, Objectives, hypervolume, non_dominated
from nasengine.space import SearchSpace
from nasengine.spaces.nas_bench_201 import NASBench201
from nasengine.spaces.nas_bench_macro import NASBenchMacro
from nasengine.strategies.acquisition import (
    expected_chebyshev_improvement,
    expected_hypervolume_improvement,
    expected_improvement,
)
from nasengine.strategies.belief import FITTED, Belief, Model, fitted
from nasengine.strategies.features import Array, features_of
from nasengine.strategies.gaussian_process import Kernel, Posterior, left_out_means
from nasengine.strategies.likeliest_kernel import Likelihood, likeliest_kernel
from nasengine.strategies.predictor import Predictor
from nasengine.strategies.random import Random
from nasengine.strategies.scales import Scale, targets
from nasengine.strategies.success import LEAST, Success
from nasengine.testing.strategies import BranchedSpace, complete, play, search_for, troubled
from nasengine.testing.stubs import tiny_search
from nasengine.trial import Measurement, Status, Trial


def test_dead_branches_are_not_seen() -> None:
    space = BranchedSpace()
    features = features_of(space)
    both = [
        space.architecture({"left": left, "right": "none", "tail": "conv"})
        for left in ("conv", "none")
    ]
    rows = features(both)
    # left, right, tail: the choices and "cut" of each.
    assert rows[0, : features.local].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0]
    assert rows[1, : features.local].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0]
    # As it is written, the dead one counts.
    written = rows[:, -features.written :]
    assert written[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0]
    assert written[1].tolist() == [0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0]
    assert features(both[::-1]).tolist() == rows[::-1].tolist()
    assert features_of(NASBenchMacro()).written == 0


def test_whole_network_features_agree_where_branches_are_swapped() -> None:
    space = BranchedSpace()
    features = features_of(space)
    for a in enumerate_all(space.decisions):
        b = space.architecture({"left": a["right"], "right": a["left"], "tail": a["tail"]})
        one, other = features([a, b])[:, features.local : features.local + features.whole]
        assert np.allclose(one, other)


def test_posterior_goes_through_the_data_and_widens_away_from_it() -> None:
    space = NASBenchMacro()
    features = features_of(space)
    history = play(Random(), search_for(space), 30)
    seen = [trial.architecture for trial in history]
    values = np.array([trial.value("x") for trial in history])
    values -= values.mean()
    posterior = Posterior(Kernel(features, (0.3,) * 8, 1.0, (0.5, 0.3, 0.2), 1e-6))
    posterior.observe(seen)
    posterior.ask(seen)
    others = [t.architecture for t in play(Random(), search_for(space, seed=9), 30)]
    posterior.ask([*seen, *others])
    mean, deviation = posterior.predict(posterior.weigh(values), range(60))
    assert np.allclose(mean[:30], values, atol=1e-3)
    assert deviation[30:].mean() > 10 * deviation[:30].mean()


def test_a_posterior_that_grew_is_the_one_of_all_at_once() -> None:
    space = NASBenchMacro()
    features, search = features_of(space), search_for(space)
    known = [trial.architecture for trial in play(Random(), search, 40)]
    values = np.random.default_rng(0).standard_normal(30)
    kernel = Kernel(features, (0.3,) * 8, 1.0, (0.5, 0.3, 0.2), 0.01)
    grown, whole = Posterior(kernel), Posterior(kernel)
    grown.observe(known[:10])
    grown.ask(known[30:35])
    grown.observe(known[:25])
    # What turned out to be another takes its place.
    grown.observe([*known[:20], known[39], *known[20:25]])
    grown.ask(known[30:])
    grown.observe(known[:30])
    whole.observe(known[:30])
    whole.ask(known[30:])
    for one, other in zip(
        *(p.predict(p.weigh(values), range(10)) for p in (grown, whole)), strict=True
    ):
        assert np.allclose(one, other)
    rows = features(known)
    covariance = kernel(rows[:30], rows[:30]) + 0.01 * np.eye(30)
    exact = kernel(rows[30:], rows[:30]) @ np.linalg.solve(covariance, values)
    assert np.allclose(whole.predict(whole.weigh(values), range(10))[0], exact)


@pytest.mark.parametrize("spaces", [NASBenchMacro, NASBench201])
def test_the_kernel_is_sought_by_a_right_gradient_and_finds_what_matters(
    spaces: type[SearchSpace],
) -> None:
    space = spaces()
    features = features_of(space)
    architectures = [t.architecture for t in play(Random(), search_for(space), 60)]
    first = next(iter(space.decisions))
    code = {choice: index for index, choice in enumerate(space.decisions[first])}
    values = np.array([(-1.0, 0.3, 0.8, 0.5, -0.6)[code[a[first]]] for a in architectures])
    values += 0.05 * np.random.default_rng(0).standard_normal(60)
    likelihood = Likelihood(features, features(architectures), values, dead=True)
    logs = likelihood.usual + 0.1 * np.arange(len(likelihood.usual))
    steps = 1e-5 * np.eye(len(logs))
    slopes = [(likelihood(logs + s)[0] - likelihood(logs - s)[0]) / 2e-5 for s in steps]
    assert np.allclose(likelihood(logs)[1], slopes, atol=1e-5)
    kernel = likeliest_kernel(features, features(architectures), values, dead=True)
    assert kernel.weights[0] > 2 * max(kernel.weights[1:])
    assert sum(kernel.shares) == pytest.approx(1)
    rows = features(architectures[:9])
    assert np.allclose(np.diag(kernel(rows, rows)), kernel.diagonal(rows))


def test_kernel_and_likelihood_are_what_they_are_said_to_be() -> None:
    """The formula of `Kernel`, pair by pair, and equation 5.8 with the variance at its best."""
    space = NASBench201()
    features = features_of(space)
    rows = features([t.architecture for t in play(Random(), search_for(space), 14)])
    values = np.random.default_rng(0).standard_normal(14)
    likelihood = Likelihood(features, rows, values, dead=True)
    logs = likelihood.usual + np.random.default_rng(1).normal(0, 0.3, len(likelihood.usual))
    kernel = likelihood.kernel(logs)
    ends = np.cumsum([features.local, features.whole])
    parts = np.split(rows, ends, axis=1)
    alive = np.split(parts[0], np.cumsum(features.widths)[:-1], axis=1)
    written = np.split(parts[2], np.cumsum([width - 1 for width in features.widths])[:-1], axis=1)

    def covariance(i: int, j: int) -> float:
        found = []
        for decided in (alive, written):
            differ = [0.5 * ((part[i] - part[j]) ** 2).sum() for part in decided]
            agree = sum(part[i] @ part[j] for part in decided) / len(decided)
            found += [np.exp(-np.dot(kernel.weights, differ)), agree]
        far = ((parts[1][i] - parts[1][j]) ** 2).sum()
        found.insert(1, np.exp(-far / 2 / kernel.length**2))
        return float(np.dot(kernel.shares, found))

    table = np.array([[covariance(i, j) for j in range(14)] for i in range(14)])
    assert np.allclose(kernel(rows, rows), table)
    noisy = table + kernel.noise * np.eye(14)
    variance = values @ np.linalg.solve(noisy, values) / 14
    evidence = -0.5 * (14 * np.log(variance) + np.linalg.slogdet(noisy)[1])
    assert likelihood(logs)[0] - likelihood._prior(logs)[0] == pytest.approx(-evidence)


def cost(architecture: Architecture) -> float:
    """Return what adds up over the decisions, dead or alive."""
    return sum((place + 1) ** 2 * len(choice) for place, choice in enumerate(architecture.values()))


def test_a_cost_that_counts_the_dead_is_believed_exactly_on_its_own_scale() -> None:
    space = NASBench201()
    search = search_for(space, goals=2)
    trials = [
        replace(t, measurements={**t.measurements, "y": Measurement(cost(t.architecture))})
        for t in play(Random(), search, 60)
    ]
    new = [t.architecture for t in play(Random(), search, 90)][60:]
    assert Model(trials, trials, search, []).scales[1] == "values"
    mean, _ = Belief(History(trials), search, 100).predict(new)
    known = np.array([cost(t.architecture) for t in trials])
    told = (np.array([cost(a) for a in new]) - known.mean()) / known.std()
    assert np.abs(mean[:, 1] - told).max() < 0.05


def test_left_out_means_are_those_without_the_one() -> None:
    space = NASBench201()
    features = features_of(space)
    known = [t.architecture for t in play(Random(), search_for(space), 12)]
    values = np.random.default_rng(0).standard_normal(12)
    kernel = Kernel(features, (0.3,) * 6, 1.0, (0.3, 0.2, 0.2, 0.2, 0.1), 0.1)
    means = left_out_means(kernel, features(known), values)
    for index in range(12):
        posterior = Posterior(kernel)
        posterior.observe(known[:index] + known[index + 1 :])
        posterior.ask([known[index]])
        assert posterior.predict(posterior.weigh(np.delete(values, index)), [0])[
            0
        ] == pytest.approx(means[index])


def test_expected_improvement_is_what_sampling_gives() -> None:
    rng = np.random.default_rng(0)
    mean, deviation = rng.normal(size=4), rng.uniform(0.3, 1, size=4)
    draws = mean + deviation * rng.standard_normal((200_000, 4))
    sampled = np.maximum(0.2 - draws, 0).mean(axis=0)
    assert np.allclose(expected_improvement(0.2, mean, deviation), sampled, atol=0.005)


def test_hypervolume_grows_by_the_chances_of_dominating_what_nothing_dominates_yet() -> None:
    """Summed over a fine grid, up to the corner, beyond which nothing counts."""
    from scipy.special import ndtr

    rng = np.random.default_rng(0)
    mean, deviation = rng.normal(size=(4, 2)), rng.uniform(0.3, 1, size=(4, 2))
    corner, inside = np.array([2.0, 1.5]), np.array([[1.0, -1.0], [-1.0, 1.0], [0.0, 0.0]])
    u, v = (np.arange(-6, end, 0.01) + 0.005 for end in corner)
    for front in (inside, np.vstack([inside, [[-1.5, 3.0]]])):
        left = ~np.any([np.outer(u > one, v > other) for one, other in front], axis=0)
        summed = [
            ndtr((u - m[0]) / d[0]) @ left @ ndtr((v - m[1]) / d[1]) * 0.01**2
            for m, d in zip(mean, deviation, strict=True)
        ]
        exact = expected_hypervolume_improvement(front, corner, mean, deviation)
        assert np.allclose(exact, summed, rtol=0.01)


def test_chebyshev_prefers_what_is_better_everywhere() -> None:
    mean = np.array([[0.0, 0.0, 0.0], [-1.0, -1.0, -1.0]])
    search = search_for(BranchedSpace())
    worth = expected_chebyshev_improvement(
        np.array([[0.0, 0.0, 0.1]]), mean, np.full((2, 3), 0.3), search.stream("test")
    )
    assert worth[1] > worth[0]


def test_chebyshev_weighs_the_goals_anew_for_every_stream() -> None:
    front, search = np.array([[1.0, 1.0, 1.0]]), search_for(BranchedSpace())
    # Each better in another goal, and by less.
    mean = np.array([[0.0, 1.0, 1.0], [1.0, 0.1, 1.0], [1.0, 1.0, 0.2]])

    def worth(number: int) -> Array:
        rng = search.stream("test", number)
        return expected_chebyshev_improvement(front, mean, np.full((3, 3), 1e-6), rng)

    found = [worth(number) for number in range(30)]
    assert {int(gains.argmax()) for gains in found} == {0, 1, 2}
    assert min(gains.max() for gains in found) > 0.01
    assert all(np.array_equal(worth(number), found[number]) for number in range(3))


def test_chebyshev_expects_nothing_of_what_is_known_and_more_of_what_is_unsure() -> None:
    front, search = 1 - np.eye(3), search_for(BranchedSpace())
    for number in range(5):
        rng = search.stream("test", number)
        mean = np.vstack([front, np.full((1, 3), 5.0)])
        sure = expected_chebyshev_improvement(front, mean, np.full((4, 3), 1e-9), rng)
        assert np.allclose(sure, 0, atol=1e-6) and sure.min() >= 0
        deviation = np.array([[0.1], [1.0], [1.0]]) * np.ones(3)
        unsure = expected_chebyshev_improvement(front, np.ones((3, 3)), deviation, rng)
        assert unsure[0] < unsure[1] == unsure[2]


def test_chebyshev_prefers_a_compromise_to_what_is_far_worse_in_other_goals() -> None:
    mean, search = np.array([[0.3, 0.3, 0.3], [-2.0, 3.0, 3.0]]), search_for(BranchedSpace())
    worth = [
        expected_chebyshev_improvement(
            1 - np.eye(3), mean, np.full((2, 3), 0.01), search.stream("test", number)
        )
        for number in range(20)
    ]
    compromise, extreme = np.sum(worth, axis=0)
    assert compromise > 2 * extreme


@pytest.mark.parametrize("scale", ["ranks", "both"])
def test_targets_put_the_infeasible_last(scale: Scale) -> None:
    search = search_for(NASBenchMacro())
    history = play(Random(), search, 20, outcome=troubled)
    trials = [t for t in history if t.status is not Status.LOST]
    column = targets(trials, search.objectives, [scale])[:, 0]
    feasible = np.array([t.status is Status.COMPLETE for t in trials])
    assert column[feasible].max() < column[~feasible].min()
    order = np.argsort(column[feasible])
    values = np.array([t.value("x") for t in trials if t.status is Status.COMPLETE])
    assert (np.diff(values[order]) <= 0).all()


def test_a_model_stands_while_several_workers_end_out_of_turn() -> None:
    search = search_for(NASBenchMacro())
    history = play(Random(), search, 30)
    for architecture in Predictor().propose(history, 3, search):
        history.record(Trial(len(history), architecture, search.space.key(architecture)))
    model = Belief(history, search, 1000)._model
    for number in (32, 30, 31):
        history.record(complete(history[number]))
        assert Belief(history, search, 1000)._model is model
    history.record(history[5])
    assert Belief(history, search, 1000)._model is not model


def test_of_very_many_trials_the_best_and_the_latest_are_fitted() -> None:
    search = search_for(NASBenchMacro())
    history = play(Random(), search, FITTED + 50)
    chosen = fitted(history, search.objectives)
    assert len(chosen) == FITTED
    assert max(history, key=lambda t: t.value("x")) in chosen
    assert history[-1] in chosen
    assert [t.number for t in chosen] == sorted(t.number for t in chosen)


def test_belief_of_several_goals_knows_the_front() -> None:
    search = search_for(NASBenchMacro(), goals=2)
    history = play(Random(), search, 30)
    front = [t.architecture for t in search.objectives.front(history)]
    parents = Belief(History(history), search, 10).parents(99, search.stream("test"))
    assert set(parents) == set(front)


def test_a_search_without_a_goal_is_refused() -> None:
    search = tiny_search(objectives=Objectives((Objective("size", at_most=1.0),)))
    with pytest.raises(SpecError, match="at least one goal"):
        Predictor().check(search)


@pytest.mark.parametrize("goals", [1, 2])
def test_better_than_random(goals: int) -> None:
    space = NASBenchMacro()

    def score(strategy: Predictor | Random, seed: int) -> float:
        search = search_for(space, goals, seed)
        points = [search.objectives.losses(t) for t in play(strategy, search, 40)]
        front = [points[index] for index in non_dominated(points)]
        return hypervolume(front, (1.0,) * goals)

    ours, chance = (
        sum(score(strategy, seed) for seed in range(3)) for strategy in (Predictor(), Random())
    )
    assert ours > chance


def test_finds_the_way_into_a_limit_that_next_to_nothing_keeps() -> None:
    """Before anything is feasible, what breaks a limit by less is nearer."""
    space = NASBenchMacro()
    names = list(space.decisions)

    def heavy(architecture: Architecture) -> float:
        return float(sum(list(space.decisions[n]).index(architecture[n]) for n in names))

    limit = Objective("heavy", at_most=1.0)  # 17 of 6,561 keep it.
    found = []
    for strategy in (Predictor(), Random()):
        search = replace(search_for(space), objectives=Objectives((Objective("x", "max"), limit)))
        history = play(strategy, search, 40, outcome=lambda t: weighed(t, heavy(t.architecture)))
        found.append(len(history.complete))
    assert found[0] >= 5 > found[1]


def failing(trial: Trial, fails: bool) -> Trial:
    return Trial(trial.number, trial.architecture, trial.key, Status.FAILED) if fails else trial


def test_what_failed_has_no_value() -> None:
    space = NASBenchMacro()
    search = search_for(space)
    history = play(Random(), search, 14)
    history.record(failing(replace(history[13], number=13), True))
    alone = History(list(history)[:13])
    asked = [trial.architecture for trial in play(Random(), search_for(space, seed=1), 5)]
    told, without = (Belief(h, search, 10).predict(asked) for h in (history, alone))
    assert np.allclose(told[0], without[0]) and np.allclose(told[1], without[1])


def chances_of(trials: Sequence[Trial], space: SearchSpace, asked: Sequence[Architecture]) -> Array:
    success = Success(trials, features_of(space))
    success.observe(trials)
    return success.chances(asked, np.arange(len(asked)))


def test_what_is_like_what_failed_is_less_likely_measured() -> None:
    space = NASBenchMacro()
    first, *_ = space.decisions
    asked = [trial.architecture for trial in play(Random(), search_for(space, seed=1), 5)]
    search = search_for(space)
    trials = list(play(Random(), search, 60))
    shallow = [failing(t, t.architecture[first] == space.decisions[first][0]) for t in trials]
    chances = chances_of(shallow, space, asked)
    dead = np.array([a[first] == space.decisions[first][0] for a in asked])
    assert 0 < dead.sum() < 5
    assert LEAST <= chances[dead].max() < 0.2 and chances[~dead].min() > 0.8 and chances.max() <= 1
    at_random = [failing(t, t.number % 5 < 2) for t in trials]
    chances = chances_of(at_random, space, asked)
    assert abs(chances.mean() - 0.6) < 0.1


def test_chances_grow_with_the_trials_to_those_of_all_at_once() -> None:
    space = NASBenchMacro()
    first, *_ = space.decisions
    asked = [trial.architecture for trial in play(Random(), search_for(space, seed=1), 6)]
    trials = [
        failing(t, t.architecture[first] == space.decisions[first][0] or t.number % 7 == 0)
        for t in play(Random(), search_for(space), 40)
    ]
    grown = Success(trials, features_of(space))
    grown.observe(trials[:25])
    grown.chances(asked[:3], np.arange(3))
    grown.observe(trials)
    grown.chances(asked[:5], np.arange(5))
    assert np.allclose(grown.chances(asked, np.arange(6)), chances_of(trials, space, asked))


def test_what_never_failed_is_sure_and_what_fails_now_and_then_nearly() -> None:
    space = NASBenchMacro()
    asked = [trial.architecture for trial in play(Random(), search_for(space, seed=1), 9)]
    trials = list(play(Random(), search_for(space), 40))
    # What was held back has not failed.
    trials = [replace(t, status=Status.SCREENED) if t.number % 2 else t for t in trials]
    assert np.allclose(chances_of(trials, space, asked), 1)
    rarely = [failing(t, t.number % 10 == 0) for t in trials]
    chances = chances_of(rarely, space, asked)
    assert chances.mean() == pytest.approx(0.9, abs=0.05) and chances.max() <= 1


def test_failures_by_chance_cost_no_more_than_their_trials() -> None:
    space = NASBenchMacro()

    def score(outcome: Callable[[Trial], Trial], trials: int) -> float:
        found = [
            play(Predictor(), search_for(space, 1, s), trials, outcome=outcome) for s in (0, 1)
        ]
        return sum(max(t.value("x") for t in history.complete) for history in found)

    lossy = score(lambda t: complete(failing(t, False)) if t.number % 2 else failing(t, True), 80)
    assert lossy >= score(complete, 40) - 0.02


def test_a_region_that_fails_is_left() -> None:
    space = NASBenchMacro()
    first = next(iter(space.decisions))
    choices = space.decisions[first]

    def outcome(trial: Trial) -> Trial:
        return complete(trial) if trial.architecture[first] == choices[0] else failing(trial, True)

    for strategy, least in ((Predictor(), 30), (Random(), 0)):
        history = play(strategy, search_for(space), 50, outcome=outcome)
        assert len(history.complete) > least
    assert len(history.complete) < 25


def weighed(trial: Trial, weight: float) -> Trial:
    measured = {"x": Measurement(weight), "heavy": Measurement(weight)}
    status = Status.COMPLETE if weight <= 1 else Status.INFEASIBLE
    return replace(trial, status=status, measurements=measured)
