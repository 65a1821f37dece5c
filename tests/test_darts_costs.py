"""Costs of a gradient search: settings, equation (4), the knapsack that derives under limits."""

import itertools
import math
import random
from dataclasses import replace
from typing import ClassVar
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from test_cut_costs import Gated
from test_cut_costs import search_of as search_with_cuts

from nasengine import elimination
from nasengine.errors import SpecError
from nasengine.estimator import CostTable, Estimator
from nasengine.objectives import Objective, Objectives
from nasengine.strategies import cut_derivation, derivation
from nasengine.strategies.architecture_loss import ArchitectureLoss, Penalty
from nasengine.strategies.cost_goals import resolve_costs
from nasengine.strategies.costs import Cost
from nasengine.strategies.cut_derivation import best_within
from nasengine.strategies.darts import Darts
from nasengine.strategies.derivation import best_choices
from nasengine.testing.stubs import (
    AdditiveEstimator,
    CountingEstimator,
    TinySpace,
    tiny_search,
)
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
    assert strategy(cost={"a": {"targets": (1, 2), "tolerance": 0.3}}).cost["a"].tolerance == 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cost": {"a": 1.5}}, "less than or equal to 1"),
        ({"cost": {"a": {"target": 1, "targets": (2,)}}}, "not both"),
        ({"cost": {"a": {"target": 1, "beta": 0.3}}}, "not both"),
        ({"cost": {"a": {"targets": (1, 2), "beta": 0.3}}}, "not both"),
        ({"cost": {"a": True}}, "a number"),
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
        ({"prise": 0.3}, "strategy.cost.prise: no estimator 'prise'; did you mean 'price'"),
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


def test_a_table_that_forgets_a_choice_is_refused_when_it_is_made(tmp_path):
    """And not only when it is read again: by a resume, or by a worker."""

    class Forgetful(Tabled):
        lacks: str

        def table(self, search):
            made = super().table(search)
            first = {name: cost for name, cost in made.costs["first"].items() if name != self.lacks}
            kept = {"first": first, "second": made.costs["second"]}
            kept = {slot: row for slot, row in kept.items() if slot != self.lacks}
            return replace(made, costs=kept)

    for lacks, told in (("conv", "slot 'first' lacks 'conv'"), ("second", "slot 'second' lacks")):
        with pytest.raises(SpecError, match=f"estimators.price: its cost table .*: {told}"):
            search_with(price=Forgetful(lacks=lacks)).cost_table("price")


def test_betas_may_sum_to_one():
    """These are more than 1 as floats are usually added."""
    names = ("one", "two", "three")
    search = search_with(**{name: Tabled() for name in names})
    strategy(cost=dict(zip(names, (0.33, 0.56, 0.11), strict=True))).check(search)


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


def limited(search, *limits):
    return replace(search, objectives=Objectives((*search.objectives.items, *limits)))


def test_the_lower_of_a_target_and_a_limit_is_worked_towards():
    class Other(Tabled):
        def table(self, search):
            costs = {"first": {"pointwise": 3.0, "conv": 1.0}, "second": TABLE["second"]}
            return CostTable("ms", 2.0, costs, {"first": "first", "second": "second"})

    search = search_with(price=Tabled(), other=Other())
    goals = strategy(cost={"price": {"target": 4}, "other": 0.1}).cost
    for most, aim in ((3.5, 3.5), (4.5, 4)):
        price, _ = resolve_costs(goals, limited(search, Objective("price", at_most=most)))
        assert (price.target, price.aim) == (4, aim)
    # Together with what another cost may be at most, it is the lower one that must be met.
    goals = strategy(cost={"price": {"target": 5}, "other": {"target": 3.5}}).cost
    resolve_costs(goals, search)
    both = [Objective(key, at_most=3.5) for key in ("price", "other")]
    for asked, limits in ((goals, both[:1]), ({}, both)):
        with pytest.raises(SpecError, match=r"at once: price 3.50 ms, other 3.50 ms"):
            resolve_costs(asked, limited(search, *limits))
    (least,) = resolve_costs(strategy(cost={"price": {"target": "3 ms"}}).cost, search)
    assert least.target == least.range[0]


