"""Ranges and limits of costs where channels are searched: bounds that hold, ends that are found."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import pytest
from torch import nn

from nasengine import SearchSpace, Zero, elimination
from nasengine.errors import SpecError
from nasengine.estimator import CostTable, Estimator, row_key
from nasengine.estimators.flops import Flops
from nasengine.estimators.parameters import Parameters
from nasengine.moves import enumerate_all, sample
from nasengine.objectives import Objective, Objectives
from nasengine.quantities import format_quantity
from nasengine.runs.feasibility import check_limits
from nasengine.runs.limits_together import check_together
from nasengine.runs.ranges import SAMPLES, measure_few, metric_range, surely_within
from nasengine.strategies.cost_goals import CostGoal, resolve_costs
from nasengine.testing.stubs import TinyWidths, tiny_search
from nasengine.trial import Measurement, Metric


def conv1(channels_in, channels_out):
    return nn.Conv2d(channels_in, channels_out, 1)


def conv3(channels_in, channels_out):
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


class Chain(SearchSpace):
    """Slots in a row, each at a width of its own and with a way past it."""

    length: int = 4
    cut: bool = False

    def define(self, graph):
        choices = {"c1": conv1, "c3": conv3, **({"none": Zero} if self.cut else {})}
        widths = [graph.width(f"width{n}", (2, 3, 5)) for n in range(self.length)]
        x = graph.operation("stem", graph.input(3), conv1, out=4)
        for n, width in enumerate(widths):
            past = graph.operation(f"to{n}", x, conv1, out=width)
            x = graph.add(f"sum{n}", [graph.slot(f"slot{n}", past, choices), past])
        graph.output(graph.operation("head", x, conv1, out=1))


class Unlike(Estimator):
    """A cost that is least where the widths of neighbours differ: no network has all the minima."""

    effort = 0

    def metrics(self, search):
        return (Metric("unlike", "", "min"),)

    def table(self, search):
        graph = search.space.graph
        rows = {slot.name: {"c1": 0.0, "c3": 1.0} for slot in graph.slots}
        decisions = {slot.name: slot.decision for slot in graph.slots}
        widths = {f"to{n}": graph.widths_of(f"to{n}") for n in range(1, search.space.length)}
        for name, (one, other) in widths.items():
            pairs = product(graph.decisions[one], graph.decisions[other])
            rows[name] = {row_key(at): self._cost(*map(int, at)) for at in pairs}
        return CostTable("", 1.0, rows, decisions, widths=widths)

    @staticmethod
    def _cost(one, other):
        # The least is from 2 to 5, and what follows 5 is dear.
        return float(10 * one - 2 * other)

    def measure(self, candidate):
        table = self.table(candidate.search)
        return {"unlike": Measurement(table.predict(candidate.architecture))}


def search_of(space, *limits, **estimators):
    found = tiny_search(space, estimators=estimators or {"parameters": Parameters()})
    return replace(found, objectives=Objectives(limits))


def limited(space, *limits, **estimators):
    search = search_of(space, *limits, **estimators)
    metrics = {key: e.metrics(search)[0] for key, e in search.estimators.items()}
    return [*check_limits(search, metrics, {}), *check_together(search, metrics)]


def every(search, key):
    predict = search.cost_table(key).predict
    return sorted(map(predict, enumerate_all(search.space.decisions)))


CHAIN = Chain()


COSTS = [Parameters(), Flops(), Unlike()]


@pytest.mark.parametrize("estimator", COSTS, ids=["parameters", "flops", "unlike"])
def test_a_range_is_exact_where_channels_are_searched(estimator):
    search = search_of(CHAIN, cost=estimator)
    assert search.space.size > SAMPLES
    values, found = every(search, "cost"), metric_range(search, "cost")
    assert found.exact and (found.smallest, found.largest) == (values[0], values[-1])
    assert surely_within(search, "cost") == (values[0], values[-1])
    (cost,) = resolve_costs({"cost": CostGoal(beta=0.5)}, search)
    assert cost.range == (values[0], values[-1])


def test_a_range_that_no_network_is_known_to_bound_is_not_said_to_be_exact(monkeypatch):
    """More widths together than are told apart: bounds and what was found lie apart."""
    monkeypatch.setattr(elimination, "MOST", 1)
    search = search_of(CHAIN, unlike=Unlike())
    values, found = every(search, "unlike"), metric_range(search, "unlike")
    low, high = surely_within(search, "unlike")
    assert not found.exact
    assert low < values[0] <= found.smallest and found.largest <= values[-1] <= high
    # What a network has is never refused, what is below all bounds is.
    assert limited(CHAIN, Objective("unlike", at_most=values[0]), unlike=Unlike()) == []
    with pytest.raises(SpecError, match="as far as was looked"):
        limited(CHAIN, Objective("unlike", at_most=low - 1), unlike=Unlike())


@pytest.mark.parametrize("most", [1, elimination.MOST])
def test_a_target_is_refused_just_where_no_network_meets_it(most, monkeypatch):
    monkeypatch.setattr(elimination, "MOST", most)
    search = search_of(CHAIN, unlike=Unlike())
    values = every(search, "unlike")
    resolve_costs({"unlike": CostGoal(target=values[0])}, search)
    told = (
        "no architecture meets" if most == 1 else f"range from {values[0]:g}\\..* to {values[-1]:g}"
    )
    with pytest.raises(SpecError, match=told):
        resolve_costs({"unlike": CostGoal(target=values[0] - 1)}, search)


class Uneven(Unlike):
    """Costs whose sums are rounded, one way or another by the order in which they are added."""

    seed: int = 0

    def table(self, search):
        rng, table = random.Random(self.seed), super().table(search)
        rows = {n: {key: rng.random() for key in row} for n, row in table.costs.items()}
        return replace(table, fixed=rng.random(), costs=rows)


def test_what_the_cheapest_network_costs_is_no_target_below_it_by_rounding():
    for seed in range(90, 125):
        search = search_of(Chain(length=3), uneven=Uneven(seed=seed))
        least = every(search, "uneven")[0]
        resolve_costs({"uneven": CostGoal(target=least)}, search)
        with pytest.raises(SpecError, match="is below every architecture"):
            resolve_costs({"uneven": CostGoal(target=least * (1 - 1e-9))}, search)


def test_a_limit_at_the_edge_is_met_and_beyond_it_refused():
    values = every(search_of(CHAIN), "parameters")
    assert limited(CHAIN, Objective("parameters", at_most=values[0])) == []
    assert limited(CHAIN, Objective("parameters", at_least=values[-1])) == []
    low, high = (format_quantity(value, "parameters") for value in (values[0], values[-1]))
    told = f"the space's networks have {low} to {high}$"
    with pytest.raises(SpecError, match=told):
        limited(CHAIN, Objective("parameters", at_most=values[0] - 1))
    with pytest.raises(SpecError, match=told):
        limited(CHAIN, Objective("parameters", at_least=values[-1] + 1))


def test_where_connections_may_be_cut_too_bounds_hold():
    space = Chain(length=2, cut=True)
    search = search_of(space, parameters=Parameters(), flops=Flops())
    for key in search.estimators:
        low, high = surely_within(search, key)
        values = every(search, key)
        assert low <= values[0] and values[-1] <= high
        assert limited(space, Objective(key, at_most=values[0]), **search.estimators) == []
    with pytest.raises(SpecError, match="parameters"):
        limited(space, Objective("parameters", at_least=high + 1), parameters=Parameters())


BOTH = {"parameters": Parameters(), "flops": Flops()}


def test_limits_that_exclude_each_other_are_refused():
    space = Chain(length=5)
    assert space.size > 5000
    search = search_of(space, **BOTH)
    costs = [search.cost_table(key).predict for key in BOTH]
    median = sorted(
        tuple(cost(network) for cost in costs) for network in enumerate_all(space.decisions)
    )[space.size // 2]
    limits = (
        Objective("parameters", at_most=median[0]),
        Objective("flops", at_least=1.5 * median[1]),
    )
    with pytest.raises(SpecError, match="no network meets these limits at once: parameters at mo"):
        limited(space, *limits, **BOTH)


def test_limits_that_exclude_each_other_by_what_neighbours_cost_together_are_refused():
    """Each term of `unlike` is low enough somewhere, and all of them only in dear networks."""
    space, estimators = Chain(length=5), {"unlike": Unlike(), "parameters": Parameters()}
    search = search_of(space, **estimators)
    costs = [search.cost_table(key).predict for key in estimators]
    networks = [tuple(cost(a) for cost in costs) for a in enumerate_all(space.decisions)]
    unlike, narrow = min(networks)[0] + 3, min(parameters for _, parameters in networks)
    least = min(parameters for cost, parameters in networks if cost <= unlike)
    most = narrow + 0.3 * (least - narrow)
    limits = Objective("unlike", at_most=unlike), Objective("parameters", at_most=most)
    with pytest.raises(SpecError, match="no network meets these limits at once: unlike at mo"):
        limited(space, *limits, **estimators)


def test_limits_that_a_network_meets_are_never_refused():
    space = Chain(length=5)
    search = search_of(space, **BOTH, unlike=Unlike())
    for number in range(8):
        network = sample(space.decisions, search.stream("here", number))
        values = {key: search.cost_table(key).predict(network) for key in search.estimators}
        limits = [Objective(key, at_most=value) for key, value in values.items()]
        limits[number % 3] = Objective(
            limits[number % 3].metric, at_least=[*values.values()][number % 3]
        )
        limited(space, *limits, **search.estimators)


def test_the_ends_of_what_is_counted_are_measured_first():
    class Wide(Estimator):
        """Counts the wide widths, as if that took long."""

        effort = 1

        def metrics(self, search):
            return (Metric("wide", "", "min"),)

        def measure(self, candidate):
            wide = sum(choice == "wide" for choice in candidate.architecture.values())
            return {"wide": Measurement(float(wide))}

    search = search_of(TinyWidths(), parameters=Parameters(), wide=Wide())
    found = measure_few(search, "wide", ["big"]).range("wide")
    assert (found.smallest, found.largest) == (0.0, 2.0)
