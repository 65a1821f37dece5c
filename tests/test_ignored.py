"""A setting that would do nothing in a search is refused by name, with the reason."""

import re
from dataclasses import replace

import pytest

from nasengine.errors import SpecError
from nasengine.objectives import Objective, Objectives
from nasengine.plugin import build
from nasengine.search import Budget, Search
from nasengine.strategy import Strategy
from nasengine.testing.strategies import BranchedSpace, search_for
from nasengine.testing.stubs import AdditiveEstimator, Kept, TinySpace, tiny_search


def check(goals: int = 1, search: Search | None = None, **settings: object) -> None:
    strategy = build(Strategy, settings, where="strategy")
    strategy.check(search or search_for(BranchedSpace(), goals))


@pytest.mark.parametrize(
    ("goals", "name", "setting", "value", "reason"),
    [
        (1, "random", "strata", 4, "stratify"),
        (1, "evolution", "crossover", 0.1, "one parent"),
        (2, "evolution", "sample", 4, "of two"),
        (1, "predictor", "parents", 7, "all 48 architectures"),
    ],
)
def test_a_setting_that_does_nothing_is_refused(
    goals: int, name: str, setting: str, value: object, reason: str
) -> None:
    told = rf"strategy\.{setting}: does nothing here: .*{reason}.*; leave it out"
    with pytest.raises(SpecError, match=told):
        check(goals, name=name, **{setting: value})


@pytest.mark.parametrize(
    ("setting", "value", "tuner"),
    [
        ("population", 5, "tpe"),
        ("population", 5, "grid"),
        ("repeats", "grid", "evolution"),
        ("repeats", "grid", "grid"),
    ],
)
def test_a_setting_of_another_tuner_is_refused(setting: str, value: object, tuner: str) -> None:
    pytest.importorskip("nni", reason="the extra nni is not installed")
    with pytest.raises(SpecError, match=rf"strategy\.{setting}: does nothing here"):
        check(name="nni", tuner=tuner, **{setting: value})


@pytest.mark.parametrize(
    ("goals", "settings"),
    [
        (1, {"name": "random", "strata": 10}),
        (2, {"name": "evolution", "sample": 10, "crossover": 0.9}),
        (1, {"name": "evolution", "sample": 3, "crossover": 0.5}),
        (1, {"name": "predictor", "parents": 7, "candidates": 47}),
    ],
)
def test_a_default_that_is_written_out_and_one_that_acts_are_accepted(
    goals: int, settings: dict[str, object]
) -> None:
    check(goals, **settings)


@pytest.mark.parametrize(("trials", "warned"), [(7, True), (8, False), (None, False)])
@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"name": "evolution"}, "population"),
        ({"name": "local_search"}, "initial"),
        ({"name": "predictor"}, "initial"),
        ({"name": "nni", "tuner": "evolution"}, "population"),
    ],
)
def test_a_budget_of_random_trials_alone_is_warned_of(
    settings: dict[str, object], setting: str, trials: int | None, warned: bool
) -> None:
    if settings["name"] == "nni":
        pytest.importorskip("nni", reason="the extra nni is not installed")
    reporter = Kept()
    search = replace(search_for(BranchedSpace()), budget=Budget(trials), reporter=reporter)
    check(search=search, **settings, **{setting: 7})
    told = f"the first 7 architectures are random.* {trials} trials.*lower strategy.{setting}"
    assert [bool(re.search(told, text)) for text in reporter.warnings] == [True] * warned


def test_a_reading_needs_a_cost_in_the_loss() -> None:
    search = tiny_search(TinySpace(), estimators={"cost": AdditiveEstimator()})
    limited = replace(search, objectives=Objectives((Objective("cost", "min", at_most=2.0),)))
    darts = {"name": "darts", "reading": "straight_through"}
    for settings in ({}, {"cost": {"cost": 0.0}}, {"cost": {"cost": {"targets": [2.0]}}}):
        with pytest.raises(SpecError, match=r"strategy.reading: does nothing here: no cost"):
            check(search=search, **darts, **settings)
    check(search=search, **darts, cost={"cost": 0.1})
    check(search=search, **darts, cost={"cost": {"target": 2.0}})
    check(search=limited, **darts)


@pytest.mark.parametrize(
    ("sampler", "setting", "value", "goals"),
    [
        ("tpe", "consider_magic_clip", False, 1),
        ("tpe_multivariate", "group", True, 1),
        ("qmc", "warn_independent_sampling", False, 1),
        ("nsga3", "dividing_parameter", 4, 1),
    ],
)
def test_a_samplers_setting_that_does_nothing_is_refused(
    sampler: str, setting: str, value: object, goals: int
) -> None:
    with pytest.raises(SpecError, match=rf"strategy\.settings\.{setting}: does nothing here"):
        check(goals, name="optuna", sampler=sampler, settings={setting: value})


def test_directions_are_divided_with_several_goals() -> None:
    check(2, name="optuna", sampler="nsga3", settings={"dividing_parameter": 4})
