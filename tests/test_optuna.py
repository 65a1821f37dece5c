"""Optuna's samplers: their settings, limits, repeats."""

from collections.abc import Iterator
from contextlib import contextmanager

import optuna
import pytest

from nasengine.errors import SpecError
from nasengine.history import History
from nasengine.plugin import build
from nasengine.search import Search
from nasengine.strategies.optuna import CLASSES, Optuna
from nasengine.strategies.optuna_study import quiet, told
from nasengine.strategies.random import Random
from nasengine.strategy import Strategy
from nasengine.testing.strategies import BranchedSpace, complete, play, search_for, troubled
from nasengine.trial import Measurement, Status, Trial

DEFAULT = Optuna()


@contextmanager
def study_of(
    history: History, search: Search, strategy: Optuna = DEFAULT
) -> Iterator[optuna.Study]:
    def sampler(generation: int) -> optuna.samplers.BaseSampler:
        return strategy.make_sampler(generation, 0)

    with quiet(), told(history, search, sampler, strategy) as study:
        yield study.study


@pytest.mark.parametrize("sampler", CLASSES)
def test_every_sampler_is_made_with_its_own_settings(sampler: str) -> None:
    with quiet():
        made = Optuna(sampler=sampler).make_sampler(1, 1)
    assert isinstance(made, getattr(optuna.samplers, CLASSES[sampler]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_startup_trails": 3}, "did you mean 'n_startup_trials'"),
        ({"n_startup_trials": "3"}, "n_startup_trials: int is needed; got '3'"),
        ({"n_startup_trials": True}, "int is needed"),
        ({"seed": 3}, "unknown key"),
        ({"n_ei_candidates": 3.5}, "int is needed"),
    ],
)
def test_settings_are_checked_before_the_run(settings: dict[str, object], message: str) -> None:
    strategy = Optuna(sampler="tpe", settings=settings)
    with pytest.raises(SpecError, match=message):
        strategy.check(search_for(BranchedSpace()))


def test_what_the_sampler_itself_refuses_is_named() -> None:
    with pytest.raises(SpecError, match=r"strategy.settings: nsga2 refuses them: .*population"):
        Optuna(sampler="nsga2", settings={"population_size": 1}).check(search_for(BranchedSpace()))


def test_cmaes_is_refused_with_the_reason() -> None:
    with pytest.raises(SpecError, match="numbers only"):
        build(Strategy, {"name": "optuna", "sampler": "cmaes"}, where="strategy")


def test_the_study_holds_what_was_measured_and_what_was_broken() -> None:
    search = search_for(BranchedSpace())
    history = play(Random(), search, 10, outcome=troubled)
    with study_of(history, search) as study:
        told = study.trials
    assert len(told) == len(history.measured)
    by_number = zip(told, history.measured, strict=True)
    for theirs, ours in by_number:
        assert theirs.params == dict(ours.architecture)
        feasible = ours.status is Status.COMPLETE
        assert (sum(theirs.constraints.values()) <= 0) == feasible
        assert (theirs.constraints["size"] > 0) == (ours.status is Status.INFEASIBLE)
        # Held back by a screen, it is better than what breaks a limit by any amount.
        broken = sum(theirs.constraints.values())
        assert broken == pytest.approx(search.objectives.standing(ours)[0])
        if feasible:
            assert theirs.values == [-ours.value("x")]


def test_what_is_unknown_of_infeasible_trials_is_the_worst_that_is_known() -> None:
    """Whatever the sign of the losses, and also before the first complete trial."""
    search = search_for(BranchedSpace(), goals=2)
    history = play(Random(), search, 4, outcome=out_of_limits)
    for _ in range(2):
        play(Random(), search, len(history) + 1, history=history)
        with study_of(history, search) as study:
            values = [told.values for told in study.trials]
        worst = [max(-t.value("x") for t in history.complete)]
        assert [first for first, _ in values[:4]] == worst * 4
        assert [second for _, second in values[:4]] == [t.value("y") for t in history[:4]]


