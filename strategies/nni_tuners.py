"""NNI's tuners, seeded, silent and told a history. Imported only when NNI is used."""

from __future__ import annotations

import logging
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from nasengine.architecture import Architecture
from nasengine.history import History
from nasengine.randomness import derive_seed
from nasengine.trial import Trial

from .unseen import searchable

if TYPE_CHECKING:
    from nasengine.search import Search

    from .nni import Nni


@contextmanager
def quiet() -> Iterator[None]:
    """Keep NNI's log off stdout, its warnings away, and Python's generator as it was.

    NNI's evolution tuner draws from the global one.
    """
    logger, state = logging.getLogger("nni"), random.getstate()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=UserWarning, message=".*pkg_resources.*")
        import nni.algorithms.hpo.evolution_tuner  # noqa: F401 (sets the logger up)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
        random.setstate(state)


def answers(strategy: Nni, history: History, search: Search) -> Iterator[Architecture]:
    """Yield what a tuner that was told the history answers, until it has no more."""
    import nni

    trials = searchable(history.measured, search.space)
    told = [
        (dict(t.architecture), loss) for t, loss in zip(trials, losses(trials, search), strict=True)
    ]
    tuner = TUNERS[strategy.tuner](strategy, told, search, len(history))
    for number in range(len(told), len(told) + search.space.size):
        try:
            answer = tuner(number)
        except nni.NoMoreTrialError:
            return
        yield Architecture({name: answer[name] for name in search.space.decisions})


def losses(trials: list[Trial], search: Search) -> list[float]:
    """Return one finite number a trial: NNI accepts NaN in silence, and knows no limits."""
    standings = [search.objectives.standing(trial) for trial in trials]
    known = [s[1] for s in standings if s[0] == 0.0 and math.isfinite(s[1])]
    worst, best = max(known, default=0.0), min(known, default=0.0)
    span = worst - best or 1.0
    return [min(s[1], worst) if s[0] == 0.0 else worst + span * min(s[0], 10.0) for s in standings]


Told = list[tuple[dict[str, str], float]]
Ask = Callable[[int], Mapping[str, str]]


def _tpe(strategy: Nni, told: Told, search: Search, number: int) -> Ask:
    from nni.algorithms.hpo.tpe_tuner import TpeTuner

    tuner = TpeTuner("minimize", seed=_seed(search, number))
    tuner.update_search_space(_space(search))
    if strategy.repeats == "ask":
        tuner.dedup = _Repeats()
    tuner.import_data([{"parameter": choices, "value": loss} for choices, loss in told])
    return _asking(tuner)


def _random(strategy: Nni, told: Told, search: Search, number: int) -> Ask:
    from nni.algorithms.hpo.random_tuner import RandomTuner
    from nni.common.hpo_utils import format_parameters

    tuner = RandomTuner(seed=_seed(search, number))
    tuner.update_search_space(_space(search))
    if strategy.repeats == "ask":
        tuner.dedup = _Repeats()
    for choices, _ in told:
        tuner.dedup.add_history(format_parameters(choices, tuner.space))
    return _asking(tuner)


class _Repeats:
    """Stands where NNI has its deduplicator, and lets repeats through."""

    def __call__(self, parameters: Any) -> Any:
        return parameters

    def add_history(self, parameters: Any) -> None:
        """Remember nothing."""


def _asking(tuner: Any) -> Ask:
    def ask(number: int) -> Mapping[str, str]:
        answer: Mapping[str, str] = tuner.generate_parameters(number)
        # Ended at once: an answer that is not taken must not count as running.
        tuner.trial_end(number, True)
        return answer

    return ask


def _grid(strategy: Nni, told: Told, search: Search, number: int) -> Ask:  # noqa: ARG001
    from nni.algorithms.hpo.gridsearch_tuner import GridSearchTuner

    tuner = GridSearchTuner()
    tuner.update_search_space(_space(search))
    return tuner.generate_parameters  # type: ignore[no-any-return]


def _evolution(strategy: Nni, told: Told, search: Search, number: int) -> Ask:
    """Tell NNI's evolution every trial in turn: its population is what they leave."""
    from nni.algorithms.hpo.evolution_tuner import EvolutionTuner

    space = _space(search)
    tuner = EvolutionTuner("minimize", strategy.population)
    tuner.update_search_space(space)
    # Its first population was drawn unseeded: draw it again.
    _reseed(tuner, search, -1)
    tuner.population.clear()
    for _ in range(strategy.population):
        tuner._random_generate_individual()
    for index, (choices, loss) in enumerate(told):
        _reseed(tuner, search, index)
        tuner.generate_parameters(index)
        tuner.running_trials[index].config = {
            name: {"_index": space[name]["_value"].index(choice), "_value": choice}
            for name, choice in choices.items()
        }
        tuner.receive_trial_result(index, choices, loss)
    _reseed(tuner, search, number)

    def ask(number: int) -> Mapping[str, str]:
        population = list(tuner.population)
        answer: Mapping[str, str] = tuner.generate_parameters(number)
        # An answer that is not taken costs the population nobody.
        tuner.population = population
        return answer

    return ask


def _reseed(tuner: Any, search: Search, number: int) -> None:
    random.seed(_seed(search, number))
    tuner.random_state = np.random.RandomState(_seed(search, number))


TUNERS = {"tpe": _tpe, "random": _random, "grid": _grid, "evolution": _evolution}


def _seed(search: Search, number: int) -> int:
    return derive_seed(search.seed, "nni", number) % 2**31


def _space(search: Search) -> dict[str, dict[str, Any]]:
    return {
        name: {"_type": "choice", "_value": list(choices)}
        for name, choices in search.space.decisions.items()
    }
