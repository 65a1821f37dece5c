"""Every installed strategy keeps its contract on every space; one without a row fails."""

import pytest

from nasengine.plugin import installed, load_class
from nasengine.space import SearchSpace
from nasengine.strategies.evolution import Evolution
from nasengine.strategies.local_search import LocalSearch
from nasengine.strategies.nni import Nni
from nasengine.strategies.optuna import Optuna
from nasengine.strategies.predictor import Predictor
from nasengine.strategies.random import Random
from nasengine.strategy import Strategy
from nasengine.testing.strategies import StrategyContract, play, search_for

ROWS: dict[str, list[Strategy]] = {
    "random": [Random()],
    "evolution": [Evolution(population=6, sample=3)],
    "local_search": [LocalSearch(initial=3)],
    "predictor": [Predictor(initial=4, parents=2, candidates=20)],
    "optuna": [
        Optuna(sampler="tpe"),
        Optuna(sampler="tpe_multivariate"),
        Optuna(sampler="nsga2", settings={"population_size": 6}),
        Optuna(sampler="nsga3", settings={"population_size": 6}),
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

TRAINS = {
    "darts": "it trains a supernet and proposes once: test_darts*.py",
    "nni_darts": "it trains a supernet and proposes once: test_nni_darts.py",
}


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
