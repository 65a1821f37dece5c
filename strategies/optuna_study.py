"""A history as an Optuna study. Imported only when Optuna is used."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler, QMCSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from nasengine.architecture import Architecture
from nasengine.history import History
from nasengine.objectives import Objectives
from nasengine.trial import Status, Trial

from .kept import Reading, ahead, settled
from .silence import silenced

if TYPE_CHECKING:
    from nasengine.search import Search

_FURTHEST = 1e100
"""What a broken limit is told as at most: Optuna's Gaussian process squares it."""

MakeSampler = Callable[[int], BaseSampler]
"""Makes the sampler, for one generation of those that have generations."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from logging, and from warning that a sampler is experimental.

    That GP clips what is not finite is known, too: it is how a value that is no number is told;
    and that a setting is to go in a later release.
    """
    with silenced("optuna"), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", message="Clip non-finite values")
        yield


class Told(Reading):
    """A study that was told trials, one after the other; it holds nothing else."""

    def __init__(self, search: Search, make_sampler: MakeSampler) -> None:
        self.search = search
        self.make_sampler = make_sampler
        self.sampler = make_sampler(0)
        self.storage = InMemoryStorage()
        goals = len(search.objectives.goals)
        self.study = optuna.create_study(storage=self.storage, directions=["minimize"] * goals)
        self.worst: tuple[float, ...] | None = None
        self.unknown: dict[int, list[int]] = {}
        self.measured = 0

    def take(self, trial: Trial) -> None:
        """Tell a measured trial; a generation that is then complete selects the next parents."""
        if trial.status is Status.COMPLETE:
            self._learn(self.search.objectives.losses(trial))
        self.study.add_trial(self._frozen(trial))
        self.measured += 1
        if self.population and self.measured % self.population == 0:
            # Optuna would select them when it is next asked, by a sampler of another seed.
            generation = self.measured // self.population
            self.study._thread_local.cached_all_trials = None
            self.make_sampler(generation).get_parent_population(self.study, generation)  # type: ignore[attr-defined]

    def _learn(self, losses: tuple[float, ...]) -> None:
        """Put what is not known of infeasible trials at the worst that is: it must not attract."""
        worst = losses if self.worst is None else tuple(map(max, self.worst, losses))
        if worst == self.worst:
            return
        self.worst = worst
        for number, goals in self.unknown.items():
            told = copy.copy(self._trials[number])
            told.values = [
                worst[goal] if goal in goals else value for goal, value in enumerate(told.values)
            ]
            self._trials[number] = told

    @property
    def _trials(self) -> list[FrozenTrial]:
        """The trials that Optuna keeps; `Study.trials` copies them all."""
        return self.storage._studies[self.study._study_id].trials

    def run(self, architecture: Architecture) -> None:
        """Tell that an architecture is being measured."""
        parameters = self._parameters(architecture)
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING, params=parameters, distributions=self.distributions
            )
        )

    @contextmanager
    def tentative(self) -> Iterator[None]:
        """Take back, at the end, whatever the study was told inside."""
        storage, study = self.storage, self.storage._studies[self.study._study_id]
        worst, unknown, measured = self.worst, dict(self.unknown), self.measured
        trials, attributes, best = list(study.trials), study.system_attrs, study.best_trial_id
        try:
            yield
        finally:
            for trial in study.trials[len(trials) :]:
                del storage._trial_id_to_study_id_and_number[trial._trial_id]
            study.trials[:] = trials
            study.system_attrs, study.best_trial_id = attributes, best
            storage._max_trial_id = len(trials) - 1
            self.worst, self.unknown, self.measured = worst, unknown, measured

    def ask(self, sampler: BaseSampler) -> Architecture:
        """Return what a sampler answers, as a trial that runs."""
        self.study.sampler = sampler
        if hasattr(sampler, "_search_space"):
            # What all trials have in common: of one study it is always the same, and costs a pass
            # over all trials to find out anew.
            sampler._search_space = self._common
        answer = self.study.ask(self.distributions).params
        return Architecture(
            {
                name: choices[answer[name]] if self._numbers else answer[name]
                for name, choices in self.search.space.decisions.items()
            }
        )

    @cached_property
    def _common(self) -> Any:
        return self.sampler._search_space  # type: ignore[attr-defined]

    @cached_property
    def population(self) -> int:
        """Trials in a generation; 0 for a sampler that has none."""
        genetic = isinstance(self.sampler, (NSGAIISampler, NSGAIIISampler))
        return self.sampler.population_size if genetic else 0  # type: ignore[attr-defined]

    @cached_property
    def _numbers(self) -> bool:
        return isinstance(self.sampler, QMCSampler)

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's search space: categories, or numbers for a sampler that knows none."""
        decisions = self.search.space.decisions
        if self._numbers:
            return {name: IntDistribution(0, len(cs) - 1) for name, cs in decisions.items()}
        return {name: CategoricalDistribution(choices) for name, choices in decisions.items()}

    def _parameters(self, architecture: Architecture) -> dict[str, Any]:
        decisions = self.search.space.decisions
        if self._numbers:
            return {name: cs.index(architecture[name]) for name, cs in decisions.items()}
        return {name: architecture[name] for name in decisions}

    def _frozen(self, trial: Trial) -> FrozenTrial:
        """Return a measured trial as Optuna's; one not complete may lack the goals' values."""
        objectives = self.search.objectives
        values = [
            Objectives((goal,)).losses(trial)[0] if goal.metric in trial.measurements else None
            for goal in objectives.goals
        ]
        if None in values:
            self.unknown[len(self._trials)] = [i for i, v in enumerate(values) if v is None]
        worst = self.worst or (0.0,) * len(values)
        attributes = {}
        if self.population:
            key = f"{type(self.sampler).__name__}:generation"
            attributes[key] = self.measured // self.population
        frozen = create_trial(
            values=[w if v is None else v for v, w in zip(values, worst, strict=True)],
            params=self._parameters(trial.architecture),
            distributions=self.distributions,
            system_attrs=attributes,
        )
        broken = objectives.violations(trial.measurements)
        for limit in objectives.limits:
            frozen.set_constraint(limit.metric, min(broken.get(limit.metric, 0.0), _FURTHEST))
        if objectives.screens:
            # Optuna adds up what is broken: with this the sum is the trial's standing.
            rest = objectives.standing(trial)[0] - sum(broken.values())
            unknown = len(objectives.screens) + 1.0
            frozen.set_constraint("screens", rest if math.isfinite(rest) else unknown)
        elif trial.status is not Status.COMPLETE and not broken:
            frozen.set_constraint("feasible", 1.0)
        return frozen


@contextmanager
def told(
    history: History, search: Search, make_sampler: MakeSampler, *settings: object
) -> Iterator[Told]:
    """Give a study that holds the history.

    The trials that have settled are told once, and stay from one proposal to the next. Those
    after one that still runs, those that run, and what is asked inside, are taken back.

    Parameters
    ----------
    history
        What was proposed so far.
    search
        Its space, limits and goals.
    make_sampler
        Makes the sampler by which the parents of a generation are selected.
    settings
        What that sampler depends on.
    """
    study = settled(history, search, Told, lambda: Told(search, make_sampler), *settings)
    with study.tentative():
        for trial in ahead(history):
            study.take(trial)
        for trial in history[history.settled :]:
            if trial.status is Status.RUNNING:
                study.run(trial.architecture)
        yield study


def numbered_qmc(number: int, settings: Mapping[str, Any]) -> QMCSampler:
    """Make a quasi-Monte Carlo sampler that answers one given point of its sequence."""

    class Numbered(QMCSampler):
        def _find_sample_id(self, study: optuna.Study, search_space: object) -> int:  # noqa: ARG002
            return number

    return Numbered(**settings)
