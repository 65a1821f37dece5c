"""Costs of a gradient search: settings, equation (4), the knapsack that derives under limits."""

import itertools
from typing import ClassVar

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from nasengine.errors import SpecError
from nasengine.estimator import CostTable, Estimator
from nasengine.strategies.architecture_loss import ArchitectureLoss, Penalty
from nasengine.strategies.costs import Cost, resolve_costs
from nasengine.strategies.darts import Darts
from nasengine.strategies.derivation import best_choices
from nasengine.testing.stubs import CountingEstimator, TinySpace, tiny_search
from nasengine.trial import Measurement, Metric

TABLE = {"first": {"pointwise": 1.0, "conv": 3.0}, "second": {"pointwise": 0.0, "conv": 0.0}}


class Tabled(Estimator):
    """A cost by a fixed table."""

    effort: ClassVar[int] = 0
    scale: float = 1.0

    def metrics(self, search):
        return (Metric("price", "ms", "min"),)

    def measure(self, candidate):
        return {"price": Measurement(self.table(candidate.search).predict(candidate.architecture))}

    def table(self, search):
        costs = {
            slot: {name: cost * self.scale for name, cost in row.items()} | {"double": 10.0}
            for slot, row in TABLE.items()
        }
        return CostTable("ms", 2.0, costs, {"first": "first", "second": "second"})


def search_with(**estimators):
    return tiny_search(TinySpace(), estimators=estimators or {"price": Tabled()})


def strategy(**settings):
    return Darts.model_validate(settings)


def test_betas_and_targets_are_read():
    read = strategy(cost={"a": 0.3, "b": {"target": "5 ms"}, "c": 0}).cost
    assert (read["a"].beta, read["b"].target, read["c"].beta) == (0.3, "5 ms", 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cost": {"a": 1.5}}, "less than or equal to 1"),
        ({"cost": {"a": {"target": 1, "targets": (2,)}}}, "not both"),
        ({"cost": {"a": {"target": 1, "beta": 0.3}}}, "not both"),
        ({"cost": {"a": {"tolerance": 0.3}}}, "there is none"),
        ({"cost": {"a": {"targt": 1}}}, "Extra inputs"),
        ({"cost": {"a": {"target": 1}}, "reading": "as_printed"}, "no gradient"),
        ({"cost": {"a": {"targets": (1,)}, "b": {"targets": (1,)}}}, "only one cost"),
        ({"order": 2, "paths": 1}, "order 2 needs"),
        ({"order": 2, "weights": {"optimiser": "adamw"}}, "SGD"),
        ({"relaxation": "none", "temperature": 2.0}, "has no temperature"),
        ({"relaxation": "gumbel", "paths": 2}, "two paths"),
        ({"paths": 1, "perturbation": 0.1}, "perturbation"),
        ({"iterations": 5}, "arch_every"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        strategy(**settings)


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        ({"prise": 0.3}, "strategy.cost.prise: no such estimator; did you mean 'price'"),
        ({"firsts": 0.3}, "strategy.cost.firsts: .* no cost table .* price"),
        ({"price": 0.7, "twice": 0.7}, "sum to 1.4"),
        ({"price": {"target": "2.9 ms"}}, "range from 3.00 ms to 5.00 ms"),
        ({"price": {"targets": ("4 ms", "1 us")}}, "1 us is below every architecture"),
        ({"price": {"target": "10% of big"}}, "10% of big is below"),
        ({"price": {"target": "60% of bog"}}, "did you mean 'big'"),
        ({"price": {"target": "4 MB"}}, "no value in ms"),
    ],
)
def test_costs_that_cannot_be_are_refused_before_the_search(cost, message):
    search = search_with(price=Tabled(), twice=Tabled(scale=2.0), firsts=CountingEstimator())
    with pytest.raises(SpecError, match=message):
        strategy(cost=cost).check(search)


def test_betas_need_no_table_before_the_search(tmp_path):
    class Dear(Tabled):
        def table(self, search):
            raise AssertionError("measured")

    strategy(cost={"price": 0.3}).check(search_with(price=Dear()))


def test_targets_that_exclude_each_other_are_refused():
    class Other(Tabled):
        def table(self, search):
            costs = {"first": {"pointwise": 3.0, "conv": 1.0}, "second": TABLE["second"]}
            return CostTable("ms", 2.0, costs, {"first": "first", "second": "second"})

    search = search_with(price=Tabled(), other=Other())
    cost = {"price": {"target": 3.5}, "other": {"target": 3.5}}
    with pytest.raises(SpecError, match=r"at once: price 3.50 ms, other 3.50 ms"):
        strategy(cost=cost).check(search)
    strategy(cost={"price": {"target": 3.5}, "other": {"target": 5}}).check(search)


def test_relative_targets_are_of_the_reference_network():
    (cost,) = resolve_costs(strategy(cost={"price": {"target": "60% of big"}}).cost, search_with())
    assert cost.target == pytest.approx(0.6 * 22)
    assert cost.free == ("second",)


