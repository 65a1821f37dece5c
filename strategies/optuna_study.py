"""A history as an Optuna study. Imported only when Optuna is used."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler, QMCSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from nasengine.architecture import Architecture
from nasengine.history import History
from nasengine.space import SearchSpace
from nasengine.trial import Status, Trial

from .unseen import is_searchable

if TYPE_CHECKING:
    from nasengine.search import Search


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from logging, and from warning that a sampler is experimental."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


@dataclass
class _Told:
    """A study that was told the first so many measured trials (`History.measured`)."""

    measured: list[Trial]
    study: optuna.Study
    what: tuple[object, ...]
    used: int = 0
    generations: int = 0
    worst: tuple[float, ...] = ()


_told: WeakKeyDictionary[History, _Told] = WeakKeyDictionary()


def study_of(history: History, search: Search, sampler: BaseSampler) -> optuna.Study:
    """Return a study that holds what was measured.

    It is kept from one proposal to the next, where what Optuna adds to it follows from the trials
    alone. NSGA-III draws lots when it selects parents, and running trials will change: then the
    study is made anew.
    """
    what = (search.objectives, search.space, type(sampler), _population(sampler))
    told = _told.get(history)
    if told is None or told.measured is not history.measured or told.what != what:
        study = optuna.create_study(directions=["minimize"] * len(search.objectives.goals))
        told = _Told(history.measured, study, what)
        told.worst = (0.0,) * len(search.objectives.goals)
    for index in range(told.used, len(told.measured)):
        trial = told.measured[index]
        if is_searchable(trial, search.space):
            told.study.add_trial(_frozen(trial, index, told, search, sampler))
    told.used = len(told.measured)
    if isinstance(sampler, NSGAIISampler):
        # Optuna gives parents in another order when it selects them than when it remembers them:
        # select every generation's here, one after the other, so that it always remembers.
        last = told.used // (_population(sampler) or 1)
        for generation in range(told.generations + 1, last + 1):
            sampler.get_parent_population(told.study, generation)
            told.generations = generation
    running = [trial for trial in history if trial.status is Status.RUNNING]
    if running or isinstance(sampler, NSGAIIISampler):
        _told.pop(history, None)
        distributions = distributions_of(search.space, sampler)
        for trial in running:
            if is_searchable(trial, search.space):
                parameters = _parameters(trial.architecture, search.space, sampler)
                told.study.add_trial(
                    create_trial(
                        state=TrialState.RUNNING, params=parameters, distributions=distributions
                    )
                )
    else:
        _told[history] = told
    return told.study


def _population(sampler: BaseSampler) -> int | None:
    if isinstance(sampler, (NSGAIISampler, NSGAIIISampler)):
        return sampler.population_size
    return None


def _frozen(
    trial: Trial, index: int, told: _Told, search: Search, sampler: BaseSampler
) -> FrozenTrial:
    """Return a measured trial as Optuna's; an infeasible one may lack the goals' values."""
    if trial.status is Status.COMPLETE:
        values = search.objectives.losses(trial)
        told.worst = tuple(map(max, told.worst, values))
    else:
        values = told.worst
    distributions = distributions_of(search.space, sampler)
    population = _population(sampler)
    generation = {f"{type(sampler).__name__}:generation": index // population} if population else {}
    frozen = create_trial(
        values=values,
        params=_parameters(trial.architecture, search.space, sampler),
        distributions=distributions,
        system_attrs=generation,
    )
    broken = search.objectives.violations(trial.measurements)
    for limit in search.objectives.limits:
        frozen.set_constraint(limit.metric, min(broken.get(limit.metric, 0.0), 1e300))
    if trial.status is Status.INFEASIBLE and not broken:
        frozen.set_constraint("feasible", 1.0)
    return frozen


def distributions_of(space: SearchSpace, sampler: BaseSampler) -> dict[str, BaseDistribution]:
    """Return Optuna's search space: categories, or numbers for a sampler that knows none."""
    if isinstance(sampler, QMCSampler):
        return {
            name: IntDistribution(0, len(choices) - 1) for name, choices in space.decisions.items()
        }
    return {name: CategoricalDistribution(choices) for name, choices in space.decisions.items()}


def _parameters(
    architecture: Architecture, space: SearchSpace, sampler: BaseSampler
) -> dict[str, Any]:
    if isinstance(sampler, QMCSampler):
        return {name: cs.index(architecture[name]) for name, cs in space.decisions.items()}
    return {name: architecture[name] for name in space.decisions}


_common: WeakKeyDictionary[optuna.Study, Any] = WeakKeyDictionary()


def ask(study: optuna.Study, sampler: BaseSampler, space: SearchSpace) -> Architecture:
    """Return what a sampler answers; the study keeps no result of it."""
    study.sampler = sampler
    if hasattr(sampler, "_search_space"):
        # What all trials have in common: of one study it is always the same, and costs a pass
        # over all trials to find out anew.
        sampler._search_space = _common.setdefault(study, sampler._search_space)
    trial = study.ask(distributions_of(space, sampler))
    study.tell(trial, state=TrialState.FAIL)
    return Architecture(
        {
            name: choices[trial.params[name]]
            if isinstance(sampler, QMCSampler)
            else trial.params[name]
            for name, choices in space.decisions.items()
        }
    )


def numbered_qmc(number: int, settings: Mapping[str, Any]) -> QMCSampler:
    """Make a quasi-Monte Carlo sampler that answers one given point of its sequence."""

    class Numbered(QMCSampler):
        def _find_sample_id(self, study: optuna.Study, search_space: object) -> int:  # noqa: ARG002
            return number

    return Numbered(**settings)
