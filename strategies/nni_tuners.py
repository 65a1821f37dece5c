"""NNI's tuners, seeded, silent and told a history. Imported only when NNI is used.

A tuner is told each trial once, and kept from one proposal to the next; what it is asked is seeded
by the number of trials, and leaves no trace in it.
"""

from __future__ import annotations

import copy
import random
import warnings
from abc import abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nasengine.architecture import Architecture
from nasengine.errors import SpecError
from nasengine.history import History
from nasengine.randomness import derive_seed
from nasengine.trial import Trial

from .kept import Copyable, read
from .silence import silenced

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=UserWarning, message=".*pkg_resources.*")
    import nni
    from nni.algorithms.hpo.evolution_tuner import EvolutionTuner
    from nni.algorithms.hpo.gridsearch_tuner import GridSearchTuner
    from nni.algorithms.hpo.random_tuner import RandomTuner
    from nni.algorithms.hpo.tpe_tuner import TpeArguments, TpeTuner
    from nni.common.hpo_utils import Deduplicator, format_parameters

if TYPE_CHECKING:
    from nasengine.search import Search

    from .nni import Nni


_PROBED = 1000
"""Trials by which settings are tried at most."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep NNI's log off stdout, and Python's generator as it was.

    NNI's evolution tuner draws from the global one.
    """
    state = random.getstate()
    try:
        # Its TPE divides by zero where a prior weighs nothing, as its documentation has it.
        with silenced("nni"), np.errstate(divide="ignore", invalid="ignore"):
            yield
    finally:
        random.setstate(state)


def answers(strategy: Nni, history: History, search: Search) -> Iterator[Architecture]:
    """Yield what a tuner that was told the history answers, until it has no more."""
    make = TUNERS[strategy.tuner]
    tuner = read(history, search, Tuner, lambda: make(strategy, search), strategy)
    tuner.begin(history)
    for number in range(search.space.size):
        try:
            answer = tuner.ask(tuner.told + number)
        except nni.NoMoreTrialError:
            return
        yield Architecture({name: answer[name] for name in search.space.decisions})


def loss_of(trial: Trial, search: Search) -> float:
    """Return one finite number: NNI accepts NaN in silence, and knows no limits.

    Its tuners only compare: what is no number is above every value, what breaks a limit above that.
    """
    feasible, *losses = search.objectives.standing(trial)
    if not losses:
        return 1e301 * (1.0 + min(feasible, 10.0))
    return max(-1e300, min(losses[0], 1e300))


class Tuner(Copyable):
    """One of NNI's tuners, told measured trials."""

    takes: ClassVar[Callable[..., Any]]
    """What NNI gives a tuner's own settings to."""

    def __init__(self, strategy: Nni, search: Search) -> None:
        self.strategy, self.search = strategy, search
        self.told = 0
        self.space: dict[str, dict[str, Any]] = {
            name: {"_type": "choice", "_value": list(choices)}
            for name, choices in search.space.decisions.items()
        }
        self.nni = self.make()
        self.nni.update_search_space(self.space)

    @abstractmethod
    def make(self) -> Any:
        """Return NNI's object."""

    @classmethod
    def probe(cls, strategy: Nni) -> None:
        """Refuse values of settings that the tuner would fail with.

        Raises
        ------
        SpecError
            With the reason.
        """

    def take(self, trial: Trial) -> None:
        """Tell a trial."""
        self.tell(dict(trial.architecture), loss_of(trial, self.search))
        self.told += 1

    @abstractmethod
    def tell(self, choices: dict[str, str], loss: float) -> None:
        """Tell NNI's object what was measured."""

    def copy(self) -> Tuner:
        """Return a tuner that goes on by itself."""
        twin = copy.copy(self)
        twin.nni = copy.copy(self.nni)
        return twin

    @abstractmethod
    def begin(self, history: History) -> None:
        """Seed it for a proposal, whatever it was asked before."""

    def ask(self, number: int) -> Mapping[str, str]:
        """Return its answer; the trial's number is new to it."""
        answer: Mapping[str, str] = self.nni.generate_parameters(number)
        return answer

    def seed(self, number: int) -> int:
        """Return what it draws from at one point of the search."""
        return derive_seed(self.search.seed, "nni", number) % 2**31


class _Repeats:
    """Stands where NNI has its deduplicator, and lets repeats through."""

    def __call__(self, parameters: Any) -> Any:
        return parameters

    def add_history(self, parameters: Any) -> None:
        """Remember nothing."""


class _Deduplicated(Tuner):
    """A tuner that has NNI's deduplicator."""

    def __init__(self, strategy: Nni, search: Search) -> None:
        super().__init__(strategy, search)
        ours = strategy.repeats == "ask"
        self.repeats: Any = _Repeats() if ours else Deduplicator(self.nni.space)

    def copy(self) -> Tuner:
        """Return a tuner that goes on by itself."""
        twin: Any = super().copy()
        twin.repeats = _forked(self.repeats)
        return twin  # type: ignore[no-any-return]

    def begin(self, history: History) -> None:
        """Seed it; its deduplicator knows what was told, and not what was asked."""
        self.nni.rng = np.random.default_rng(self.seed(len(history)))
        self.nni.dedup = _forked(self.repeats)


def _forked(repeats: Any) -> Any:
    twin = copy.copy(repeats)
    if isinstance(repeats, Deduplicator):
        twin._history = set(repeats._history)
    return twin


