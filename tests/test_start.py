"""Architectures that a search begins with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_spec import STUBS, load, tables

from nasengine.architecture import Architecture
from nasengine.errors import InputError
from nasengine.runs import session
from nasengine.runs.experiment import Experiment

FIRST = {"first": "conv", "second": "pointwise"}


def begun(folder: Path, *start: Any, **more: Any) -> Experiment:
    return load({**tables(), "start": list(start), **more}, folder)


@pytest.mark.parametrize("strategy", ["random", "evolution", "predictor", "optuna", "local_search"])
def test_they_are_the_first_trials_and_nothing_is_proposed_twice(
    tmp_path: Path, strategy: str
) -> None:
    (tmp_path / "known.json").write_text(json.dumps(FIRST))
    second = {"first": "pointwise", "second": "pointwise"}
    given = {**tables(), "strategy": {"name": strategy}, "budget": {"trials": 4}}
    given["objectives"] = {"firsts": "max"}
    path = tmp_path / "spec.toml"
    load({**given, "start": ["known.json", second]}, tmp_path)
    history = session.run(path, runs=tmp_path / "runs").history
    assert [dict(t.architecture) for t in history[:2]] == [FIRST, second]
    assert len(history) == len({t.key for t in history}) == 4


def test_what_it_begins_with_stands_in_the_resolved_spec(tmp_path: Path) -> None:
    (tmp_path / "known.json").write_text(json.dumps(FIRST))
    finished = session.run(load_path(tmp_path, "known.json"), runs=tmp_path / "runs")
    (tmp_path / "known.json").unlink()
    again = Experiment.load(finished.folder / "spec.toml")
    assert [dict(architecture) for architecture in again.start] == [FIRST]
    more = session.resume(finished.folder, "budget.trials=4", code=[STUBS]).history
    assert dict(more[0].architecture) == FIRST
    assert len(more) == 4


def test_a_file_that_it_begins_with_is_read_once(tmp_path: Path) -> None:
    """What was checked is what is run, though the file is written to meanwhile."""
    (tmp_path / "known.json").write_text(json.dumps(FIRST))
    experiment = begun(tmp_path, "known.json")
    with session.begin(experiment, tmp_path / "runs") as folder:
        (tmp_path / "known.json").write_text("{}")
        assert [dict(a) for a in experiment.search(folder.path).start] == [FIRST]


def load_path(folder: Path, *start: Any) -> Path:
    begun(folder, *start)
    return folder / "spec.toml"


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (["all_conf"], "start.0: "),
        ([{"first": "conf", "second": "conv"}], "start.0: decision 'first': 'conf' is no choice"),
        ([{"first": "conv"}], "decision 'second' is missing"),
        (["no.json"], "no.json: cannot be read"),
        (["first=conv,second=conv", FIRST, FIRST], "start.2: computes the same as start.1"),
        (["big"], "start.0, 'big': decision"),
        ([3], "start.0: input should be a valid string; got 3"),
        ([{"first": 1.5}], "start.0.first: input should be a valid string; got 1.5"),
        ([{"first": 1, "second": "conv"}], "start.0: decision 'first': '1' is no choice"),
    ],
)
def test_what_cannot_begin_is_named(tmp_path: Path, start: list[Any], told: str) -> None:
    with pytest.raises(InputError) as caught:
        begun(tmp_path, *start).search(tmp_path)
    assert told in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_more_than_the_budget_allows_are_refused(tmp_path: Path) -> None:
    both = [FIRST, "first=conv,second=conv"]
    with pytest.raises(InputError, match="2 architectures, and budget"):
        begun(tmp_path, *both, budget={"trials": 1}).search(tmp_path)


def test_from_python_an_architecture_of_another_run_is_given_as_it_is(tmp_path: Path) -> None:
    given = {**tables(), "start": (Architecture(FIRST),)}
    history = session.run(given, runs=tmp_path / "runs").history
    assert dict(history[0].architecture) == FIRST


def test_where_nothing_is_left_for_the_strategy_it_is_told(tmp_path: Path) -> None:
    for trials, told in ((1, True), (2, False)):
        experiment = begun(tmp_path, FIRST, budget={"trials": trials})
        notes = experiment.check_ahead(experiment.search(tmp_path))
        assert any("the strategy proposes nothing" in note for note in notes) == told


def test_what_a_gradient_search_derives_is_told_though_the_search_began_with_it(
    tmp_path: Path,
) -> None:
    given = {**tables(), "strategy": {"name": "darts", "iterations": 2, "arch_every": 2}}
    given["objectives"] = {"firsts": "max"}
    found = session.run(given, runs=tmp_path / "runs").history[0].architecture
    again = session.run({**given, "start": [found]}, runs=tmp_path / "runs")
    assert [t.architecture for t in again.history] == [found]
    lines = (again.folder / "log.jsonl").read_text().splitlines()
    derived = [line for line in map(json.loads, lines) if line["kind"] == "darts_derived"]
    assert [facts["architecture"] for facts in derived] == [dict(found)]