def test_a_trial_that_ended_out_of_turn_tells_of_the_worst_for_one_proposal() -> None:
    search = search_for(BranchedSpace())
    history = play(Random(), search, 2, outcome=out_of_limits)
    for architecture in Random().propose(history, 2, search):
        history.record(Trial(len(history), architecture, search.space.key(architecture)))
    history.record(complete(history[3]))
    with study_of(history, search) as study:
        assert study.trials[0].value == -history[3].value("x")
    with study_of(History(history[:2]), search) as study:
        before = study.trials[0].value
    with told(history, search, lambda n: DEFAULT.make_sampler(n, 0), DEFAULT) as kept:
        pass
    assert kept.study.trials[0].value == before


def out_of_limits(trial: Trial) -> Trial:
    measured = {"size": Measurement(2.0), "y": complete(trial).measurements["y"]}
    return Trial(trial.number, trial.architecture, trial.key, Status.INFEASIBLE, measured)


def test_running_trials_are_told_as_running() -> None:
    search = search_for(BranchedSpace())
    history = play(Random(), search, 4)
    first = Random().propose(history, 1, search)[0]
    history.record(Trial(4, first, search.space.key(first)))
    with study_of(history, search) as study:
        assert [t.state.name for t in study.trials].count("RUNNING") == 1
    history.record(complete(history[4]))
    with study_of(history, search) as study:
        assert [t.state.name for t in study.trials] == ["COMPLETE"] * 5


def test_constraints_steer_the_search() -> None:
    """Where one choice always breaks a limit, TPE learns to avoid it."""
    search = search_for(BranchedSpace())

    def outcome(trial: Trial) -> Trial:
        bad = trial.architecture["tail"] == "conv"
        values = {"x": Measurement(1.0 if bad else 0.5), "size": Measurement(2.0 if bad else 0.5)}
        status = Status.INFEASIBLE if bad else Status.COMPLETE
        return Trial(trial.number, trial.architecture, trial.key, status, values)

    strategy = Optuna(sampler="tpe", settings={"n_startup_trials": 5})
    history = play(strategy, search, 18, outcome=outcome)
    assert sum(t.status is Status.INFEASIBLE for t in history[6:]) <= 4


def test_nsga2_reaches_its_second_generation() -> None:
    search = search_for(BranchedSpace(), goals=2)
    strategy = Optuna(sampler="nsga2", settings={"population_size": 4})
    history: History = play(strategy, search, 14)
    with study_of(history, search, strategy) as study:
        generations = {t.system_attrs.get("NSGAIISampler:generation") for t in study.trials}
    assert {0, 1, 2, 3} <= generations


def test_a_trial_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    search = search_for(BranchedSpace())
    calls: list[int] = []
    add = optuna.Study.add_trial
    monkeypatch.setattr(
        optuna.Study, "add_trial", lambda self, trial: (calls.append(1), add(self, trial))[1]
    )
    strategy = Optuna(settings={"n_startup_trials": 3})
    history = play(strategy, search, 15)
    # Each trial once when it has ended, and once, for its own proposal, as running.
    assert len(calls) <= 2 * len(history)


def test_what_is_asked_leaves_no_trace_in_the_study() -> None:
    search = search_for(BranchedSpace())
    strategy = Optuna(sampler="nsga2", settings={"population_size": 4})
    history = play(strategy, search, 9)
    with study_of(history, search, strategy) as study:
        before = (study.trials, study._storage.get_study_system_attrs(study._study_id))
    strategy.propose(history, 3, search)
    with study_of(history, search, strategy) as study:
        assert (study.trials, study._storage.get_study_system_attrs(study._study_id)) == before


def test_tpe_is_what_it_is_called() -> None:
    with quiet():
        assert Optuna(sampler="tpe").make_sampler(0, 0)._multivariate is False
        assert Optuna(sampler="tpe_multivariate").make_sampler(0, 0)._multivariate is True