class Tpe(_Deduplicated):
    """NNI's TPE."""

    takes = TpeArguments

    def make(self) -> Any:
        """Return NNI's object."""
        return _tpe(self.strategy)

    @classmethod
    def probe(cls, strategy: Nni) -> None:
        """Ask with no trial told and with the fewest that it learns from: NNI checks nothing."""
        negative = [name for name, value in strategy.settings.items() if float(value) < 0]
        if negative:
            raise SpecError(f"strategy.settings.{negative[0]}: has to be at least 0")
        tuner = _tpe(strategy)
        tuner.update_search_space({"a": {"_type": "choice", "_value": ["x", "y"]}})
        tuner.dedup = _Repeats()
        try:
            tuner.generate_parameters(0)
            told = min(tuner.args.n_startup_jobs, _PROBED)
            tuner.import_data([{"parameter": {"a": "xy"[n % 2]}, "value": n} for n in range(told)])
            tuner._running_params.clear()
            tuner.generate_parameters(1)
        except (ArithmeticError, TypeError, ValueError) as error:
            given = ", ".join(f"{name} = {value}" for name, value in strategy.settings.items())
            raise SpecError(f"strategy.settings: NNI's TPE fails with {given}: {error}") from error

    def copy(self) -> Tuner:
        """Return a tuner that goes on by itself."""
        twin = super().copy()
        records = {name: list(found) for name, found in self.nni._history.items()}
        twin.nni._history = defaultdict(list, records)
        return twin

    def tell(self, choices: dict[str, str], loss: float) -> None:
        """Tell NNI's object what was measured."""
        self.nni.dedup = self.repeats
        self.nni.import_data([{"parameter": choices, "value": loss}])

    def ask(self, number: int) -> Mapping[str, str]:
        """Return its answer, which does not count as running."""
        answer = super().ask(number)
        self.nni._running_params.clear()
        self.nni._params.clear()
        return answer


def _tpe(strategy: Nni) -> Any:
    return TpeTuner("minimize", seed=0, tpe_args=dict(strategy.settings))


class Chance(_Deduplicated):
    """NNI's random tuner."""

    takes = RandomTuner

    def make(self) -> Any:
        """Return NNI's object."""
        return RandomTuner(seed=0)

    def tell(self, choices: dict[str, str], loss: float) -> None:  # noqa: ARG002
        """Tell it what is a repeat."""
        self.repeats.add_history(format_parameters(choices, self.nni.space))


class Grid(Tuner):
    """NNI's grid search. What of its grid the history has from the start on is passed over."""

    takes = GridSearchTuner

    def __init__(self, strategy: Nni, search: Search) -> None:
        super().__init__(strategy, search)
        self.left: deque[Mapping[str, str]] = deque()
        self.asked = 0

    def make(self) -> Any:
        """Return NNI's object."""
        return GridSearchTuner()

    def tell(self, choices: dict[str, str], loss: float) -> None:
        """Tell nothing: a grid learns nothing."""

    def copy(self) -> Tuner:
        """Return itself, since it is told nothing."""
        return self

    def begin(self, history: History) -> None:
        """Go back to the first point that is not in the history and may be proposed."""
        while self.left and self._is_done(Architecture(self.left[0]), history):
            self.left.popleft()
        self.asked = 0

    def _is_done(self, point: Architecture, history: History) -> bool:
        search = self.search
        return search.space.key(point) in history.keys or search.excess(point) > 0

    def ask(self, number: int) -> Mapping[str, str]:
        """Return the next point."""
        if self.asked == len(self.left):
            self.left.append(super().ask(number))
        self.asked += 1
        return self.left[self.asked - 1]


class Evolution(Tuner):
    """NNI's evolution: its population is what the trials leave, one after the other."""

    takes = EvolutionTuner

    def __init__(self, strategy: Nni, search: Search) -> None:
        super().__init__(strategy, search)
        # Its first population was drawn unseeded: draw it again.
        self._reseed(-1)
        self.nni.population.clear()
        for _ in range(strategy.population):
            self.nni._random_generate_individual()
        self.population = list(self.nni.population)

    def make(self) -> Any:
        """Return NNI's object."""
        return EvolutionTuner("minimize", self.strategy.population)

    def copy(self) -> Tuner:
        """Return a tuner that goes on by itself."""
        twin: Any = super().copy()
        twin.population, twin.nni.running_trials = list(self.population), {}
        return twin  # type: ignore[no-any-return]

    def tell(self, choices: dict[str, str], loss: float) -> None:
        """Let it make room for an individual, and put the measured one there."""
        self.nni.population = self.population
        self._reseed(self.told)
        self.nni.generate_parameters(self.told)
        self.nni.running_trials[self.told].config = {
            name: {"_index": self.space[name]["_value"].index(choice), "_value": choice}
            for name, choice in choices.items()
        }
        self.nni.receive_trial_result(self.told, choices, loss)
        self.population = self.nni.population

    def begin(self, history: History) -> None:
        """Seed it."""
        self._reseed(len(history))

    def ask(self, number: int) -> Mapping[str, str]:
        """Return its answer, which costs the population nobody."""
        self.nni.population = list(self.population)
        answer = super().ask(number)
        self.nni.running_trials.clear()
        return answer

    def _reseed(self, number: int) -> None:
        random.seed(self.seed(number))
        self.nni.random_state.seed(self.seed(number))


TUNERS: dict[str, type[Tuner]] = {
    "tpe": Tpe,
    "random": Chance,
    "grid": Grid,
    "evolution": Evolution,
}
