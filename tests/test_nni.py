"""NNI's tuners: what they repeat, what they cannot do, and that they are silent."""

import logging
import math
from dataclasses import replace

import pytest

from nasengine.errors import PluginError, SpecError
from nasengine.plugin import build
from nasengine.strategies import nni as module
from nasengine.strategies.nni import REFUSED, Nni
from nasengine.strategies.nni_tuners import loss_of
from nasengine.strategies.random import Random
from nasengine.strategy import Strategy
from nasengine.testing.strategies import BranchedSpace, play, search_for, troubled
from nasengine.testing.stubs import Kept
from nasengine.trial import Measurement, Status, Trial

pytest.importorskip("nni", reason="the extra nni is not installed")


@pytest.mark.parametrize("tuner", sorted(REFUSED))
def test_what_does_not_work_is_refused_with_the_reason(tuner: str) -> None:
    with pytest.raises(SpecError, match=r"strategy.tuner: not offered: "):
        build(Strategy, {"name": "nni", "tuner": tuner}, where="strategy")


def test_several_goals_are_refused_before_the_run() -> None:
    with pytest.raises(SpecError, match=r"one goal; got x, y; evolution, optuna"):
        Nni().check(search_for(BranchedSpace(), goals=2))


def test_without_nni_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(PluginError, match=r"pip install 'nasengine\[nni\]'"):
        Nni().check(search_for(BranchedSpace()))


@pytest.mark.parametrize(("repeats", "words"), [("ask", "is off"), ("grid", "worse than random")])
def test_a_run_says_what_follows_a_repeat(repeats: str, words: str) -> None:
    told = Kept()
    search = replace(search_for(BranchedSpace()), reporter=told)
    play(Nni(repeats=repeats), search, 3)
    assert len(told.notes) == 1
    assert words in told.notes[0]


def test_nnis_own_answer_to_a_repeat_is_a_grid_and_ours_is_not() -> None:
    """In a small space NNI's TPE soon walks through a grid: neighbours in one order."""
    search = search_for(BranchedSpace())
    ours, theirs = (
        [t.architecture for t in play(Nni(repeats=repeats), search, 26)]
        for repeats in ("ask", "grid")
    )
    assert ours != theirs
    assert ours[0] == theirs[0]


def test_losses_are_finite_and_infeasible_ones_the_worst() -> None:
    search = search_for(BranchedSpace())
    history = play(Random(), search, 10, outcome=troubled)
    trials = list(history.measured)
    odd = {"x": Measurement(float("nan"))}
    trials.append(Trial(10, trials[0].architecture, "k", Status.COMPLETE, odd))
    found = [loss_of(trial, search) for trial in trials]
    assert all(math.isfinite(loss) for loss in found)
    broken = [
        loss for loss, t in zip(found, trials, strict=True) if t.status is not Status.COMPLETE
    ]
    assert min(broken) > max(set(found) - set(broken))


def test_its_logger_is_as_it_was() -> None:
    search = search_for(BranchedSpace())
    play(Nni(), search, 2)
    before = logging.getLogger("nni").level
    play(Nni(tuner="random"), search, 2)
    assert logging.getLogger("nni").level == before


@pytest.mark.parametrize(
    ("tuner", "settings", "told"),
    [
        ("tpe", {"n_startup_job": 3}, "did you mean 'n_startup_jobs'"),
        ("tpe", {"n_startup_jobs": 3.5}, "n_startup_jobs: int is needed; got 3.5"),
        ("tpe", {"gamma": -1.0}, "gamma: has to be at least 0"),
        ("tpe", {"gamma": 5.0}, "NNI's TPE fails with gamma = 5.0"),
        ("tpe", {"n_startup_jobs": 0}, "NNI's TPE fails with n_startup_jobs = 0"),
        ("tpe", {"constant_liar_type": "mean"}, "constant_liar_type: does nothing here"),
        ("evolution", {"population_size": 3}, "population_size: unknown key"),
        ("grid", {"gamma": 0.3}, "gamma: unknown key; none is allowed here"),
    ],
)
def test_settings_are_checked_by_the_tuners_own(
    tuner: str, settings: dict[str, object], told: str
) -> None:
    with pytest.raises(SpecError, match=rf"strategy\.settings.*{told}"):
        Nni(tuner=tuner, settings=settings).check(search_for(BranchedSpace()))


def test_settings_reach_the_tuner() -> None:
    search = search_for(BranchedSpace())
    eager = Nni(settings={"n_startup_jobs": 3, "prior_weight": 0.0})
    eager.check(search)
    usual, early = (
        [t.architecture for t in play(strategy, search, 14)] for strategy in (Nni(), eager)
    )
    assert usual[:3] == early[:3]
    assert usual != early