def test_limits_on_what_has_no_table_are_left_to_the_trials():
    search = search_with(price=Tabled(), firsts=CountingEstimator())
    limits = (Objective("firsts", at_most=1.0), Objective("price.other", at_most=1.0))
    assert resolve_costs({}, limited(search, *limits)) == ()


def test_relative_targets_are_of_the_reference_network():
    (cost,) = resolve_costs(strategy(cost={"price": {"target": "60% of big"}}).cost, search_with())
    assert cost.target == pytest.approx(0.6 * 22)
    assert cost.free == ("second",)
    first_is_free = search_with(price=AdditiveEstimator())
    assert resolve_costs(strategy(cost={"price": 0.1}).cost, first_is_free)[0].free == ()


def terms(rows):
    """Costs of one decision each, as terms."""
    return {(name,): np.array(row) for name, row in rows.items()}


def two_costs(beta=0.3):
    rows = {"first": (1.0, 3.0), "second": (0.0, 0.0)}
    return [
        Cost("a", "ms", 2.0, terms(rows), beta=beta),
        Cost("b", "", 0.0, terms({**rows, "second": (1.0, 1.0)})),
    ]


def test_loss_is_equation_1_with_equation_4():
    p = {"first": torch.tensor([0.5, 0.5]), "second": torch.tensor([0.2, 0.8])}
    total = ArchitectureLoss(two_costs(), "expected", "cpu")(torch.tensor(2.0), p, {})
    assert float(total) == pytest.approx(0.7 * 2 + 0.3 * (0.5 * 0.25 + 0.5 * 0.75))


def test_readings_share_values_and_gradients_as_they_should():
    values, gradients = {}, {}
    for reading in ("expected", "straight_through", "as_printed"):
        alpha = torch.tensor([0.5, 0.0], requires_grad=True)
        p = {"first": torch.softmax(alpha, 0), "second": torch.tensor([0.2, 0.8])}
        loss = ArchitectureLoss(two_costs(), reading, "cpu")(alpha.sum() * 0, p, {})
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


def test_a_missed_target_adds_its_strength_times_the_relative_excess_of_the_expected_cost():
    p = {"first": torch.tensor([0.5, 0.5]), "second": torch.tensor([0.2, 0.8])}
    costs = [Cost("a", "ms", 2.0, terms({"first": (1.0, 3.0), "second": (0.0, 0.0)}), target=2.5)]
    loss, again = (ArchitectureLoss(costs, "expected", "cpu") for _ in range(2))
    assert float(loss(torch.tensor(2.0), p, loss.strengths())) == 2
    loss.update({"a": 3.0})
    strength = loss.penalties["a"].strength
    again.load_state_dict(loss.state_dict())
    for one in (loss, again):
        total = one(torch.tensor(2.0), p, one.strengths())
        assert float(total) == pytest.approx(2 + strength * (4 - 2.5) / 2.5)
    loss.update({"a": 2.5})
    assert float(loss(torch.tensor(2.0), p, loss.strengths())) == 2


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
    cost = Cost(
        "c", "", 1.0, terms({f"d{i}": tuple(c for _, c in row) for i, row in enumerate(rows)})
    )
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
    cost = Cost(
        "c", "", 1.0, terms({f"d{i}": tuple(c for _, c in row) for i, row in enumerate(rows)})
    )
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


two_priced = st.integers(1, 4).flatmap(
    lambda n: st.lists(
        st.lists(
            st.tuples(st.integers(-9, 0), st.integers(0, 30), st.integers(0, 30)),
            min_size=1,
            max_size=4,
        ),
        min_size=n,
        max_size=n,
    )
)


