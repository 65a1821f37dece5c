"""A gradient search's targets hold as measured, not only by the table."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import ClassVar

import pytest
from test_darts_target import strategy, targets, whole_search

from nasengine.errors import EstimationFailed, Interrupted, RunFolderError, SpecError
from nasengine.estimator import CostTable, Estimator
from nasengine.history import History
from nasengine.objectives import Objective, Objectives
from nasengine.quantities import format_quantity
from nasengine.strategies import as_measured
from nasengine.trial import Measurement, Metric


class Timed(Estimator):
    """Takes `factor` times what its table says, and more the more double_dw_convs there are."""

    factor: float = 1.0
    each: float = 0.0
    broken: bool = False
    taken: ClassVar[list[str]] = []

    def metrics(self, search):
        return (Metric("time", "ms", "min"),)

    def table(self, search):
        counted = search.cost_table("parameters")
        return CostTable("ms", counted.fixed, counted.costs, counted.decisions)

    def measure(self, candidate):
        self.taken.append(candidate.label)
        if self.broken:
            raise EstimationFailed("the middle half of the readings spans 90%")
        predicted = candidate.search.cost_table("timed").predict(candidate.architecture)
        more = 1 + self.each * list(candidate.architecture.values()).count("double_dw_conv")
        return {"time": Measurement(self.factor * more * predicted)}


class Counted(Timed):
    """The same, looked up."""

    effort = 0


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return whole_search(tmp_path_factory.mktemp("table")).cost_table("parameters")


@pytest.fixture
def make_search(table, tmp_path):
    def make(timed, name="run"):
        folder = tmp_path / name
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        (folder / "tables" / "parameters.json").write_text(json.dumps(table.to_json()))
        search = whole_search(folder)
        Timed.taken.clear()
        return replace(search, estimators={**search.estimators, "timed": timed})

    return make


def held(search, **goal):
    settings = strategy({"beta": 0.0}).model_dump() | {"cost": {"timed": goal}, "iterations": 2}
    return type(strategy({"beta": 0.0})).model_validate(settings).propose(History(), 30, search)


def measured(search, architecture):
    predicted = search.cost_table("timed").predict(architecture)
    timed = search.estimators["timed"]
    count = list(architecture.values()).count("double_dw_conv")
    return timed.factor * (1 + timed.each * count) * predicted


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.3])
def test_targets_hold_as_measured_and_are_nearly_spent(make_search, factor):
    search = make_search(Timed(factor=factor, each=0.01))
    # What the space has as measured, and not beyond what the table has.
    given = [t for t in (factor * t for t in targets(search)) if t > targets(search)[0]]
    records = []
    search.reporter.record = lambda kind, facts: records.append((kind, facts))
    held(search, targets=tuple(given))
    derived = [facts for kind, facts in records if kind == "darts_derived"]
    # Two targets near the dearest network may have the same one.
    assert len(derived) >= len(given) - 1
    shares = [facts["measured"]["timed"] / facts["targets"]["timed"] for facts in derived]
    assert all(share <= 1 for share in shares)
    assert sum(share >= 0.9 for share in shares) >= len(shares) - 1


def test_a_table_made_on_a_busy_machine_refuses_nothing_that_is_near(make_search, monkeypatch):
    """Every network takes a third of what the table says; a quiet machine meets the target."""
    search = make_search(Timed(factor=1 / 3))
    low = targets(search, 1000)[0]
    warnings = []
    search.reporter.warn = warnings.append
    (found,) = held(search, target=low / 2)
    assert measured(search, found) <= low / 2
    assert any("below every network as the table was measured" in text for text in warnings)
    monkeypatch.setattr("nasengine.machine.os.getloadavg", lambda: (7.0, 1.0, 1.0))
    monkeypatch.setattr("nasengine.machine.os.cpu_count", lambda: 2)
    with pytest.raises(SpecError, match=r"below every architecture of the space.* under a load of"):
        held(search, target=low / 10)
    monkeypatch.setattr("nasengine.machine.os.cpu_count", lambda: 8)
    with pytest.raises(SpecError, match=r"below every architecture of the space.* ms$"):
        held(search, target=low / 10)


class Tiring(Timed):
    """Measures one architecture, and no more."""

    def measure(self, candidate):
        if len(self.taken) >= 3:
            raise EstimationFailed("the middle half of the readings spans 90%")
        return super().measure(candidate)


def test_what_was_measured_is_kept_where_a_later_one_cannot_be(make_search):
    search = make_search(Tiring(factor=1.3))
    records, warnings = [], []
    search.reporter.record = lambda kind, facts: records.append((kind, facts))
    search.reporter.warn = warnings.append
    held(search, target=targets(search)[4])
    (derived,) = (facts for kind, facts in records if kind == "darts_derived")
    assert derived["measured"]["timed"] > derived["targets"]["timed"]
    missed = [text for text in warnings if "no derived architecture was measured within" in text]
    assert len(missed) == 1


def test_what_is_counted_is_not_measured(make_search):
    search = make_search(Counted(factor=1.3))
    held(search, target=targets(search)[4])
    assert Timed.taken == []


def test_a_table_that_is_right_costs_one_derivation(make_search):
    search = make_search(Timed())
    records = []
    search.reporter.record = lambda kind, facts: records.append((kind, facts))
    # A limit that nothing comes near, and that need not be spent.
    objectives = Objectives((Objective("timed", None, at_most=2 * targets(search)[-1]),))
    search = replace(search, objectives=objectives)
    strategy({"beta": 0.0}, iterations=2).propose(History(), 1, search)
    facts = records[-1][1]
    assert Timed.taken == ["derived-0", "derived-1", "derived-2"]
    assert facts["derivations"] == 1 and facts["factors"] == {"timed": pytest.approx(1.0)}


def test_readings_that_something_else_slowed_do_not_count(make_search):
    class Slowed(Timed):
        def measure(self, candidate):
            found = super().measure(candidate)["time"].value
            return {"time": Measurement(found * (9 if candidate.label == "derived-1" else 1))}

    target = targets(make_search(Timed()))[4]
    assert held(make_search(Slowed(), "slowed"), target=target) == held(
        make_search(Timed(), "steady"), target=target
    )


def test_a_margin_is_left_for_the_trials_own_reading(make_search):
    search = make_search(Timed(factor=1.1))
    for target in targets(search)[2:6]:
        (found,) = held(make_search(Timed(factor=1.1), f"{target:.0f}"), target=target)
        assert 0.9 <= measured(search, found) / target <= 0.97


def test_the_note_says_predicted_measured_and_the_factor(make_search):
    search, notes = make_search(Timed(factor=1.3)), []
    search.reporter.note = notes.append
    (found,) = held(search, target=targets(search)[4])
    value = format_quantity(measured(search, found), "ms")
    assert f"measured {value}, 1.30 times" in notes[-1]
    assert re.search(r"derived [2-6] times$", notes[-1])


def test_a_resumed_search_measures_nothing_again_and_derives_the_same(make_search):
    given = {"targets": tuple(targets(make_search(Timed()))[2:5])}
    whole = held(make_search(Timed(factor=1.2, each=0.02), "whole"), **given)
    search = make_search(Timed(factor=1.2, each=0.02))
    search.stop.set()
    with pytest.raises(Interrupted):
        held(search, **given)
    search.stop.clear()
    count = 0

    class Stopping(Timed):
        def measure(self, candidate):
            nonlocal count
            count += 1
            if count == 4:
                candidate.search.stop.set()
            return super().measure(candidate)

    with pytest.raises(Interrupted):
        held(replace(search, estimators={"timed": Stopping(factor=1.2, each=0.02)}), **given)
    search.stop.clear()
    assert held(search, **given) == whole
    Timed.taken.clear()
    # Other readings would derive something else: the kept ones count.
    other = replace(search, estimators={**search.estimators, "timed": Timed(factor=9.0)})
    assert held(other, **given) == whole
    assert Timed.taken == []


def test_a_damaged_file_of_readings_is_named(make_search):
    search = make_search(Timed())
    (search.checkpoints / "derived_measured.json").write_text("[1]")
    with pytest.raises(RunFolderError, match=r"derived_measured\.json: damaged"):
        held(search, target=targets(search)[4])


def test_a_target_that_nothing_meets_as_measured_gives_the_nearest_and_a_warning(make_search):
    search, warned = make_search(Timed(factor=3.0)), []
    search.reporter.warn = warned.append
    (found,) = held(search, target=targets(search)[0])
    low = min(search.cost_table("timed").predict(a) for a in cheapest(search))
    assert search.cost_table("timed").predict(found) == pytest.approx(low)
    assert any("no derived architecture was measured within timed" in text for text in warned)
    assert len(Timed.taken) <= 3 * as_measured.DERIVATIONS


def cheapest(search):
    rows = search.cost_table("timed").terms()
    return [{n: min(c, key=rows[n,].__getitem__) for n, c in search.space.decisions.items()}]


def test_what_cannot_be_measured_is_derived_by_the_table(make_search):
    search, warned = make_search(Timed(broken=True)), []
    search.reporter.warn = warned.append
    target = targets(search)[4]
    (found,) = held(search, target=target)
    assert 0.9 * target <= search.cost_table("timed").predict(found) <= target
    assert any("not measured: the middle half" in text for text in warned)


def test_a_limit_of_the_objectives_holds_as_measured_and_is_not_to_be_spent(make_search):
    search = make_search(Timed(factor=1.4))
    limit = targets(search)[3]
    objectives = Objectives((Objective("timed", None, at_most=limit),))
    search = replace(search, objectives=objectives)
    (found,) = strategy({"beta": 0.0}, iterations=2).propose(History(), 1, search)
    assert measured(search, found) <= limit
    predicted = search.cost_table("timed").predict(found)
    search = replace(make_search(Timed(factor=0.1), "cheap"), objectives=objectives)
    strategy({"beta": 0.0}, iterations=2).propose(History(), 1, search)
    assert predicted < limit and len(Timed.taken) == 3
