"""Every installed strategy keeps its contract on every space; one without a row fails."""

import random

import pytest

from nasengine.architecture import Architecture
from nasengine.factories import Factory
from nasengine.graph import SpaceGraph
from nasengine.history import History
from nasengine.moves import mutate
from nasengine.plugin import installed, load_class
from nasengine.search import Search
from nasengine.space import SearchSpace
from nasengine.strategies.darts import Darts
from nasengine.strategies.evolution import Evolution
from nasengine.strategies.local_search import LocalSearch
from nasengine.strategies.nni import Nni
from nasengine.strategies.nni_darts import NniDarts
from nasengine.strategies.optuna import Optuna
from nasengine.strategies.predictor import Predictor
from nasengine.strategies.random import Random
from nasengine.strategy import Strategy
from nasengine.testing.strategies import BranchedSpace, StrategyContract, play, search_for
from nasengine.unseen import Unseen

GP = Optuna(sampler="gp", settings={"n_startup_trials": 11})

ROWS: dict[str, list[Strategy]] = {
    "random": [Random()],
    "evolution": [Evolution(population=6), Evolution(population=6, sample=3)],
    "local_search": [LocalSearch(initial=3)],
    "predictor": [Predictor(initial=4, parents=2, candidates=20)],
    "optuna": [
        Optuna(sampler="tpe"),
        Optuna(sampler="tpe_multivariate"),
        Optuna(sampler="nsga2", settings={"population_size": 6}),
        Optuna(sampler="nsga3", settings={"population_size": 6}),
        GP,
        Optuna(sampler="qmc"),
        Optuna(sampler="random"),
    ],
    "nni": [
        Nni(),
        Nni(repeats="grid"),
        Nni(tuner="evolution", population=6),
        Nni(tuner="random"),
        Nni(tuner="random", repeats="grid"),
        Nni(tuner="grid"),
    ],
}


class SixteenSpace(SearchSpace):
    """Two slots of four convolutions each, all different."""

    def define(self, graph: SpaceGraph) -> None:
        from torch import nn

        def conv(kernel: int) -> Factory:
            return lambda into, out: nn.Conv2d(into, out, kernel, padding=kernel // 2)

        choices = {f"conv{kernel}": conv(kernel) for kernel in (1, 3, 5, 7)}
        x = graph.slot("first", graph.input(2), choices)
        graph.output(graph.slot("second", x, choices))


TRAINS: dict[str, Strategy] = {
    "darts": Darts(iterations=4, arch_every=2, batch=2, top_k=64),
    "nni_darts": NniDarts(iterations=2, batch=2, top_k=64),
}
"""They train a supernet, then propose all that they are asked for, the best first."""


def label(strategy: Strategy) -> str:
    settings = strategy.model_dump(exclude_defaults=True)
    return "-".join([type(strategy).__name__, *(str(v) for v in settings.values())])


STRATEGIES = [
    pytest.param(strategy, id=label(strategy), marks=pytest.mark.filterwarnings("error"))
    for rows in ROWS.values()
    for strategy in rows
]


def test_every_installed_strategy_has_a_row() -> None:
    ours = {n for n, p in installed("strategy").items() if p.value.startswith("nasengine.")}
    assert set(ROWS) | set(TRAINS) == ours


class TestStrategies(StrategyContract):
    @pytest.fixture(params=STRATEGIES)
    def strategy(self, request: pytest.FixtureRequest) -> Strategy:
        return request.param

    def test_another_seed_gives_another_sequence(self, strategy: Strategy, search: Search) -> None:
        if getattr(strategy, "tuner", "") == "grid":
            pytest.skip("a grid is gone through in one order")
        super().test_another_seed_gives_another_sequence(strategy, search)

    @pytest.fixture
    def space(self, strategy: Strategy) -> SearchSpace:
        # A Gaussian process is fitted for every proposal: a space of 16, not of 30.
        return SixteenSpace() if strategy is GP else BranchedSpace()


class TestGradientStrategies(StrategyContract):
    @pytest.fixture(params=TRAINS.values(), ids=TRAINS)
    def strategy(self, request: pytest.FixtureRequest) -> Strategy:
        return request.param


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", sorted(installed("space")))
def test_every_strategy_on_every_space(strategy: Strategy, name: str) -> None:
    space = load_class(SearchSpace, name)()
    search = search_for(space)
    strategy.check(search)
    history = play(strategy, search, 14)
    assert len(history.keys) == len(history) == 14
    for trial in history:
        assert trial.architecture == space.architecture(trial.architecture)


class Reckless(Strategy):
    """Changes the best of all trials, limits or not, and draws the same with every seed."""

    def propose(self, history: History, count: int, search: Search) -> list[Architecture]:
        rng = random.Random(len(history))
        unseen = Unseen(history, search, rng)
        if len(history) < 3:
            return unseen.samples(1)
        best = max(history, key=lambda trial: trial.measurements["x"].value).architecture
        found = unseen.first(mutate(best, search.space.decisions, rng) for _ in range(50))
        return [found] if found else unseen.samples(1)


def test_the_contract_sees_a_strategy_without_limits_or_seed() -> None:
    search, contract = search_for(BranchedSpace()), StrategyContract()
    with pytest.raises(AssertionError):
        contract.test_what_breaks_a_limit_does_not_attract(Reckless(), search)
    with pytest.raises(AssertionError):
        contract.test_another_seed_gives_another_sequence(Reckless(), search)