@given(two_priced, st.integers(0, 64), st.integers(1, 6))
def test_two_limits_and_a_floor_are_kept_by_the_best(rows, floor, count):
    """Costs and limits that fall onto the grid (64 steps each) make it exact."""
    names = [f"d{i}" for i in range(len(rows))]
    scores = {n: [float(score) for score, _, _ in row] for n, row in zip(names, rows, strict=True)}
    costs = [
        Cost(
            key,
            "",
            float(index),
            terms(
                {
                    n: tuple(float(item[index]) for item in row)
                    for n, row in zip(names, rows, strict=True)
                }
            ),
        )
        for key, index in (("a", 1), ("b", 2))
    ]

    def told(choices):
        taken = [row[i] for row, i in zip(rows, choices, strict=True)]
        score, a, b = (sum(item[k] for item in taken) for k in range(3))
        return score, a + 1, b + 2

    every = [(told(c), c) for c in itertools.product(*(range(len(row)) for row in rows))]
    within = [(t, c) for t, c in every if t[1] <= 64 and t[2] <= 64]
    above = [(t, c) for t, c in within if t[2] >= floor]
    limits = {"a": 64.0, "b": 64.0}
    every_one = best_choices(scores, costs, limits, {"b": float(floor)}, len(every))
    wanted = sorted(above or within, key=lambda item: (-item[0][0], item[1]))
    assert every_one == [choices for _, choices in wanted]
    best = best_choices(scores, costs, limits, {}, count)
    wanted = sorted((t[0] for t, _ in within), reverse=True)[:count]
    assert [told(choices)[0] for choices in best] == wanted


@pytest.mark.parametrize("order", [("tight", "loose"), ("loose", "tight")])
def test_the_one_network_within_two_limits_is_not_lost_to_a_better_that_leads_nowhere(order):
    """Near it in both costs is a better start, and a worse one; only it can be gone on from."""
    costs = {
        "tight": Cost("tight", "", 0.0, terms({"x": (1.0001, 1.0, 1.0), "y": (1.0, 3.0)})),
        "loose": Cost("loose", "", 0.0, terms({"x": (5.0, 5.0, 5.0), "y": (9.0, 1.0)})),
    }
    scores = {"x": (0.0, -1.0, -2.0), "y": (0.0, 0.0)}
    limits = {"tight": 4.0, "loose": 6.0}
    assert best_choices(scores, [costs[key] for key in order], limits, {}, 1) == [(1, 1)]


def test_costs_that_are_alike_in_their_sum_alone_do_not_compete():
    """Of the two starts between the cheapest ones, only the worse one can be gone on from."""
    costs = [
        Cost("a", "", 0.0, terms({"x": (1.0, 30.0, 10.0, 12.0), "y": (64.0, 0.0, 52.0)})),
        Cost("b", "", 0.0, terms({"x": (30.0, 1.0, 12.0, 10.0), "y": (0.0, 64.0, 54.0)})),
    ]
    scores = {"x": (0.0, 0.0, 0.0, -1.0), "y": (0.0, 0.0, 0.0)}
    assert best_choices(scores, costs, {"a": 64.0, "b": 64.0}, {}, 1) == [(3, 2)]


def test_many_are_found_of_a_large_space_without_keeping_all_that_lead_there(monkeypatch):
    rng, kept = random.Random(0), []
    rows = {f"d{n}": tuple(rng.randrange(1, 10**6) for _ in range(3)) for n in range(16)}
    scores = {name: tuple(-rng.random() for _ in row) for name, row in rows.items()}
    limit = sum(sum(row) / 3 for row in rows.values())
    costs, grown = [Cost("c", "", 0.0, terms(rows))], derivation._grown

    def watched(states, *further):
        kept.append(len(states.scores))
        return grown(states, *further)

    monkeypatch.setattr(derivation, "_grown", watched)
    found = best_choices(scores, costs, {"c": limit}, {}, 1024)
    assert len(set(found)) == 1024
    assert found[0] == best_choices(scores, costs, {"c": limit}, {}, 1)[0]
    assert max(kept) < 2 * derivation._STATES


def test_a_limit_that_a_network_costs_exactly_is_met_by_it():
    """Added in another order, the same costs differ in their last digit."""
    cost = Cost("c", "", 0.0, terms({"x": (0.1,), "y": (0.2,), "z": (0.3,)}))
    scores = dict.fromkeys(cost.rows, (0.0,))
    limit = 0.1 + (0.2 + 0.3)
    assert limit < (0.1 + 0.2) + 0.3
    assert best_choices(scores, [cost], {"c": limit}, {}, 1) == [(0, 0, 0)]
    assert best_choices(scores, [cost], {"c": limit * (1 - 1e-9)}, {}, 1) == []


