"""Architectures that a search begins with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_spec import STUBS, load, tables

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


def load_path(folder: Path, *start: Any) -> Path:
    begun(folder, *start)
    return folder / "spec.toml"


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (["all_conf"], "start[0]: "),
        ([{"first": "conf", "second": "conv"}], "start[0]: slot 'first': 'conf' is no choice"),
        ([{"first": "conv"}], "slot 'second' is missing"),
        (["no.json"], "no.json: cannot be read"),
        (["first=conv,second=conv", FIRST, FIRST], "start[2]: computes the same as start[1]"),
        (["big"], "start[0], 'big': slot"),
        ([3], "start"),
    ],
)
def test_what_cannot_begin_is_named(tmp_path: Path, start: list[Any], told: str) -> None:
    with pytest.raises(InputError) as caught:
        begun(tmp_path, *start).search(tmp_path)
    assert told in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


def test_more_than_the_budget_allows_are_refused(tmp_path: Path) -> None:
    both = [FIRST, "first=conv,second=conv"]
    with pytest.raises(InputError, match="2 architectures, and budget"):
        begun(tmp_path, *both, budget={"trials": 1}).search(tmp_path)
