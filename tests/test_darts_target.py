"""A gradient search meets a target, and derives a front from one supernet."""

import json
from dataclasses import replace

import pytest

from nasengine.errors import SpecError
from nasengine.history import History
from nasengine.objectives import Objective, Objectives
from nasengine.strategies.alphas import derive
from nasengine.strategies.darts import Darts
from nasengine.strategies.gradient_search import GradientSearch
from nasengine.testing.stubs import tiny_search, tiny_task

light_sdi = pytest.importorskip("nasengine.spaces.light_sdi")
parameters = pytest.importorskip("nasengine.estimators.parameters")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The cost table, counted once."""
    return whole_search(tmp_path_factory.mktemp("table")).cost_table("parameters")


@pytest.fixture
def make_search(table, tmp_path):
    def make():
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        (folder / "tables").mkdir(parents=True)
        (folder / "tables" / "parameters.json").write_text(json.dumps(table.to_json()))
        return whole_search(folder)

    return make


def whole_search(folder):
    space = light_sdi.LightSDI(width=2, classes=1)
    task = tiny_task(space, size=16, samples=8)
    return tiny_search(
        space, task=task, estimators={"parameters": parameters.Parameters()}, folder=folder
    )


def strategy(cost, **settings):
    # Where so few steps lead should not depend on the machine.
    usual = {"iterations": 4, "arch_every": 1, "batch": 2, "precision": "fp32"}
    return Darts.model_validate(usual | {"cost": {"parameters": cost}} | settings)


def targets(search, count=10):
    table = search.cost_table("parameters")
    rows = table.terms()
    kept = {n: [rows[n,][c] for c in choices] for n, choices in search.space.decisions.items()}
    low = table.fixed + sum(min(row) for row in kept.values())
    high = table.fixed + sum(max(row) for row in kept.values())
    return [low + (high - low) * (i + 0.5) / count for i in range(count)]


def test_ten_targets_are_each_met_and_nearly_spent(make_search):
    given = targets(make_search())
    shares = []
    for target in given:
        search = make_search()
        (found,) = strategy({"target": target}).propose(History(), 1, search)
        shares.append(search.cost_table("parameters").predict(found) / target)
    assert all(share <= 1 for share in shares)
    assert sum(share >= 0.9 for share in shares) >= 9


def test_several_targets_give_a_front_from_one_supernet(make_search):
    search = make_search()
    given = tuple(targets(search))
    found = strategy({"targets": given}).propose(History(), 20, search)
    costs = [search.cost_table("parameters").predict(architecture) for architecture in found]
    assert len(set(costs)) == len(given)
    assert all(0.9 * t <= c <= t for c, t in zip(costs, given, strict=True))


def test_the_search_itself_works_towards_the_target(make_search):
    search, records = make_search(), []
    target = targets(search)[1]
    search.reporter.record = lambda kind, facts: records.append((kind, facts))
    strategy({"target": target}, log_every=1, iterations=25).propose(History(), 1, search)
    costs = [facts["costs"]["parameters"] for kind, facts in records if kind == "darts"]
    assert costs[0]["derived"] > target >= costs[-1]["derived"]
    assert costs[-1]["expected"] < costs[0]["expected"]
    assert all((entry["strength"] > 0) == (entry["derived"] > target) for entry in costs)


def test_a_tolerance_of_one_leaves_the_rest_to_the_alphas(make_search):
    search = make_search()
    target = 10 * targets(search)[-1]
    notes = []
    search.reporter.note = notes.append
    (found,) = strategy({"target": target, "tolerance": 1}).propose(History(), 1, search)
    assert len(found) == 9
    assert "not the arg-max" not in notes[-1]


def test_what_was_moved_to_meet_the_target_is_said(make_search):
    search = make_search()
    notes = []
    search.reporter.note = notes.append
    target = targets(search)[0]
    strategy({"target": target}, iterations=1).propose(History(), 1, search)
    assert "not the arg-max at" in notes[-1]
    assert "target" in notes[-1]


def test_a_limit_of_the_objectives_is_kept(make_search):
    search = make_search()
    limit = targets(search)[0]
    objectives = Objectives((Objective("parameters", None, at_most=limit),))
    search = replace(search, objectives=objectives)
    darts = Darts(iterations=2, arch_every=2, batch=2)
    darts.check(search)
    (found,) = darts.propose(History(), 1, search)
    free = alphas_of(search, darts)
    cost = search.cost_table("parameters").predict
    assert cost(found) <= limit
    assert cost(derive(free, search.space.decisions)) > limit
    impossible = Objectives((Objective("parameters", None, at_most=5.0),))
    with pytest.raises(SpecError, match=r"objectives.parameters.at_most: 5 is below every"):
        darts.propose(History(), 1, replace(make_search(), objectives=impossible))


def alphas_of(search, darts):
    return GradientSearch(darts, search).run().alphas