def counted_costs(length):
    search = search_with_cuts(Gated(length=length))
    goals = strategy(cost={"parameters": 0.0, "flops": 0.0}).cost
    return search.space.decisions, resolve_costs(goals, search)


@pytest.mark.parametrize("listed", [True, False])
def test_the_best_within_limits_are_those_of_exhaustive_search_where_choices_cut(
    listed, monkeypatch
):
    monkeypatch.setattr(cut_derivation, "LISTED", 36 * listed)
    decisions, costs = counted_costs(1)
    every = list(itertools.product(*(range(len(choices)) for choices in decisions.values())))
    named = {e: {n: c[i] for (n, c), i in zip(decisions.items(), e, strict=True)} for e in every}
    prices = {e: [cost.table.predict(named[e]) for cost in costs] for e in every}
    assert prices == {e: [cost.predict(named[e], decisions) for cost in costs] for e in every}
    rng = random.Random(0)
    for _ in range(20):
        scores = {n: [-rng.random() for _ in choices] for n, choices in decisions.items()}
        (a, _), (_, b), least = (prices[rng.choice(every)] for _ in range(3))
        most = [max(a, least[0]), max(b, least[1])]
        limits = dict(zip(("parameters", "flops"), most, strict=True))
        within = [e for e in every if prices[e][0] <= most[0] and prices[e][1] <= most[1]]
        above = [e for e in within if prices[e][0] >= least[0] and prices[e][1] >= least[1]]

        def score(choices, scores=scores):
            return sum(row[i] for row, i in zip(scores.values(), choices, strict=True))

        floors = dict(zip(limits, least, strict=True))
        found = best_within(scores, costs, limits, floors, 5, decisions)
        assert found == sorted(above, key=score, reverse=True)[:5]
        found = best_within(scores, costs, limits, {"flops": 1e9}, 5, decisions)
        assert found == sorted(within, key=score, reverse=True)[:5]


def test_what_only_cuts_bring_within_a_limit_is_found_in_a_large_space():
    decisions, costs = counted_costs(3)
    assert math.prod(map(len, decisions.values())) > cut_derivation.LISTED
    (parameters, _), names = costs, list(decisions)

    def found(score, limit):
        scores = {n: [score(n, choice) for choice in decisions[n]] for n in names}
        rows = best_within(scores, costs, {"parameters": limit}, {}, 1, decisions)
        return [{n: decisions[n][i] for n, i in zip(names, row, strict=True)} for row in rows]

    def dear(name, choice):
        return parameters.rows[name][decisions[name].index(choice)]

    def price(network):
        return parameters.predict(network, decisions)

    cheapest = {**dict.fromkeys(names, "none"), **{f"big{i}": "c1" for i in range(3)}}
    cheapest |= {f"side{i}": "conv" for i in range(3)} | {f"after{i}": "skip" for i in range(3)}
    limit = price(cheapest)
    assert limit < 0.1 * parameters.fixed
    # Far below the sums of all networks, and what is wanted is dear.
    rng = random.Random(0)
    for score in (dear, *[lambda *_: rng.random()] * 4):
        (spent,) = found(score, limit)
        assert price(spent) == limit
    search = search_with_cuts(Gated(length=3))
    strategy(cost={"parameters": {"target": limit}}).check(search)
    with pytest.raises(SpecError, match="no architecture meets"):
        strategy(cost={"parameters": {"target": limit - 1}}).check(search)
    wanted = {**{n: choices[-2] for n, choices in decisions.items()}, "gate0": "none"}
    limit = price(wanted)
    assert limit < parameters.fixed + sum(dear(*item) for item in wanted.items())
    assert found(lambda name, choice: wanted[name] == choice, limit) == [wanted]
    (spent,) = found(dear, limit)
    assert 0.9 * limit < price(spent) <= limit


