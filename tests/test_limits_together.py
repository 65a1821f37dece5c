"""Limits that can each be met, and not together, are found before the search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_feasibility import Firsts
from test_spec import load, tables

from nasengine.cli import main
from nasengine.errors import SpecError
from nasengine.estimator import CostTable, Estimator
from nasengine.objectives import Objective, Objectives
from nasengine.runs.limits_together import check_together
from nasengine.runs.ranges import counted_value
from nasengine.search import Search
from nasengine.spaces.light_sdi import LightSDI
from nasengine.spaces.nas_bench_201 import NASBench201
from nasengine.testing.stubs import tiny_search
from nasengine.trial import Measurement, Metric


class Sum(Estimator):
    """A cost of each choice, by its place in the decision; `turned` costs the other way round."""

    effort = 0
    turned: bool = False

    def metrics(self, search):
        return (Metric("sum", "", "min"),)

    def table(self, search):
        rows = {}
        for slot in search.space.graph.slots:
            names = list(slot.candidates)
            costs = range(len(names), 0, -1) if self.turned else range(1, len(names) + 1)
            rows[slot.name] = dict(zip(names, map(float, costs), strict=True))
        decisions = {slot.name: slot.decision for slot in search.space.graph.slots}
        return CostTable("", 0.0, rows, decisions)

    def measure(self, candidate):
        return {"sum": Measurement(self.table(candidate.search).predict(candidate.architecture))}


def limited(space, *limits: Objective, **estimators: Estimator) -> list[str]:
    search = tiny_search(space, estimators=estimators)
    search = replace(search, objectives=Objectives(limits))
    metrics = {key: e.metrics(search)[0] for key, e in estimators.items()}
    return check_together(search, metrics)


WIDE = LightSDI(width=2, classes=1)
BOTH = {"up": Sum(), "down": Sum(turned=True)}
"""Nine decisions of five choices: up and down sum to 54 in every network."""


def test_limits_that_exclude_each_other_are_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError) as caught:
        limited(WIDE, Objective("up", at_most=20), Objective("down", at_most=33), **BOTH)
    assert str(caught.value).startswith(
        "objectives: no network meets these limits at once: up at most 20.000; down at most 33.000;"
        " the nearest has up 2"
    )


@pytest.mark.parametrize("up", [9, 15, 27, 40, 45])
def test_limits_that_just_one_sum_meets_are_not_refused(up: int) -> None:
    limits = (Objective("up", at_most=up), Objective("down", at_most=54 - up))
    assert limited(WIDE, *limits, **BOTH) == []


def test_at_least_and_at_most_of_two_metrics() -> None:
    limits = (Objective("up", at_most=20), Objective("down", at_least=34))
    assert limited(WIDE, *limits, **BOTH) == []
    both_high = (Objective("up", at_least=40), Objective("down", at_least=20))
    with pytest.raises(SpecError, match=r"up at least 40\.000; down at least 20\.000"):
        limited(WIDE, *both_high, **BOTH)


def test_two_sides_of_one_metric_that_nothing_lies_between() -> None:
    # Sums are whole numbers: no bound proves it, and nothing is found.
    (note,) = limited(WIDE, Objective("up", at_most=20.6, at_least=20.4), **BOTH)
    assert note.startswith("objectives: no network was found that meets these limits at once")
    assert limited(WIDE, Objective("up", at_most=20.6, at_least=20), **BOTH) == []


def test_without_tables_it_is_told_and_not_refused() -> None:
    limits = (Objective("firsts", at_least=6), Objective("down", at_most=20))
    (note,) = limited(WIDE, *limits, firsts=Firsts(), down=Sum(turned=True))
    assert "was found" in note and "nearest" in note
    met = (Objective("firsts", at_least=9), Objective("down", at_least=40))
    assert limited(WIDE, *met, firsts=Firsts(), down=Sum(turned=True)) == []


def test_where_connections_can_be_cut_tables_prove_nothing() -> None:
    # What a cut leaves without use costs less than the table says.
    limits = (Objective("up", at_most=9), Objective("down", at_most=20))
    (note,) = limited(NASBench201(width=2, cells_per_stage=1), *limits, **BOTH)
    assert "was found" in note


def test_a_single_limit_and_what_is_timed_are_not_asked() -> None:
    assert limited(WIDE, Objective("up", at_most=1), **BOTH) == []

    class Timed(Sum):
        effort = 1

        def measure(self, candidate):
            raise AssertionError("nothing dear is asked before the search")

    pair = (Objective("up", at_most=1), Objective("down", at_most=1))
    assert limited(WIDE, *pair, up=Timed(), down=Timed()) == []


@pytest.mark.parametrize("strategy", ["random", "evolution"])
def test_run_and_check_refuse_for_every_strategy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], strategy
) -> None:
    monkeypatch.chdir(tmp_path)
    load(tables(), tmp_path)
    given = [
        f"strategy.name={strategy}",
        "estimators.flops.name=flops",
        "objectives.flops.at_least=60000",
        "objectives.parameters.at_most=100",
    ]
    sets = [part for text in given for part in ("--set", text)]
    for command in ("run", "check"):
        assert main([command, "spec.toml", *sets]) == 2
        error = capsys.readouterr().err
        assert "no network meets these limits at once" in error
        assert "parameters at most 100" in error and "the nearest has" in error
    assert not (tmp_path / "runs").exists()


def test_real_costs_that_a_network_has_are_never_refused() -> None:
    pytest.importorskip("nasengine.estimators.parameters")
    from nasengine.estimators.flops import Flops
    from nasengine.estimators.parameters import Parameters
    from nasengine.moves import sample

    estimators: dict[str, Estimator] = {"parameters": Parameters(), "flops": Flops()}
    search: Search = tiny_search(WIDE, estimators=estimators)
    for number in range(10):
        network = sample(WIDE.decisions, search.stream("here", number))
        values = {key: counted_value(search, key)(network) for key in estimators}
        limits = (
            Objective("parameters", at_most=values["parameters"]),
            Objective("flops", at_least=values["flops"]),
        )
        # Found, or told as not found: what exists is never proven not to.
        assert len(limited(WIDE, *limits, **estimators)) <= 1
