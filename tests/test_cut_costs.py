"""Cost tables where a connection may be cut: what is left without use costs nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nasengine import SearchSpace, SpaceGraph, Zero
from nasengine.errors import SpecError
from nasengine.estimator import Candidate, CostTable, Estimator
from nasengine.history import History
from nasengine.moves import enumerate_all
from nasengine.objectives import Objective, Objectives
from nasengine.plugin import build
from nasengine.runs.feasibility import check_limits
from nasengine.runs.goals import known_metrics
from nasengine.runs.ranges import SAMPLES, metric_range
from nasengine.search import Search
from nasengine.strategies.cost_goals import CostGoal, resolve_costs
from nasengine.strategies.darts import Darts
from nasengine.testing.stubs import tiny_search


def conv1(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Conv2d(channels_in, channels_out, 1)


def conv3(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


def identity(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Identity()


class Joined(nn.Module):
    """Reads two tensors of unequal channels."""

    def __init__(self, channels_in: int, of_gate: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return self.conv(x) * torch.sigmoid(gate.mean(1, keepdim=True))


class Gated(SearchSpace):
    """A branch with fixed operations and slots that a gate may leave without use."""

    length: int = 1

    def define(self, graph: SpaceGraph) -> None:
        x = graph.operation("stem", graph.input(3), conv1, out=4)
        for n in range(self.length):
            big = graph.slot(f"big{n}", x, {"c1": conv1, "c3": conv3}, out=6)
            wide = graph.operation(f"wide{n}", big, conv3, out=8)
            joined = graph.operation(f"joined{n}", [wide, x], Joined, out=4)
            inner = graph.add(f"inner{n}", [joined, x])
            gates = {"skip": identity, "conv": conv3, "none": Zero}
            gate = graph.slot(f"gate{n}", inner, gates)
            side = graph.slot(f"side{n}", x, {"conv": conv1, "none": Zero})
            x = graph.add(f"sum{n}", [gate, side])
            x = graph.slot(f"after{n}", x, {"conv": conv1, "skip": identity, "none": Zero})
        graph.output(graph.operation("head", x, conv1, out=1))


def search_of(space: SearchSpace, **limits: float) -> Search:
    estimators = {
        name: build(Estimator, {"name": name}, where=name)  # type: ignore[type-abstract]
        for name in ("parameters", "flops")
    }
    objectives = Objectives((Objective("parameters", "min", **limits),))
    return tiny_search(space, estimators=estimators, objectives=objectives)


def measured(search: Search, name: str, architecture: object) -> float:
    candidate = Candidate(architecture, search, "x", {})  # type: ignore[arg-type]
    return search.estimators[name].measure(candidate)[name].value


@pytest.mark.parametrize("name", ["parameters", "flops"])
def test_a_table_predicts_every_network_as_it_is_measured(name: str) -> None:
    search = search_of(Gated())
    table = search.cost_table(name)
    every = list(enumerate_all(search.space.decisions))
    assert len(every) == 36
    for architecture in every:
        assert table.predict(architecture) == measured(search, name, architecture), architecture
    bare = replace(table, graph=None)
    assert any(bare.predict(a) != table.predict(a) for a in every)


def test_a_table_is_the_same_read_again_from_its_folder(tmp_path: Path) -> None:
    search = replace(search_of(Gated()), folder=tmp_path)
    table = search.cost_table("flops")
    again = replace(search, seed=search.seed)
    assert again.cost_table("flops") == table
    assert again.cost_table("flops").graph is search.space.graph
    content = json.loads((tmp_path / "tables" / "flops.json").read_text())
    assert CostTable(**content) == table


def test_ranges_are_of_what_is_left() -> None:
    search = search_of(Gated())
    for name in ("parameters", "flops"):
        values = [measured(search, name, a) for a in enumerate_all(search.space.decisions)]
        found = metric_range(search, name)
        assert found is not None and found.exact
        assert (found.smallest, found.largest) == (min(values), max(values))


def test_no_range_of_a_large_space_with_cuts_is_called_exact() -> None:
    search = search_of(Gated(length=3))
    assert search.space.size > SAMPLES
    found = metric_range(search, "parameters")
    assert found is not None and not found.exact


@pytest.mark.parametrize("length", [1, 3])
def test_a_limit_that_a_cut_network_meets_is_not_refused(length: int) -> None:
    space = Gated(length=length)
    least = {name: "none" if "none" in c else c[0] for name, c in space.decisions.items()}
    limit = measured(search_of(space), "parameters", space.architecture(least))
    search = search_of(space, at_most=limit)
    notes = check_limits(search, known_metrics(search), {})
    assert not any("space's networks have" in note for note in notes)


@pytest.mark.parametrize("limits", [{"at_most": 20.0}, {"at_least": 1e5}])
@pytest.mark.parametrize("length", [1, 3])
def test_a_limit_beyond_what_any_cut_leaves_is_refused(
    length: int, limits: dict[str, float]
) -> None:
    search = search_of(Gated(length=length), **limits)
    with pytest.raises(SpecError, match="the space's networks have"):
        check_limits(search, known_metrics(search), {})


def test_a_target_that_only_cut_connections_meet_is_met() -> None:
    """By the sums of its choices alone it would be below every network of the space."""
    space = build(SearchSpace, {"name": "nas_bench_201", "width": 4, "classes": 3}, where="space")
    search = tiny_search(
        space, estimators={"flops": build(Estimator, {"name": "flops"}, where="e")}
    )
    table = search.cost_table("flops")
    by_sums = table.fixed + sum(min(row.values()) for row in table.terms().values())
    costs = sorted({table.predict(a) for a in enumerate_all(space.decisions)})
    (cost,) = resolve_costs({"flops": CostGoal(beta=0.1)}, search)
    assert cost.range[0] <= costs[0] < by_sums and costs[-1] <= cost.range[1]
    target = next(cost for cost in reversed(costs) if cost < by_sums)
    settings = Darts.model_validate(
        {"iterations": 2, "arch_every": 1, "batch": 2, "cost": {"flops": {"target": target}}}
    )
    settings.check(search)
    (found,) = settings.propose(History(), 1, search)
    assert 0.9 * target <= table.predict(found) <= target
    beyond = {"flops": {"target": costs[0] * 0.99}}
    with pytest.raises(SpecError, match="is below every architecture"):
        Darts.model_validate({**settings.model_dump(), "cost": beyond}).check(search)


def test_costs_made_of_others_know_what_a_cut_leaves_out() -> None:
    search = search_of(Gated())
    macs, weights = search.cost_table("flops"), search.cost_table("parameters")
    energy = macs.scaled(0.5, "nJ") + weights.scaled(3, "nJ")
    assert energy.unit == "nJ"
    for architecture in enumerate_all(search.space.decisions):
        expected = 0.5 * macs.predict(architecture) + 3 * weights.predict(architecture)
        assert energy.predict(architecture) == pytest.approx(expected)


def test_costs_that_do_not_belong_together_have_no_sum() -> None:
    macs = search_of(Gated()).cost_table("flops")
    with pytest.raises(ValueError, match="MACs and in nJ have no sum; scale them"):
        macs + macs.scaled(0.5, "nJ")
    with pytest.raises(ValueError, match="other slots or candidates"):
        macs + search_of(Gated(length=2)).cost_table("flops")