@st.composite
def joint_costs(draw):
    """Scores of up to five decisions, and one cost in terms of one to three of them each."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    names = [f"d{i}" for i in range(len(sizes))]
    scores = {
        n: [draw(st.floats(-5, 0)) for _ in range(k)] for n, k in zip(names, sizes, strict=True)
    }
    groups = st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True).map(tuple)
    costs = {
        group: np.array(
            draw(
                st.lists(
                    st.floats(0, 10),
                    min_size=(count := math.prod(len(scores[n]) for n in group)),
                    max_size=count,
                )
            )
        ).reshape([len(scores[n]) for n in group])
        for group in draw(st.lists(groups, min_size=1, max_size=5, unique=True))
    }
    return scores, Cost("c", "", 1.0, costs)


@pytest.mark.parametrize("apart", [1, elimination.MOST])
@given(joint_costs(), st.floats(0, 1), st.integers(1, 4))
def test_costs_of_several_decisions_together_are_kept_as_by_exhaustive_search(
    apart, drawn, share, count
):
    with patch.object(elimination, "MOST", apart):
        _check_against_exhaustive_search(*drawn, share, count, is_exact=apart > 1)


def _check_against_exhaustive_search(scores, cost, share, count, is_exact):
    names = list(scores)
    every = list(itertools.product(*(range(len(row)) for row in scores.values())))

    def score(choice):
        return sum(scores[n][c] for n, c in zip(names, choice, strict=True))

    def price(choice):
        chosen = dict(zip(names, choice, strict=True))
        return 1.0 + sum(a[tuple(chosen[n] for n in group)] for group, a in cost.terms.items())

    free = best_choices(scores, [cost], {}, {}, count)
    wanted = sorted((score(c) for c in every), reverse=True)[:count]
    assert [score(c) for c in free] == pytest.approx(wanted)
    least, most = min(map(price, every)), max(map(price, every))
    assert cost.range[0] <= least * (1 + 1e-12) and most <= cost.range[1] * (1 + 1e-12)
    assert not is_exact or cost.range == pytest.approx((least, most), rel=1e-12)
    limit = least + share * (most - least)
    found = best_choices(scores, [cost], {"c": limit}, {}, 1)
    assert price(found[0]) <= limit * (1 + 1e-9)
    # A grid cell is a thousandth of the limit at most, with so few groups.
    near = (1 - len(names) / 1000) * limit
    assert score(found[0]) >= max(score(c) for c in every if price(c) <= near or c == found[0])
    assert not best_choices(scores, [cost], {"c": least * (1 - 1e-6)}, {}, 1)


@given(joint_costs(), st.randoms(use_true_random=False))
def test_the_expected_cost_is_the_mean_over_all_networks(drawn, rng):
    scores, cost = drawn
    p = {
        name: torch.softmax(torch.tensor([rng.gauss(0, 1) for _ in row], dtype=torch.float64), 0)
        for name, row in scores.items()
    }
    mean = 0.0
    for choice in itertools.product(*(range(len(row)) for row in scores.values())):
        chosen = dict(zip(scores, choice, strict=True))
        chance = math.prod(float(p[name][index]) for name, index in chosen.items())
        mean += chance * sum(a[tuple(chosen[n] for n in g)] for g, a in cost.terms.items())
    told = ArchitectureLoss([cost], "expected", "cpu").facts(p)["c"]
    assert told["expected"] == pytest.approx(1.0 + mean, rel=1e-5)


def test_searched_widths_leave_a_betas_pressure_on_the_blocks_as_it_was():
    """Equation (4) is of a slot's candidates; an operation counts for its part in the whole."""
    blocks = np.array([[1.0, 2.0, 3.0], [3.0, 6.0, 9.0]])
    alone = Cost("a", "", 0.0, {("slot",): blocks.mean(1)}).shares["slot",]
    terms = {("slot", "width"): blocks, ("width",): np.array([0.1, 0.2, 0.3])}
    shares = Cost("a", "", 0.0, terms, widths=frozenset(["width"])).shares
    np.testing.assert_allclose(shares["slot", "width"].mean(1), alone)
    assert np.ptp(shares["width",]) < 0.1 * np.ptp(shares["slot", "width"].mean(0))