def two_costs(beta=0.3):
    rows = {"first": (1.0, 3.0), "second": (0.0, 0.0)}
    return [
        Cost("a", "ms", 2.0, rows, beta=beta),
        Cost("b", "", 0.0, {**rows, "second": (1.0, 1.0)}),
    ]


def test_loss_is_equation_1_with_equation_4():
    p = {"first": torch.tensor([0.5, 0.5]), "second": torch.tensor([0.2, 0.8])}
    total = ArchitectureLoss(two_costs(), "expected", "cpu")(torch.tensor(2.0), p)
    assert float(total) == pytest.approx(0.7 * 2 + 0.3 * (0.5 * 0.25 + 0.5 * 0.75))


def test_readings_share_values_and_gradients_as_they_should():
    values, gradients = {}, {}
    for reading in ("expected", "straight_through", "as_printed"):
        alpha = torch.tensor([0.5, 0.0], requires_grad=True)
        p = {"first": torch.softmax(alpha, 0), "second": torch.tensor([0.2, 0.8])}
        loss = ArchitectureLoss(two_costs(), reading, "cpu")(alpha.sum() * 0, p)
        loss.backward()
        values[reading], gradients[reading] = float(loss.detach()), alpha.grad
        facts = ArchitectureLoss(two_costs(), reading, "cpu").facts(p)
        assert facts["a"]["as_printed"] == pytest.approx(0.25)
    assert values["straight_through"] == pytest.approx(values["as_printed"])
    assert values["expected"] > values["as_printed"]
    assert gradients["as_printed"].abs().sum() == 0
    torch.testing.assert_close(gradients["straight_through"], gradients["expected"])


def test_penalty_is_zero_within_the_target_and_grows_above_it():
    penalty = Penalty(10.0)
    penalty.update(9.0)
    assert penalty.strength == 0
    strengths = []
    for _ in range(5):
        penalty.update(12.0)
        strengths.append(penalty.strength)
    increments = [b - a for a, b in itertools.pairwise(strengths)]
    assert strengths[0] > 0
    assert increments == sorted(increments)
    again = Penalty(10.0)
    again.load_state_dict(penalty.state_dict())
    assert again.strength == penalty.strength
    penalty.update(10.0)
    assert penalty.strength == 0


scores_and_costs = st.integers(1, 4).flatmap(
    lambda n: st.lists(
        st.lists(st.tuples(st.floats(-5, 0), st.floats(0, 10)), min_size=1, max_size=4),
        min_size=n,
        max_size=n,
    )
)


@given(scores_and_costs, st.floats(0, 1), st.integers(1, 6))
def test_best_choices_are_those_of_exhaustive_search(rows, share, count):
    scores = {f"d{i}": [score for score, _ in row] for i, row in enumerate(rows)}
    cost = Cost("c", "", 1.0, {f"d{i}": tuple(c for _, c in row) for i, row in enumerate(rows)})
    every = list(itertools.product(*(range(len(row)) for row in rows)))

    def score(choice):
        return sum(scores[f"d{i}"][c] for i, c in enumerate(choice))

    def price(choice):
        return 1.0 + sum(cost.rows[f"d{i}"][c] for i, c in enumerate(choice))

    free = best_choices(scores, [cost], {}, {}, count)
    wanted = sorted((score(c) for c in every), reverse=True)[:count]
    assert [score(c) for c in free] == pytest.approx(wanted)
    low, high = cost.range
    limit = low + share * (high - low)
    found = best_choices(scores, [cost], {"c": limit}, {}, 1)
    assert price(found[0]) <= limit * (1 + 1e-9)
    # A grid cell is 1/4096 of the limit: near-ties in cost may hide a slightly better score.
    exact = max(
        score(c) for c in every if price(c) <= limit * (1 - len(rows) / 4096) or c == found[0]
    )
    assert score(found[0]) >= exact - 1e-9


@given(scores_and_costs, st.floats(0, 1))
def test_floor_is_kept_where_something_lies_above_it(rows, share):
    scores = {f"d{i}": [score for score, _ in row] for i, row in enumerate(rows)}
    cost = Cost("c", "", 1.0, {f"d{i}": tuple(c for _, c in row) for i, row in enumerate(rows)})
    low, high = cost.range
    limit = low + share * (high - low)
    assume(limit > low * 1.001)
    (found,) = best_choices(scores, [cost], {"c": limit}, {"c": 0.9 * limit}, 1)
    price = 1.0 + sum(cost.rows[f"d{i}"][c] for i, c in enumerate(found))
    prices = [1.0 + sum(p) for p in itertools.product(*cost.rows.values())]
    margin = len(rows) / 4096 * limit
    if any(0.9 * limit + margin < p < limit - margin for p in prices):
        assert price >= 0.9 * limit
    assert price <= limit * (1 + 1e-9)
